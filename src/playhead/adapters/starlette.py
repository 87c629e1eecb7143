"""Playhead inside a FastAPI or Starlette app of one's own.

    playhead = Playhead.open("sqlite:///answers.db")
    app = FastAPI(lifespan=lifespan(playhead))
    install(app, playhead)

    @app.get("/answers/{stream_id:path}")
    async def follow(stream_id: str, request: Request):
        return await stream_response(playhead, request, stream_id)

Shutdown (P11). A server that is told to stop waits for open responses before it ends the lifespan, and a live stream's
response stays open for minutes. So ``lifespan`` listens for the server's stop signals itself: it ends the readers'
responses at once, so that they reconnect elsewhere, while the server goes on with its own shutdown. This works under
plain ``uvicorn app:app``. Where signals do not arrive (the app runs in a thread, or a supervisor stops it in another
way), call ``await playhead.drain()`` before the server's shutdown, or bound its wait
(``uvicorn --timeout-graceful-shutdown 5``).
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as missing:
    raise ImportError(
        "playhead.adapters.starlette needs Starlette, which is not installed: pip install starlette (or fastapi)"
    ) from missing

from playhead.asgi import RETRY_MS, EventStream, OpenResponse, Problem
from playhead.errors import BadRequest, PlayheadError
from playhead.sse import COALESCED, HEADERS, NATIVE, Encoder, opening
from playhead.streams import Playhead

_LATER = "playhead.later"


class StreamResponse(Response):
    """A Starlette response around a bare one."""

    def __init__(self, stream: OpenResponse) -> None:
        super().__init__()
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        later = scope.get(_LATER)
        if later is None:
            await self._stream(scope, receive, send)
        else:
            later.append(self._stream)


class BareStreams:
    """ASGI middleware, optional: streams are written when the framework is done with their request.

    Else all that a framework keeps for a request is kept for each reader, for as long as it reads: with FastAPI twice
    the memory of the reader itself. Make it the outermost one: what is inside never sees the response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        later: list[OpenResponse] = []
        await self.app({**scope, _LATER: later}, receive, send)
        if later:
            await later[0](scope, receive, send)


class ProblemResponse(Response):
    """An error as a problem document (RFC 9457)."""

    def __init__(self, error: PlayheadError) -> None:
        super().__init__(status_code=error.http_status)
        self._problem = Problem(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._problem(scope, receive, send)


def cursor_of(request: Request) -> str | None:
    """The cursor that a reader comes back with: ``Last-Event-ID``, else ``?after=``; an empty one counts as none."""
    return request.headers.get("last-event-id") or request.query_params.get("after") or None


def encoder_of(request: Request) -> Encoder:
    """How a reader wants the stream: ``?coalesce=text`` joins neighbouring text. Raises: BadRequest."""
    match request.query_params.get("coalesce"):
        case None | "":
            return NATIVE
        case "text":
            return COALESCED
    raise BadRequest("coalesce=text is all that can be joined", argument="coalesce")


def come_back(error: PlayheadError) -> Response:
    """Send a reader away for a moment: 200, ``retry``, the reason as a comment, the end.

    A browser's EventSource gives up for good on any status but 200; after this it reconnects with its cursor.
    """
    headers = {name.decode(): value.decode() for name, value in HEADERS}
    return Response(opening(RETRY_MS) + f": {error.code}\n".encode(), headers=headers)


async def stream_response(
    playhead: Playhead,
    request: Request,
    stream_id: str,
    *,
    principal: str | None = None,
    encoder: Encoder | None = None,
) -> Response:
    """Answer a request with a stream as server-sent events, from the reader's cursor to the close.

    The native form unless ``encoder`` is given; ``?coalesce=text`` is obeyed. 204 when the cursor is at the close.
    Trouble that passes (``error.retryable``: draining, too many readers, store unavailable) is answered with
    ``come_back``, so that browsers reconnect.
    Raises: what ``Playhead.tail`` raises and asking again would not help; ``install`` turns it into a problem document.
    """
    encoder = encoder or encoder_of(request)
    try:
        tail = playhead.tail(stream_id, after=cursor_of(request), principal=principal)
        await tail.open()
    except PlayheadError as error:
        if not error.retryable:
            raise
        return come_back(error)
    return StreamResponse(EventStream(tail, encoder))


def answer_errors(app: Starlette) -> None:
    """Make ``app`` answer every PlayheadError with its problem document."""

    async def answer(request: Request, error: Exception) -> Response:  # noqa: ARG001
        assert isinstance(error, PlayheadError)
        return ProblemResponse(error)

    app.add_exception_handler(PlayheadError, answer)


def install(app: Starlette, playhead: Playhead) -> None:
    """``answer_errors``, and ``request.app.state.playhead`` for routes in other modules."""
    answer_errors(app)
    app.state.playhead = playhead


def lifespan(playhead: Playhead, *, drain_grace_s: float = 5.0) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """The lifespan of an app that owns ``playhead``: connect, then drain and close when the server stops.

    ``drain_grace_s`` is what running sources get to end by themselves before they are closed ``interrupted``.
    """

    @asynccontextmanager
    async def manage(app: Any) -> AsyncIterator[None]:  # noqa: ARG001
        async with playhead, draining_at_stop(playhead, drain_grace_s):
            yield

    return manage


@asynccontextmanager
async def draining_at_stop(playhead: Playhead, grace_s: float) -> AsyncIterator[None]:
    """Drain when the server is told to stop, at the end of the block at the latest. For a lifespan of one's own."""
    loop = asyncio.get_running_loop()
    begun: list[asyncio.Task[None]] = []

    def drain() -> asyncio.Task[None]:
        if not begun:
            begun.append(loop.create_task(playhead.drain(grace_s)))
        return begun[0]

    try:
        with _on_stop_signal(lambda: loop.call_soon_threadsafe(drain)):
            yield
    finally:
        await drain()


@contextmanager
def _on_stop_signal(tell: Callable[[], object]) -> Iterator[None]:
    """Hear of SIGINT and SIGTERM before the handler that the server has set; that one then does as always."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    servers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        tell()
        servers[number](number, frame)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        handler = signal.getsignal(number)
        if callable(handler):  # else nobody waits for open responses either
            servers[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in servers.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)
