"""The client for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from playhead.client import calls
from playhead.client.calls import REFUSAL_MAX_BYTES, Call
from playhead.client.following import Following
from playhead.client.state import Limits, State
from playhead.client.views import Started, StreamState
from playhead.errors import PlayheadError
from playhead.model import Event, Outcome, Status

AsyncToken = str | Callable[[], str | Awaitable[str]] | None
_closing: set[asyncio.Task[None]] = set()


class AsyncClient:
    """A Playhead server over HTTP.

        async with AsyncClient("http://127.0.0.1:8082") as client:
            started = await client.say("Tell me something long")
            async for event in client.tail(started.stream_id):
                print(event.text, end="")

    Any number of tails and calls may be under way at once. For asyncio, and for one event loop.

    Args:
        url: where the server is; ``PLAYHEAD_URL`` or http://127.0.0.1:8082 when absent. May have a path.
        token: sent as ``Authorization: Bearer``. A function (or coroutine function) is called before each connection,
            and once more when the server answers 401; what it raises comes out of the call or the loop.
        uds: path of the Unix socket that the server listens on, instead of TCP.
        http: a client of your own (proxies, certificates …); it is never closed here.
        limits: how long to wait for what.
    Raises: InvalidSetting.
    Errors of all calls: those of ``playhead.errors`` that the server tells, found by their code; ``ConnectionLost``
        (no answer), ``Unauthorized``, ``Refused``, ``BadAnswer``.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: AsyncToken = None,
        uds: str | Path | None = None,
        http: httpx.AsyncClient | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.url = calls.base_url(url, uds)
        self._limits = limits or Limits()
        self._token = token
        self._own = http is None
        self._http = http or httpx.AsyncClient(
            transport=None if uds is None else httpx.AsyncHTTPTransport(uds=str(uds), limits=calls.POOL),
            limits=calls.POOL,
        )

    def tail(
        self,
        stream_id: str,
        *,
        after: str | None = None,
        coalesce: bool = False,
        on_state: Callable[[State], None] | None = None,
        give_up_after_s: float | None = None,
    ) -> "AsyncTail":
        """Follow a stream: an async iterator of its events. Nothing is sent before the first event is asked for.

        Args:
            after: a cursor; everything after it is read. None: from the start.
            coalesce: neighbouring text events that are ready together come as one event, with the offset of the last.
            on_state: called with each new state, in the task that reads.
            give_up_after_s: fail with ``ConnectionLost`` after so long without a connection. None: never.
        Raises: InvalidStreamId, CursorInvalid.
        """
        following = Following(
            stream_id,
            after,
            self._limits,
            coalesce=coalesce,
            give_up_after_s=give_up_after_s,
            can_refresh=callable(self._token),
            now=time.monotonic(),
        )
        return AsyncTail(self, following, on_state)

    async def info(self, stream_id: str) -> StreamState:
        """What is known of a stream, expired ones included. Raises: StreamNotFound."""
        return StreamState.of(await self._call(Call("GET", calls.stream_path(stream_id, "/info"))))

    async def find(
        self,
        *,
        status: Status | str | None = None,
        thread_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[StreamState]:
        """Your streams, newest first; the next page is ``before`` the last one's id. ``limit``: 1 to 1,000."""
        return calls.streams_of(await self._call(calls.find(status, thread_id, before, limit)))

    async def cancel(self, stream_id: str) -> StreamState:
        """Ask a stream to stop; idempotent. What it said is kept. Returns when the request is stored, not the close:
        follow the stream to see that. Raises: StreamNotFound."""
        return StreamState.of(await self._call(Call("POST", calls.stream_path(stream_id, "/cancel"))))

    async def delete(self, stream_id: str) -> None:
        """Forget a stream and its events at once, live or not. Raises: StreamNotFound."""
        await self._call(Call("DELETE", calls.stream_path(stream_id)))

    async def say(
        self, message: str, *, thread_id: str | None = None, supersede: bool = False, idempotency_key: str | None = None
    ) -> Started:
        """Send a message to the server's chat; follow the stream for the answer.

        Args:
            thread_id: the conversation; a new one when absent.
            supersede: cancel the answer that is live on the thread, instead of ``ThreadBusy``.
            idempotency_key: the same message with the same key is stored once; pass one to repeat a call safely.
        Raises: ThreadBusy (fact ``stream_id``), ThreadNotFound.
        """
        return Started.of(await self._call(calls.say(message, thread_id, supersede, idempotency_key)))

    async def aclose(self) -> None:
        """Close all connections, also those of tails."""
        if self._own:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def _call(self, call: Call) -> Any:
        """Raises: what the server answered, as an error; ConnectionLost."""
        response = await self._asked(call)
        if response.status_code == 401 and callable(self._token):
            response = await self._asked(call)
        return calls.answer(response)

    async def _asked(self, call: Call) -> httpx.Response:
        request = calls.request(self._http, self.url, call, await self._now_token(), calls.call_timeout(self._limits))
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            raise calls.lost(error, self.url) from error

    async def _now_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return token if isinstance(token, str) else await token

    async def _stream(self, following: Following) -> httpx.Response:
        token = await self._now_token()
        now = time.monotonic()
        timeout = calls.stream_timeout(self._limits, following.connect_s(now))
        request = calls.request(self._http, self.url, following.call(now), token, timeout)
        return await self._http.send(request, stream=True)


class AsyncTail(AsyncIterator[Event]):
    """One reader of one stream: an async iterator of its events, from a cursor to the close and no further.

    It connects again by itself, with its last cursor, whatever broke the connection: each event comes once, in order.
    Leaving the loop closes the connection (the stream goes on); so do ``aclose()`` and the end of an ``async with``.
    Iterating again goes on where it was left. A tail is for one task at a time.

    Raises (from iterating, once): StreamNotFound, StreamExpired, CursorInvalid, CursorOfAnotherStream, CursorAhead,
        Diverged and whatever else makes the stream unreadable; ConnectionLost (``give_up_after_s``), Unauthorized,
        Refused, BadAnswer. Trouble that passes raises nothing: see ``state`` and ``trouble``.
    Cancel: safe at any await; nothing is lost: iterate again, or make a new tail after ``cursor``.
    """

    def __init__(self, client: AsyncClient, following: Following, on_state: Callable[[State], None] | None) -> None:
        self._client = client
        self._following = following
        self._on_state = on_state
        self._told = State.CONNECTING
        self._raised = False
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def stream_id(self) -> str:
        return self._following.stream_id

    @property
    def cursor(self) -> str | None:
        """Of the last event that was handed on, at the end of the close; what the tail began with before that."""
        return self._following.cursor

    @property
    def state(self) -> State:
        return self._following.state

    @property
    def outcome(self) -> Outcome | None:
        """How the stream ended; None until the end was reached."""
        return self._following.outcome

    @property
    def tail(self) -> int:
        """Offset of the newest event that is known to be stored."""
        return self._following.tail

    @property
    def trouble(self) -> PlayheadError | None:
        """Why nothing comes, while ``reconnecting``; the error, when ``failed``."""
        return self._following.failure or self._following.trouble

    def __aiter__(self) -> AsyncIterator[Event]:
        return _Loop(self)

    async def __anext__(self) -> Event:
        following = self._following
        while True:
            event = following.take()
            if event is not None:
                return event
            self._tell()
            if following.is_over:
                await self.aclose()
                if following.failure is None or self._raised:
                    raise StopAsyncIteration
                self._raised = True
                raise following.failure
            if self._response is None:
                await self._connect()
            else:
                await self._read()

    async def aclose(self) -> None:
        """Close the connection. The stream goes on, and so may this tail."""
        response = self._let_go()
        if response is not None:
            await response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        await self.aclose()

    def leave(self) -> None:
        """Close the connection soon, without waiting for it."""
        response = self._let_go()
        if response is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_close, response)

    def __del__(self) -> None:
        self.leave()

    def __repr__(self) -> str:
        return f"AsyncTail({self.stream_id!r}, state={str(self.state)!r}, cursor={self.cursor!r})"

    async def _connect(self) -> None:
        following = self._following
        self._loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, following.due_at - time.monotonic()))
        try:
            response = await self._client._stream(following)
        except httpx.RequestError as error:
            following.lost(calls.lost(error, self._client.url), time.monotonic())
            return
        self._response = response
        try:
            await self._answered(response)
        except httpx.RequestError as error:
            await self._lose(error)
        except BaseException:
            self.leave()
            raise

    async def _answered(self, response: httpx.Response) -> None:
        following = self._following
        if response.status_code == 200:
            if following.opened(response.headers, time.monotonic()):
                self._chunks = response.aiter_bytes()
            else:
                await self.aclose()
            return
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > REFUSAL_MAX_BYTES:
                break
        await self.aclose()
        if response.status_code != 204:
            following.refused(response.status_code, response.headers, body, time.monotonic())
            return
        try:
            state = await self._client.info(following.stream_id)
        except PlayheadError as error:
            following.failed(error, time.monotonic())
        else:
            following.finished(state, time.monotonic())

    async def _read(self) -> None:
        assert self._chunks is not None
        try:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                await self._lose(EOFError("the server ended the response"))
            elif not self._following.received(chunk, time.monotonic()):
                await self.aclose()
        except httpx.RequestError as error:
            await self._lose(error)
        except BaseException:
            self.leave()
            raise

    async def _lose(self, error: Exception) -> None:
        self._following.lost(calls.lost(error, self._client.url), time.monotonic())
        await self.aclose()

    def _let_go(self) -> httpx.Response | None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            self._following.left(time.monotonic())
        return response

    def _tell(self) -> None:
        state = self._following.state
        if state is not self._told:
            self._told = state
            if self._on_state is not None:
                self._on_state(state)


class _Loop(AsyncIterator[Event]):
    """What an ``async for`` holds: when it lets go of this, the tail lets go of its connection."""

    def __init__(self, tail: AsyncTail) -> None:
        self._tail = tail

    async def __anext__(self) -> Event:
        return await self._tail.__anext__()

    def __del__(self) -> None:
        self._tail.leave()


def _close(response: httpx.Response) -> None:
    task = asyncio.ensure_future(response.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
