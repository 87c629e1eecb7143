"""How long to wait before a lost connection is opened again, and when to give up. Pure, but for chance."""

import random

from openai import APIConnectionError, APIStatusError

PATIENCE_S = 120.0
STEADY_S = 10.0
"""A connection that held so long was a success, even if nothing was said on it."""
RETRY_FIRST_S, RETRY_MAX_S, RETRY_AFTER_MAX_S = 0.25, 15.0, 60.0
_PASSING_STATUSES = frozenset({408, 409, 429})


class Lost(Exception):
    """The answer does not go on here, but may on another connection."""


class Patience:
    """The patience with one run of trouble; it begins anew with each success. Times are of the event loop's clock."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Something went well."""
        self._since: float | None = None
        self._pauses = 0

    def pause_s(self, error: Exception, *, opened_at: float, now: float) -> float | None:
        """How long to wait after this, on a connection opened then; None = give up."""
        if now - opened_at >= STEADY_S:
            self.renew()
        self._since = now if self._since is None else self._since
        pause_s = jittered_s(self._pauses, error)
        self._pauses += 1
        return None if not passes(error) or now + pause_s - self._since > self._patience_s else pause_s


def passes(error: Exception) -> bool:
    """Whether the same may go well later."""
    if isinstance(error, APIStatusError):
        return error.status_code in _PASSING_STATUSES or error.status_code >= 500
    return isinstance(error, APIConnectionError | ValueError | Lost)


def jittered_s(pauses: int, error: Exception) -> float:
    """Doubling, jittered; longer when the provider says so (``Retry-After``)."""
    longest_s = min(RETRY_FIRST_S * 2.0**pauses, RETRY_MAX_S)
    asked = error.response.headers.get("retry-after", "") if isinstance(error, APIStatusError) else ""
    asked_s = float(asked) if asked.replace(".", "", 1).isdigit() else 0.0
    return max(random.uniform(longest_s / 2, longest_s), min(asked_s, RETRY_AFTER_MAX_S))
