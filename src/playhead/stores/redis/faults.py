"""What went wrong, in words of Playhead: Redis's errors by their first word, never by the rest of their text."""

import re

import hiredis

from playhead.errors import (
    PlayheadError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

_PASSING = {
    "LOADING": "is still reading its data from disk",
    "BUSY": "is busy with somebody's script",
    "MASTERDOWN": "has lost its primary",
    "CLUSTERDOWN": "belongs to a cluster that is down; some of its slots are served by nobody",
    "TRYAGAIN": "is moving a slot just now",
    "MOVED": "has given a slot away",
    "ASK": "is giving a slot away",
    "NOREPLICAS": "has fewer replicas than it wants for a write (min-replicas-to-write)",
    "UNBLOCKED": "has changed its role",
}
_SAID = {
    "NOAUTH": "wants a password; put it into the URL: redis://:password@host:port",
    "WRONGPASS": "does not accept this user name or password",
    "NOPERM": "does not let this user do what Playhead needs; see docs/operations.md for the permissions",
}


_IN_SCRIPT = re.compile(r"ERR Error running script .*?-([A-Z]+) ")


def kind_of(error: hiredis.ReplyError) -> str:
    """The first word: ``MOVED``, ``NOSCRIPT``, ``ERR`` …; Redis 6 says that of a script's command in the middle."""
    text = str(error)
    if text.startswith("ERR Protocol error: unauthenticated"):  # instead of NOAUTH, when a command has many words
        return "NOAUTH"
    inner = _IN_SCRIPT.match(text)
    return inner[1] if inner else text.partition(" ")[0]


def named(error: hiredis.ReplyError, where: str) -> PlayheadError:
    """The error of Playhead for what Redis at ``where`` replied; the cause is set."""
    found = _named(error, f"Redis at {where}")
    found.__cause__ = error
    return found


def _named(error: hiredis.ReplyError, redis: str) -> StoreError:
    kind, text = kind_of(error), str(error)
    if kind in _PASSING:
        return StoreUnavailable(f"{redis} {_PASSING[kind]}")
    if kind in _SAID:
        return StoreError(f"{redis} {_SAID[kind]}" + (f" ({text.partition(' ')[2]})" if kind == "NOPERM" else ""))
    match kind:
        case "READONLY":
            return StoreReadOnly(f"{redis} is a read-only replica; name its primary")
        case "OOM":
            return StoreFull(f"{redis} has no memory left (maxmemory); raise it or let streams go sooner")
        case "MISCONF":
            return StoreFull(f"{redis} cannot save to its disk and takes no writes; see its log")
        case "WRONGTYPE":
            return StoreCorrupt(f"{redis} holds something else under a key of Playhead; use another prefix")
    if kind == "ERR" and "max number of clients" in text:  # said instead of a greeting, without a word of its own
        return StoreUnavailable(f"{redis} has no connection left (maxclients)")
    return StoreError(f"{redis} refused what it was asked: {text}")
