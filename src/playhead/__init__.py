"""Durable, resumable, cancellable streams for LLM responses. Start with ``Playhead``."""

from playhead.errors import (
    CursorAhead,
    CursorInvalid,
    CursorOfAnotherStream,
    Diverged,
    Draining,
    Fenced,
    PlayheadError,
    ProducerActive,
    StreamClosed,
    StreamExpired,
    StreamNotFound,
    ThreadBusy,
)
from playhead.model import Cursor, Event, Outcome, OutcomeKind, Status, StreamInfo, event
from playhead.options import Options
from playhead.producer import stopping
from playhead.reader import Tail
from playhead.store import Query
from playhead.streams import Playhead
from playhead.writer import Writer

__version__ = "0.1.0"

__all__ = [
    "Cursor",
    "CursorAhead",
    "CursorInvalid",
    "CursorOfAnotherStream",
    "Diverged",
    "Draining",
    "Event",
    "Fenced",
    "Options",
    "Outcome",
    "OutcomeKind",
    "Playhead",
    "PlayheadError",
    "ProducerActive",
    "Query",
    "Status",
    "StreamClosed",
    "StreamExpired",
    "StreamInfo",
    "StreamNotFound",
    "Tail",
    "ThreadBusy",
    "Writer",
    "__version__",
    "event",
    "stopping",
]
