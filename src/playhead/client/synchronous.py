"""The client for code without an event loop."""

import time
from collections.abc import Callable, Iterator
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

Token = str | Callable[[], str] | None


class Client:
    """A Playhead server over HTTP.

        with Client("http://127.0.0.1:8082") as client:
            started = client.say("Tell me something long")
            for event in client.tail(started.stream_id):
                print(event.text, end="")

    The same as ``AsyncClient``, and no event loop anywhere. May be shared by threads; a tail belongs to one of them.

    Args:
        url: where the server is; ``PLAYHEAD_URL`` or http://127.0.0.1:8082 when absent. May have a path.
        token: sent as ``Authorization: Bearer``. A function is called before each connection, and once more when the
            server answers 401; what it raises comes out of the call or the loop.
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
        token: Token = None,
        uds: str | Path | None = None,
        http: httpx.Client | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.url = calls.base_url(url, uds)
        self._limits = limits or Limits()
        self._token = token
        self._own = http is None
        self._http = http or httpx.Client(
            transport=None if uds is None else httpx.HTTPTransport(uds=str(uds), limits=calls.POOL), limits=calls.POOL
        )

    def tail(
        self,
        stream_id: str,
        *,
        after: str | None = None,
        coalesce: bool = False,
        on_state: Callable[[State], None] | None = None,
        give_up_after_s: float | None = None,
    ) -> "Tail":
        """Follow a stream: an iterator of its events. Nothing is sent before the first event is asked for.

        Args:
            after: a cursor; everything after it is read. None: from the start.
            coalesce: neighbouring text events that are ready together come as one event, with the offset of the last.
            on_state: called with each new state, in the thread that reads.
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
        return Tail(self, following, on_state)

    def info(self, stream_id: str) -> StreamState:
        """What is known of a stream, expired ones included. Raises: StreamNotFound."""
        return StreamState.of(self._call(Call("GET", calls.stream_path(stream_id, "/info"))))

    def find(
        self,
        *,
        status: Status | str | None = None,
        thread_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[StreamState]:
        """Your streams, newest first; the next page is ``before`` the last one's id. ``limit``: 1 to 1,000."""
        return calls.streams_of(self._call(calls.find(status, thread_id, before, limit)))

    def cancel(self, stream_id: str) -> StreamState:
        """Ask a stream to stop; idempotent. What it said is kept. Returns when the request is stored, not the close:
        follow the stream to see that. Raises: StreamNotFound."""
        return StreamState.of(self._call(Call("POST", calls.stream_path(stream_id, "/cancel"))))

    def delete(self, stream_id: str) -> None:
        """Forget a stream and its events at once, live or not. Raises: StreamNotFound."""
        self._call(Call("DELETE", calls.stream_path(stream_id)))

    def say(
        self, message: str, *, thread_id: str | None = None, supersede: bool = False, idempotency_key: str | None = None
    ) -> Started:
        """Send a message to the server's chat; follow the stream for the answer.

        Args:
            thread_id: the conversation; a new one when absent.
            supersede: cancel the answer that is live on the thread, instead of ``ThreadBusy``.
            idempotency_key: the same message with the same key is stored once; pass one to repeat a call safely.
        Raises: ThreadBusy (fact ``stream_id``), ThreadNotFound.
        """
        return Started.of(self._call(calls.say(message, thread_id, supersede, idempotency_key)))

    def close(self) -> None:
        """Close all connections, also those of tails."""
        if self._own:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _call(self, call: Call) -> Any:
        """Raises: what the server answered, as an error; ConnectionLost."""
        response = self._asked(call)
        if response.status_code == 401 and callable(self._token):
            response = self._asked(call)
        return calls.answer(response)

    def _asked(self, call: Call) -> httpx.Response:
        request = calls.request(self._http, self.url, call, self._now_token(), calls.call_timeout(self._limits))
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            raise calls.lost(error, self.url) from error

    def _now_token(self) -> str | None:
        return self._token() if callable(self._token) else self._token

    def _stream(self, following: Following) -> httpx.Response:
        token = self._now_token()
        now = time.monotonic()
        timeout = calls.stream_timeout(self._limits, following.connect_s(now))
        request = calls.request(self._http, self.url, following.call(now), token, timeout)
        return self._http.send(request, stream=True)


class Tail(Iterator[Event]):
    """One reader of one stream: an iterator of its events, from a cursor to the close and no further.

    It connects again by itself, with its last cursor, whatever broke the connection: each event comes once, in order.
    Leaving the loop closes the connection (the stream goes on), also by an exception such as KeyboardInterrupt; so do
    ``close()`` and the end of a ``with``. Iterating again goes on where it was left. A tail is for one thread.

    Raises (from iterating, once): StreamNotFound, StreamExpired, CursorInvalid, CursorOfAnotherStream, CursorAhead,
        Diverged and whatever else makes the stream unreadable; ConnectionLost (``give_up_after_s``), Unauthorized,
        Refused, BadAnswer. Trouble that passes raises nothing: see ``state`` and ``trouble``.
    """

    def __init__(self, client: Client, following: Following, on_state: Callable[[State], None] | None) -> None:
        self._client = client
        self._following = following
        self._on_state = on_state
        self._told = State.CONNECTING
        self._raised = False
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] | None = None

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

    def __iter__(self) -> Iterator[Event]:
        return _Loop(self)

    def __next__(self) -> Event:
        following = self._following
        while True:
            event = following.take()
            if event is not None:
                return event
            self._tell()
            if following.is_over:
                self.close()
                if following.failure is None or self._raised:
                    raise StopIteration
                self._raised = True
                raise following.failure
            if self._response is None:
                self._connect()
            else:
                self._read()

    def close(self) -> None:
        """Close the connection. The stream goes on, and so may this tail."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            self._following.left(time.monotonic())
            response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Tail({self.stream_id!r}, state={str(self.state)!r}, cursor={self.cursor!r})"

    def _connect(self) -> None:
        following = self._following
        time.sleep(max(0.0, following.due_at - time.monotonic()))
        try:
            self._response = self._client._stream(following)
            self._answered(self._response)
        except httpx.RequestError as error:
            self._lose(error)
        except BaseException:
            self.close()
            raise

    def _answered(self, response: httpx.Response) -> None:
        following = self._following
        if response.status_code == 200:
            if following.opened(response.headers, time.monotonic()):
                self._chunks = response.iter_bytes()
            else:
                self.close()
            return
        body = b""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > REFUSAL_MAX_BYTES:
                break
        self.close()
        if response.status_code != 204:
            following.refused(response.status_code, response.headers, body, time.monotonic())
            return
        try:
            state = self._client.info(following.stream_id)
        except PlayheadError as error:
            following.failed(error, time.monotonic())
        else:
            following.finished(state, time.monotonic())

    def _read(self) -> None:
        assert self._chunks is not None
        try:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._lose(EOFError("the server ended the response"))
            elif not self._following.received(chunk, time.monotonic()):
                self.close()
        except httpx.RequestError as error:
            self._lose(error)
        except BaseException:  # KeyboardInterrupt: part of a chunk may be gone with it
            self.close()
            raise

    def _lose(self, error: Exception) -> None:
        self._following.lost(calls.lost(error, self._client.url), time.monotonic())
        self.close()

    def _tell(self) -> None:
        state = self._following.state
        if state is not self._told:
            self._told = state
            if self._on_state is not None:
                self._on_state(state)


class _Loop(Iterator[Event]):
    """What a ``for`` holds: when it lets go of this, the tail closes its connection."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail

    def __next__(self) -> Event:
        return self._tail.__next__()

    def __del__(self) -> None:
        self._tail.close()
