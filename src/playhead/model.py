"""The words of Playhead as frozen values. No I/O, no clock, no rules (those are in ``log.py``).

    stream ──< event(offset, type, data)          offsets are dense from 1
       │
       ├── epoch      fencing token of the producer that may append now
       ├── close      takes offset tail + 1, once, with an Outcome
       └── cursor     "1.<mark>.<epoch>.<offset>": what a reader HAS; reading is strictly after it

A Batch is a run of neighbouring events that were appended together: the unit that is stored, cached,
encoded once and shared by all readers. Its borders never change once it is stored.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

from playhead.errors import BadRequest, CursorInvalid, InvalidEvent, InvalidStreamId, SourceFailed

STREAM_ID_MAX_CHARACTERS = 1_000
CURSOR_MAX_BYTES = 64
TYPE_MAX_BYTES = 255

RESERVED = "playhead."
_BINARY = (bytes, bytearray, memoryview)
TEXT, BYTES, JSON = "text", "bytes", "json"


class Event(NamedTuple):
    """One immutable entry of a stream.

    ``data`` is exactly what the source yielded, as bytes: text as UTF-8 (lone surrogates, which UTF-8
    cannot carry, in Python's ``surrogatepass`` form), JSON values as compact JSON.
    """

    offset: int
    type: str
    data: bytes

    @property
    def text(self) -> str:
        """The data as text; the same ``str`` that a text source yielded.

        Raises: UnicodeDecodeError when the data is not text.
        """
        return self.data.decode("utf-8", "surrogatepass")

    def json(self) -> Any:
        """The data as a JSON value. Raises: ValueError when it is not JSON."""
        return json.loads(self.data)


class Draft(NamedTuple):
    """An event that has no offset yet: what a source yields when text, bytes or JSON is not enough."""

    type: str
    data: bytes


def event(type: str, data: Any = b"") -> Draft:  # noqa: A002 - the word of the wire
    """An event with a type of its own, for a source to yield.

    ``data`` may be str, bytes or any JSON-able value.
    Raises: InvalidEvent for a type that is empty, longer than 255 bytes, not printable or reserved
    (``playhead.…``), or data that is not JSON-able.
    """
    return Draft(check_type(type), draft(data).data)


@lru_cache(maxsize=1024)
def check_type(name: str) -> str:
    """Raises: InvalidEvent unless it is printable text of 1 to 255 bytes, and not reserved."""
    if isinstance(name, str) and name.startswith(RESERVED):
        raise InvalidEvent(f"event types that begin with {RESERVED} are reserved", type=name)
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > TYPE_MAX_BYTES:
        raise InvalidEvent(f"event type must be 1 to {TYPE_MAX_BYTES} bytes of printable text", type=repr(name))
    return name


def draft(item: object) -> Draft:
    """What a source yielded, as a typed draft: str → text, bytes → bytes, Draft → itself, else JSON.

    Raises: InvalidEvent.
    """
    if isinstance(item, str):
        return Draft(TEXT, item.encode("utf-8", "surrogatepass"))
    if isinstance(item, Draft):
        check_type(item.type)  # a Draft may have been made without ``event``
        if not isinstance(item.data, bytes):
            raise InvalidEvent("an event's data must be bytes; make events with playhead.event(type, data)")
        return item
    if isinstance(item, _BINARY):
        return Draft(BYTES, bytes(item))
    try:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Draft(JSON, text.encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidEvent(
            f"a source may yield str, bytes, JSON-able values or playhead.event(...), not {type(item).__name__}:"
            f" {error}"
        ) from error


class Batch:
    """A run of neighbouring events, immutable once made.

    Attributes:
        first, last: offsets of its first and last event.
        epoch: the epoch they were appended under.
        types: one type for all, or one per event.
        datas: one bytes object per event.
        size_bytes: sum of the data sizes.
    """

    __slots__ = ("_encoded", "datas", "epoch", "first", "last", "size_bytes", "types")

    def __init__(self, first: int, epoch: int, types: str | Sequence[str], datas: Sequence[bytes]) -> None:
        self.first = first
        self.last = first + len(datas) - 1
        self.epoch = epoch
        self.types = types
        self.datas = datas
        self.size_bytes = sum(map(len, datas))
        self._encoded: dict[object, bytes] = {}

    def __iter__(self) -> Iterator[Event]:
        """The events, each made when it is asked for: many that live long would keep the garbage collector busy."""
        types = repeat(self.types) if isinstance(self.types, str) else self.types
        rows = zip(range(self.first, self.last + 1), types, self.datas, strict=False)
        return map(tuple.__new__, repeat(Event), rows)

    @property
    def events(self) -> list[Event]:
        return list(self)

    def after(self, offset: int) -> "Batch":
        """The part strictly after an offset (itself when nothing is cut off)."""
        if offset < self.first:
            return self
        cut = offset - self.first + 1
        types = self.types if isinstance(self.types, str) else self.types[cut:]
        return Batch(offset + 1, self.epoch, types, self.datas[cut:])

    def encoded(self, encode: "Callable[[Batch], bytes]", key: object) -> bytes:
        """The batch as one wire format's bytes: encoded once per ``key``, then shared."""
        frame = self._encoded.get(key)
        if frame is None:
            frame = self._encoded[key] = encode(self)
        return frame


@lru_cache(maxsize=4096)
def stream_mark(stream_id: str, created_at: float) -> str:
    """Eleven ASCII characters that stand for a stream in a cursor.

    The time of its creation is part of it: a cursor never fits a later stream that was given a deleted one's id.
    """
    digest = hashlib.sha256(f"{created_at!r} {stream_id}".encode("utf-8", "surrogatepass")).digest()[:8]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def cursor_prefix(mark: str, epoch: int) -> str:
    """What every cursor of this stream and epoch begins with; the offset follows."""
    return f"1.{mark}.{epoch}."


class Cursor(NamedTuple):
    """What a reader has: everything up to and including ``offset``, as it was under ``epoch``.

    On the wire it is opaque, ASCII and at most 64 bytes: ``1.<mark of the stream>.<epoch>.<offset>``.
    ``StreamInfo.mark`` is the mark of a stream.
    """

    mark: str
    epoch: int
    offset: int

    def __str__(self) -> str:
        return f"1.{self.mark}.{self.epoch}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises: CursorInvalid."""
        parts = text.split(".") if len(text) <= CURSOR_MAX_BYTES and text.isascii() else []
        numbers = parts[2:]
        # Longer numbers would not fit into a store's 64-bit integers.
        if len(parts) != 4 or parts[0] != "1" or not all(n.isdigit() and len(n) <= 18 for n in numbers):
            raise CursorInvalid("this is not a cursor that Playhead gave out; read without one to start over")
        return cls(parts[1], int(parts[2]), int(parts[3]))


class OutcomeKind(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Outcome(NamedTuple):
    """How a stream ended.

    Attributes:
        kind: completed, failed, cancelled or interrupted.
        error: what went wrong (failed), for people; never a traceback.
        by: who cancelled (a principal), when somebody did.
        reason: why it was interrupted or cancelled: ``producer-lost``, ``shutdown``, ``unwatched`` …
    """

    kind: OutcomeKind
    error: str | None = None
    by: str | None = None
    reason: str | None = None

    def raise_for_failure(self) -> None:
        """Raises: SourceFailed unless the stream completed."""
        if self.kind is not OutcomeKind.COMPLETED:
            detail = self.error or self.reason or self.by
            raise SourceFailed(f"stream {self.kind}" + (f": {detail}" if detail else ""), outcome=str(self.kind))


COMPLETED = Outcome(OutcomeKind.COMPLETED)


class Status(StrEnum):
    LIVE = "live"
    CLOSED = "closed"
    EXPIRED = "expired"


class Cancel(NamedTuple):
    """A stored request to cancel: by whom, when (seconds since the Unix epoch), why."""

    by: str | None
    at: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """All that is known of a stream except its events. Times are seconds since the Unix epoch.

    Attributes:
        producer: the process instance that may append, or None between two writers.
        epoch: raised each time somebody becomes the producer, and when somebody else closes the stream.
        tail: offset of the newest event, 0 when there is none.
        size_bytes: data bytes stored so far.
        cancel: the stored request to cancel, if any.
        outcome: set when closed; the close took offset ``tail + 1``.
        settled: what it produced is part of its thread's history (or nobody needs that).
        unwatched_after_s: cancel when nobody watched for this long; None = go on.
        watched_at: when a reader was last known to be attached (kept only for such streams).
        due_at: when retention acts next; None while live.
    """

    stream_id: str
    thread_id: str | None = None
    owner: str | None = None
    status: Status = Status.LIVE
    producer: str | None = None
    epoch: int = 0
    tail: int = 0
    size_bytes: int = 0
    created_at: float = 0.0
    cancel: Cancel | None = None
    outcome: Outcome | None = None
    closed_at: float | None = None
    settled: bool = True
    idempotency_key: str | None = None
    fingerprint: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    retention_s: float = 86_400.0
    unwatched_after_s: float | None = None
    watched_at: float | None = None
    due_at: float | None = None

    @property
    def is_live(self) -> bool:
        return self.status is Status.LIVE

    @property
    def mark(self) -> str:
        """What stands for this stream in cursors."""
        return stream_mark(self.stream_id, self.created_at)

    @property
    def cursor(self) -> str:
        """The cursor of a reader that has everything, the close included when there is one."""
        return str(Cursor(self.mark, self.epoch, self.tail + (self.outcome is not None)))

    def but(self, **changes: Any) -> "StreamInfo":
        return replace(self, **changes)


class Lease(NamedTuple):
    """The right to append: the stream, and the epoch that every write carries."""

    stream_id: str
    epoch: int


class Page(NamedTuple):
    """One read: whole batches, oldest first (the first one may begin before the offset asked for)."""

    batches: list[Batch]
    info: StreamInfo


def check_text(name: str, value: object) -> None:
    """Raises: BadRequest unless the value is text or None."""
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be text (str) or None, not {type(value).__name__}", argument=name)


def check_seconds(name: str, value: object) -> None:
    """Raises: BadRequest unless the value is a finite number of seconds above 0, or None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < float("inf")):  # type: ignore[operator]
        raise BadRequest(f"{name} must be a number of seconds above 0, not {value!r}", argument=name)


def check_stream_id(stream_id: str) -> str:
    """Raises: InvalidStreamId unless it is printable text of 1 to 1,000 characters."""
    if not isinstance(stream_id, str) or not (
        0 < len(stream_id) <= STREAM_ID_MAX_CHARACTERS and stream_id.isprintable()
    ):
        raise InvalidStreamId(f"a stream id is 1 to {STREAM_ID_MAX_CHARACTERS} printable characters")
    return stream_id
