"""No request body may fill the memory: a limit for all of them, answered with a problem document."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playhead.server.problems import problem

BODY_MAX_BYTES = 4 * 1024 * 1024
_TOO_LARGE = f"a request body may hold at most {BODY_MAX_BYTES:,} bytes"


class BodyLimit:
    """ASGI middleware. What says its length is refused at once, the rest when it has become too much."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not said.isdigit() or int(said[:20]) > BODY_MAX_BYTES:
            await problem(413, _TOO_LARGE)(scope, receive, send)
            return
        size_bytes = 0

        async def counted() -> Message:
            nonlocal size_bytes
            message = await receive()
            size_bytes += len(message.get("body", b""))
            if size_bytes > BODY_MAX_BYTES:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self.app(scope, counted, send)
