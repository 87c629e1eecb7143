"""What a client meets that a server cannot tell it, and what a server told it as the error that it stands for.

    PlayheadError
    ├── ConnectionLost ..... no answer, or none to its end: nobody listens, the network broke, nothing came in time
    ├── Unauthorized ....... the server wants a token, or another one
    ├── Refused ............ an error that ``playhead.errors`` does not know
    └── BadAnswer .......... this is not what a Playhead server says

All other errors are those of ``playhead.errors``, found by their code.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from playhead import errors
from playhead.errors import PlayheadError

_URN = "urn:playhead:"
_PASSING = frozenset({408, 425, 429})
_NOT_FACTS = frozenset({"type", "title", "status", "detail", "code", "retryable"})


class ConnectionLost(PlayheadError):
    """The same call may succeed later; a call that changes something may have been carried out."""

    code, http_status, grpc_status, retryable = "connection-lost", 503, "UNAVAILABLE", True


class Unauthorized(PlayheadError):
    code, http_status, grpc_status = "unauthorized", 401, "UNAUTHENTICATED"


class Refused(PlayheadError):
    """Facts: ``status``, and ``problem_code`` when the answer was a problem document."""

    code, http_status, grpc_status = "refused", 502, "FAILED_PRECONDITION"


class BadAnswer(PlayheadError):
    """Is there a Playhead server at this URL?"""

    code, http_status, grpc_status = "bad-answer", 502, "INTERNAL"


def _tree(kind: type[PlayheadError]) -> Iterator[type[PlayheadError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


_BY_CODE = {kind.code: kind for kind in _tree(PlayheadError) if kind.__module__ == errors.__name__}


def refusal(status: int, body: bytes) -> PlayheadError:
    """A status that is no success, and what came with it, as an error."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return problem(document if isinstance(document, dict) else {}, status)


def problem(document: Mapping[str, Any], status: int = 500) -> PlayheadError:
    """A problem document (RFC 9457) as the error of ``playhead.errors`` that has its code."""
    code = document.get("code") or str(document.get("type", "")).removeprefix(_URN)
    detail = str(document.get("detail") or document.get("title") or f"the server answered with status {status}")
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    if kind is not None and kind is not PlayheadError:
        error = kind(detail)
        error.facts = {str(key): value for key, value in document.items() if key not in _NOT_FACTS}
        return error
    if status == 401:
        return Unauthorized(detail)
    return Refused(detail, status=status, problem_code=code or None)


def is_passing(status: int, error: PlayheadError) -> bool:
    """Whether the same request may succeed in a while, unchanged."""
    return status in _PASSING or status >= 500 or error.retryable
