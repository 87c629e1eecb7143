"""Each response carries an ``x-request-id``, and so does each line that is logged on the way to it.

A client's own id is kept when it is sane, so that one id leads through all the servers that a request passes.
"""

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playhead.server.logs import request_id as current
from playhead.server.problems import problem

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._~:+/=-]{1,128}")


class RequestIds:
    """ASGI middleware; the outermost one. What nobody expected is answered here, with the id to look for in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _of(scope) or uuid.uuid4().hex.encode()
        current.set(request_id.decode())
        has_begun = False

        async def with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        except Exception:
            if not has_begun:
                why = f"something went wrong here that should not have; the log tells more of {request_id.decode()}"
                await problem(500, why)(scope, receive, with_id)
            raise  # for the server to log


def _of(scope: Scope) -> bytes | None:
    """The client's id, if there is exactly one and it may be repeated in headers and logs."""
    sent: list[bytes] = [value for name, value in scope["headers"] if name == HEADER]
    return sent[0] if len(sent) == 1 and _SANE.fullmatch(sent[0]) else None
