"""What a model provider's client raised, as one error for people: what happened, and no secrets.

Its text becomes the outcome of the stream, which every reader may see and logs may keep. So it is made from the
parts of a client's error that are meant for people, and keys are struck out: some servers repeat them in a refusal.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from playhead.errors import PlayheadError

_KEYS = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai)[-_]|AIza)[\w*-]{12,}"  # as providers write them, half hidden ones too
    r"|\b(?i:bearer|basic)\s+[\w.~+/=*-]{6,}"
    r"|(?<=//)[^/\s@]+(?=@)"  # user:password in a URL
    r"|(?<=[?&]key=)[^&\s\"']+"
)
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_SECRET_MIN_CHARACTERS = 6
_WORDS_MAX_CHARACTERS = 1_000


class ProviderError(PlayheadError):
    """The provider refused, broke off, or ended an answer with an error.

    Facts: ``provider``; ``status`` (HTTP) and ``request_id`` when it answered. Raised inside a source only: it ends
    the stream ``failed``.
    """

    code, http_status, grpc_status = "provider-error", 502, "UNAVAILABLE"


def provider_error(
    provider: str, error: Exception, secrets: Iterable[str] = (), *, lost: bool = False
) -> ProviderError:
    """Describe what a client built like OpenAI's raised. ``lost``: the connection broke. ``secrets`` never show.

    Raise it ``from None``: a traceback that shows its cause shows what was struck out.
    """
    status = getattr(error, "status_code", None)
    request_id = getattr(error, "request_id", None)
    kind, words = _said(error)
    # A client's error for what a server says inside a stream has the status of the stream: 200.
    if isinstance(status, int) and status >= 400:
        text = f"{provider} refused with HTTP {status}"
    elif lost:
        text, words = f"the connection to {provider} broke ({type(error.__cause__ or error).__name__})", ""
    elif isinstance(error, ValueError):
        text, words = f"{provider} sent what is not JSON", ""
    elif getattr(error, "body", None) is not None:
        text = f"{provider} ended the answer with an error"
    else:
        text, words = f"asking {provider} failed ({type(error).__name__})", str(error)
    text += (f" ({kind})" if kind else "") + (f": {words}" if words else "")
    text += f" [request {request_id}]" if request_id else ""
    return ProviderError(
        without_secrets(text, secrets), provider=provider, status=status, request_id=request_id or None
    )


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """The text with these secrets, and all that looks like a key, struck out."""
    for secret in secrets:
        if len(secret) >= _SECRET_MIN_CHARACTERS:
            text = text.replace(secret, "***")
    return _KEYS.sub("***", text)


def _said(error: Exception) -> tuple[str, str]:
    """The kind (a code, for machines) and the words of a provider's error document."""
    body: Any = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if isinstance(body, dict):
        kind, words = body.get("code") or body.get("type"), body.get("message")
    else:
        kind, words = None, body
    return str(kind or ""), " ".join(str(words or "").split())[:_WORDS_MAX_CHARACTERS]


def secrets_of(client: Any, headers: Mapping[str, Any] | None = None) -> list[str]:
    """The keys that a client built like OpenAI's sends, and those among these headers of one request."""
    found = [getattr(client, name, None) for name in ("api_key", "auth_token")]
    for name, value in {**client.default_headers, **(headers or {})}.items():
        if isinstance(value, str) and _SECRET_HEADER.search(name):
            found += [value, value.rpartition(" ")[2]]
    return sorted({text for text in found if isinstance(text, str)}, key=len, reverse=True)
