"""The bare ASGI response that writes a stream to a socket; every door uses it.

One task per reader: the server's own request task. It waits for the log, and writes everything that is ready in
one message. A ticker per loop, not a timer per reader, sends keep-alives, notices readers who have left silently, and
gives up on readers who take nothing for a minute. Slots are released when the response ends, however it ends.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from playhead.errors import PlayheadError, StoreUnavailable
from playhead.reader import Tail
from playhead.sse import HEADERS, KEEP_ALIVE, NATIVE, Encoder, opening, problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RETRY_MS = 1_000
KEEP_ALIVE_S = 15.0
PRESENCE_S = 2.0
_PRESENCE_TURNS = 12  # of the loop; each middleware that wraps ``receive`` in tasks takes some before it answers
STALLED_S = 60.0
_TICK_S = 1.0


class OpenResponse:
    """A response that stays open: says what is ready, keeps the connection alive, notices that nobody is there.

    Subclasses tell what is ready (``_next``), whether they wait for it (``is_waiting``), and can be woken (``nudge``).
    """

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self._headers = headers
        self._task: asyncio.Task[Any] | None = None
        self._due_at = 0.0
        self._present_at = 0.0
        self._sending_since: float | None = None
        self._gave_up = False

    @property
    def is_waiting(self) -> bool:
        raise NotImplementedError

    def nudge(self) -> None:
        """Make a waiting ``_next`` return empty-handed."""
        raise NotImplementedError

    async def _next(self) -> tuple[bytes, bool]:
        """What is to be written, waiting while that is nothing; and whether it is the end."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Give back everything that the response holds."""
        raise NotImplementedError

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        ticker = _ticker()
        try:
            self._task = asyncio.current_task()
            ticker.add(self)
            await self._bounded(send, {"type": "http.response.start", "status": 200, "headers": self._headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            await self._follow(receive, send)
        except asyncio.CancelledError:
            if not self._gave_up or self._task is None or self._task.uncancel():
                raise
        finally:
            ticker.discard(self)
            await self.aclose()

    async def _follow(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        body, is_last = opening(RETRY_MS), False
        self._present_at = loop.time()
        while not is_last:
            now = loop.time()
            if body:
                await self._bounded(send, {"type": "http.response.body", "body": body, "more_body": True})
                self._due_at = now + KEEP_ALIVE_S
            if now - self._present_at >= PRESENCE_S:
                if await _has_left(receive):
                    return
                self._present_at = now
            body, is_last = await self._next()
            if not (body or is_last) and loop.time() >= self._due_at:
                body = KEEP_ALIVE
        await self._bounded(send, {"type": "http.response.body", "body": body})

    async def _bounded(self, send: Send, message: Message) -> None:
        """Send; the ticker ends the response when that takes too long."""
        self._sending_since = asyncio.get_running_loop().time()
        await send(message)
        self._sending_since = None

    def tick(self, now: float) -> None:
        """Called about once a second while the response is open."""
        if self._sending_since is not None:
            if now - self._sending_since > STALLED_S and self._task is not None and not self._gave_up:
                self._gave_up = True
                self._task.cancel()
        elif self.is_waiting and (now >= self._due_at or now - self._present_at >= PRESENCE_S):
            self.nudge()


class EventStream(OpenResponse):
    """An ASGI application that sends one stream, from the tail's cursor to the close, as server-sent events.

    The tail must be open, so that errors have become a proper answer before the first byte. 204 when the cursor is
    at the close already: a browser's EventSource then stops reconnecting. ``playhead-tail`` tells how much there was
    when the response began: who has that has caught up. An outage of the store is told of, and waited out.
    """

    def __init__(
        self,
        tail: Tail,
        encoder: Encoder = NATIVE,
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        there = (b"playhead-tail", str(tail.info.tail).encode())
        super().__init__([*HEADERS, there, *(headers or [])])
        self.tail = tail
        self._encoder = encoder
        self._is_away = False  # the store, as the reader was told

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if self.tail.outcome is None:
            await super().__call__(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": 204, "headers": self._headers[1:]})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self.aclose()

    @property
    def is_waiting(self) -> bool:
        return self.tail.is_waiting

    def nudge(self) -> None:
        self.tail.nudge()

    async def _next(self) -> tuple[bytes, bool]:
        try:
            batches = await (self.tail.ready_again() if self._is_away else self.tail.ready())
        except PlayheadError as error:
            if isinstance(error, StoreUnavailable) and not self.tail.is_closed:
                was_away, self._is_away = self._is_away, True
                return b"" if was_away else self._encoder.reconnecting(error), False
            # Trouble that passes says nothing: the reader reconnects with its cursor.
            return b"" if error.retryable else self._encoder.error(error), True
        self._is_away = False
        if batches:
            return self._encoder.encode(self.tail.info, batches), False
        if self.tail.outcome is not None:
            return self._encoder.close(self.tail.info), True
        return b"", False

    async def aclose(self) -> None:
        await self.tail.aclose()


async def _has_left(receive: Receive) -> bool:
    """Whether the client has disconnected, without waiting for it."""
    # Servers drop what is sent to a closed connection without a word; only receive() tells.
    asking = asyncio.ensure_future(receive())
    try:
        while True:
            for _ in range(_PRESENCE_TURNS):
                if asking.done():
                    break
                await asyncio.sleep(0)
            else:
                return False
            if asking.result()["type"] == "http.disconnect":
                return True
            asking = asyncio.ensure_future(receive())
    finally:
        asking.cancel()


class _Ticker:
    """Ticks all open responses of one loop; stands still while there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[OpenResponse] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, response: OpenResponse) -> None:
        self._open.add(response)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK_S, self._tick)

    def discard(self, response: OpenResponse) -> None:
        self._open.discard(response)
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_TICK_S, self._tick)
        now = self._loop.time()
        for response in self._open:
            response.tick(now)


_tickers: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Ticker]" = WeakKeyDictionary()


def _ticker() -> _Ticker:
    loop = asyncio.get_running_loop()
    ticker = _tickers.get(loop)
    if ticker is None:
        ticker = _tickers[loop] = _Ticker(loop)
    return ticker


class Problem:
    """An ASGI application that answers with an error as a problem document (RFC 9457)."""

    def __init__(self, error: PlayheadError, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.error = error
        self._headers = headers or []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:  # noqa: ARG002
        body = json.dumps(problem(self.error), default=str).encode()
        headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store"), *self._headers]
        if self.error.retryable:
            headers.append((b"retry-after", b"1"))
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": self.error.http_status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
