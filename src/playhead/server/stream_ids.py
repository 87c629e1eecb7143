"""Stream ids in paths. An id is any printable text, so it may hold "/" and even end in "/info".

    /v1/streams/a%2Finfo         the stream "a/info"
    /v1/streams/a/info           what is known of the stream "a"
    /v1/streams/a/b              the stream "a/b": a slash that is no verb's may stay as it is

Servers hand over the path decoded, where these can no longer be told apart. So the router is given the encoded
form for this one prefix, and ids are decoded by the handlers.
"""

from typing import Annotated
from urllib.parse import quote, unquote_to_bytes

from fastapi import Path
from pydantic import AfterValidator
from starlette.types import ASGIApp, Receive, Scope, Send

from playhead.errors import InvalidStreamId
from playhead.model import check_stream_id

PREFIX = "/v1/streams/"
VERBS = frozenset({"info", "cancel"})


class EncodedStreamIds:
    """ASGI middleware: routes below ``PREFIX`` see one segment, still encoded, for the id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            scope = {**scope, "path": PREFIX + _one_segment(_encoded(scope))}
        await self.app(scope, receive, send)


def _encoded(scope: Scope) -> str:
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    return raw.removeprefix(PREFIX) if raw.startswith(PREFIX) else quote(scope["path"].removeprefix(PREFIX))


def _one_segment(rest: str) -> str:
    head, _, last = rest.rpartition("/")
    if head and last in VERBS:
        return f"{head.replace('/', '%2F')}/{last}"
    return rest.replace("/", "%2F")


def _decoded(encoded: str) -> str:
    try:
        stream_id = unquote_to_bytes(encoded.encode("latin-1")).decode()
    except UnicodeError as error:
        raise InvalidStreamId("a stream id in a path is percent-encoded UTF-8") from error
    return check_stream_id(stream_id)


StreamId = Annotated[str, Path(description="Percent-encode all of it, `/` too."), AfterValidator(_decoded)]
