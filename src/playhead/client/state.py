"""What a tail is doing, and how long it waits for what.

connecting ──► catching-up ──► live ──► closed     with an outcome
     │             │            │
     └─────┐       ▼            ▼
           └──► reconnecting ◄──┘                  with the last cursor; back to catching-up or live. Also while
                   │                               the connection is there, but the server's store is away
                   ▼
                 failed                            it cannot be read, or nobody answered for too long
"""

from dataclasses import dataclass, fields
from enum import StrEnum

from playhead.errors import InvalidSetting
from playhead.sse_parser import FRAME_MAX_BYTES


class State(StrEnum):
    """What a tail is doing: the words of PROTOCOL.md, section 7."""

    CONNECTING = "connecting"
    CATCHING_UP = "catching-up"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client waits, and how much it takes.

    Attributes:
        connect_s: for a connection.
        stall_s: for the next bytes of a stream. The server says something every 15 s, so this is a lost connection.
        call_s: for the next bytes of any other answer.
        backoff_min_s, backoff_max_s: before a tail connects again; doubled each time in vain, spread by chance.
        asked_max_s: longest wait that a server can ask for (``retry:``, ``Retry-After``).
        frame_max_bytes: largest event on the wire; a larger one fails the tail.
    """

    connect_s: float = 10.0
    stall_s: float = 35.0
    call_s: float = 30.0
    backoff_min_s: float = 0.5
    backoff_max_s: float = 15.0
    asked_max_s: float = 60.0
    frame_max_bytes: int = FRAME_MAX_BYTES

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise InvalidSetting(f"{field.name} must be more than 0, not {value!r}", setting=field.name)
