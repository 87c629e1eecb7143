"""Where runs are recorded and for how long: our settings, and those of the framework's reliable-streaming sample.

    PLAYHEAD_STORE, else REDIS_CONNECTION_STRING, else sqlite:///agent-streams.db in the working directory
    PLAYHEAD_RETENTION_S, else REDIS_STREAM_TTL_MINUTES, else a day

Worker and client must name the same place.
"""

import math
import os

from playhead.errors import InvalidSetting
from playhead.options import Options

from .events import EVENT_MAX_BYTES

DEFAULT_STORE = "sqlite:///agent-streams.db"


def store_url(given: str | None = None) -> str:
    """The store to use. Raises: InvalidSetting for one that other processes cannot see."""
    url = given or os.environ.get("PLAYHEAD_STORE") or _redis(os.environ.get("REDIS_CONNECTION_STRING", ""))
    if url.startswith("memory:"):
        raise InvalidSetting(
            "a worker's runs in memory could be read by nobody; use sqlite:///agent-streams.db or redis://…",
            setting="store",
        )
    return url


def _redis(address: str) -> str:
    if not address:
        return DEFAULT_STORE
    if "," in address or "=" in address.partition("?")[0]:
        raise InvalidSetting(
            "REDIS_CONNECTION_STRING must be a URL, redis://[user:password@]host:6379/0 (rediss:// for TLS)",
            setting="REDIS_CONNECTION_STRING",
        )
    return address if "://" in address else f"redis://{address}"


def options() -> Options:
    """The engine's options. Raises: InvalidSetting."""
    retention_s = _number("PLAYHEAD_RETENTION_S")
    if retention_s is None and (minutes := _number("REDIS_STREAM_TTL_MINUTES")) is not None:
        retention_s = minutes * 60.0
    if retention_s is None:
        return Options(event_max_bytes=EVENT_MAX_BYTES)
    return Options(event_max_bytes=EVENT_MAX_BYTES, retention_s=retention_s)


def _number(name: str) -> float | None:
    text = os.environ.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InvalidSetting(f"{name} must be a number above 0, not {text!r}", setting=name)
    return number
