"""How a stream's state looks on disk: JSON, the same for every store that keeps bytes.

Only what differs from the defaults of StreamInfo is written. ``tail`` and ``size_bytes`` are not part of it: they
change with every append, and each store keeps them in the way that is cheapest there.
"""

import json
from dataclasses import fields

from playhead.errors import InvalidSetting, StoreCorrupt
from playhead.model import Cancel, Outcome, OutcomeKind, Status, StreamInfo

_APART = ("tail", "size_bytes")
_DEFAULTS = {field.name: field.default for field in fields(StreamInfo) if field.name not in _APART}


def pack_state(info: StreamInfo) -> str:
    """ASCII, whatever text it holds. Raises: InvalidSetting for metadata that is not JSON-able."""
    changed = {name: value for name, default in _DEFAULTS.items() if (value := getattr(info, name)) != default}
    try:
        changed["metadata"] = dict(info.metadata)
        return json.dumps(changed, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"metadata must be JSON-able: {error}", stream_id=info.stream_id) from error


def unpack_state(state: str | bytes, tail: int, size_bytes: int) -> StreamInfo:
    """Raises: StoreCorrupt."""
    try:
        found = json.loads(state)
        if "status" in found:
            found["status"] = Status(found["status"])
        if "cancel" in found:
            found["cancel"] = Cancel(*found["cancel"])
        if "outcome" in found:
            kind, *rest = found["outcome"]
            found["outcome"] = Outcome(OutcomeKind(kind), *rest)
        return StreamInfo(**found, tail=tail, size_bytes=size_bytes)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreCorrupt(f"a stored state cannot be decoded: {error}") from error
