"""The requests of a client and what their answers mean, for the asynchronous and the synchronous one alike. No I/O."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from playhead.client.state import Limits
from playhead.client.trouble import BadAnswer, ConnectionLost, refusal
from playhead.client.views import StreamState
from playhead.errors import BadRequest, InvalidSetting
from playhead.model import Status, check_stream_id

DEFAULT_URL = "http://127.0.0.1:8082"
REFUSAL_MAX_BYTES = 1_048_576
POOL = httpx.Limits(max_connections=None, max_keepalive_connections=20)  # each tail takes a connection for itself


@dataclass(frozen=True, slots=True)
class Call:
    """One request: everything but the address of the server and the token."""

    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None


def base_url(url: str | None, uds: str | Path | None) -> str:
    """Where the server is, without a slash at the end. Raises: InvalidSetting."""
    chosen = url or (os.environ.get("PLAYHEAD_URL") if uds is None else "http://localhost") or DEFAULT_URL
    try:
        parsed = httpx.URL(chosen)
        urlsplit(chosen)  # knows more of what is wrong with a host
    except (httpx.InvalidURL, ValueError) as error:
        raise InvalidSetting(f"{chosen!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise InvalidSetting(f"{chosen!r} is not a server's URL, such as {DEFAULT_URL}")
    return chosen.rstrip("/")


def authorization(token: str | None) -> dict[str, str]:
    """Raises: InvalidSetting for a token that no header can carry; it is not shown."""
    if token is None:
        return {}
    if not isinstance(token, str) or not _is_header(token):
        raise InvalidSetting("a token is printable ASCII text without spaces at its ends", setting="token")
    return {"authorization": f"Bearer {token}"}


def stream_path(stream_id: str, verb: str = "") -> str:
    """Raises: InvalidStreamId."""
    # Dots too: "." and ".." would be taken for steps in the path.
    encoded = quote(check_stream_id(stream_id), safe="").replace(".", "%2E")
    return f"/v1/streams/{encoded}{verb}"


def find(status: Status | str | None, thread_id: str | None, before: str | None, limit: int) -> Call:
    given = {"status": status, "thread_id": thread_id, "before": before, "limit": limit}
    return Call("GET", "/v1/streams", {name: str(value) for name, value in given.items() if value is not None})


def say(message: str, thread_id: str | None, supersede: bool, idempotency_key: str | None) -> Call:
    """Raises: BadRequest for a key that no header can carry."""
    if idempotency_key is not None and not _is_header(idempotency_key):
        raise BadRequest("an idempotency key is printable ASCII text", argument="idempotency_key")
    body = {"message": message, "thread_id": thread_id, "supersede": supersede}
    headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
    return Call("POST", "/v1/chat/message", headers=headers, json=body)


def streams_of(body: Any) -> list[StreamState]:
    """Raises: BadAnswer."""
    streams = body.get("streams") if isinstance(body, dict) else None
    if not isinstance(streams, list):
        raise BadAnswer("the server's answer is not a list of streams")
    return [StreamState.of(view) for view in streams]


def call_timeout(limits: Limits) -> httpx.Timeout:
    return httpx.Timeout(limits.call_s, connect=limits.connect_s)


def stream_timeout(limits: Limits, connect_s: float) -> httpx.Timeout:
    return httpx.Timeout(limits.stall_s, connect=connect_s)


def request(
    http: httpx.Client | httpx.AsyncClient, url: str, call: Call, token: str | None, timeout: httpx.Timeout
) -> httpx.Request:
    """The call as a request to the server at ``url``. Raises: InvalidSetting for a token that cannot be sent."""
    content = None if call.json is None else json.dumps(call.json).encode()  # ASCII: any text survives
    headers = {**call.headers, **authorization(token)}
    if content is not None:
        headers["content-type"] = "application/json"
    return http.build_request(
        call.method, url + call.path, params=call.params or None, headers=headers, content=content, timeout=timeout
    )


def answer(response: httpx.Response) -> Any:
    """What a call that is no stream was answered, as JSON; None for 204.

    Raises: the error that the server told, found by its code; Unauthorized, Refused, BadAnswer.
    """
    if response.status_code == 204:
        return None
    if not response.is_success:
        raise refusal(response.status_code, response.content)
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the answer of {response.request.url.host} is not JSON; is it a Playhead server?") from error


def lost(error: Exception, url: str) -> ConnectionLost:
    """Why there is no answer, in one line."""
    why = str(error) or type(error).__name__
    what = (
        "nobody answers" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "the connection was lost"
    )
    return ConnectionLost(f"{what} at {url}: {why}", url=url)


def _is_header(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and text.strip() == text
