"""Every error of Playhead, in one tree.

    PlayheadError
    ├── BadRequest ............. the caller's words are wrong; asking again will not help
    │   ├── InvalidStreamId, InvalidEvent, InvalidSetting
    │   └── CursorInvalid, CursorOfAnotherStream
    ├── StreamNotFound ......... unknown, or not the caller's: strangers cannot tell the two apart
    ├── ThreadNotFound ......... likewise
    ├── StreamExpired .......... it was here; retention has taken it
    ├── CursorAhead ............ the cursor is past everything stored
    ├── Diverged ............... what the reader saw is not what the store holds (data was lost)
    ├── Conflict ............... right words, wrong moment
    │   ├── ThreadBusy, ProducerActive, StreamIdTaken, IdempotencyMismatch
    │   └── StreamClosed, Fenced, AppendGap, AppendRepeat
    ├── LimitExceeded .......... EventTooLarge, StreamTooLarge, TooManyLiveStreams, TooManyReaders
    ├── Draining ............... this process is going away; come back with the cursor
    ├── SourceFailed ........... raised by ``Outcome.raise_for_failure`` only
    └── StoreError ............. StoreUnavailable, StoreLocked, StoreFull, StoreReadOnly, StoreCorrupt,
                                 StoreVersionUnsupported, EventsLost

Facts are attributes (``stream_id``, ``limit`` …), so nobody ever reads a message text to decide.
``http_status`` and ``grpc_status`` are what a door answers; ``retryable`` tells whether the same call may
succeed later without being changed. Drivers' errors are wrapped with ``raise … from``.
"""

from typing import Any, ClassVar


class PlayheadError(Exception):
    """Root of the tree.

    Attributes:
        code: stable kebab-case name of the error (last part of the problem type on the wire).
        facts: what the error is about, JSON-able; also readable as attributes.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(name) from None


class BadRequest(PlayheadError):
    code, http_status, grpc_status = "bad-request", 400, "INVALID_ARGUMENT"


class InvalidStreamId(BadRequest):
    code = "invalid-stream-id"


class InvalidEvent(BadRequest):
    """A source yielded something that is neither text, bytes, JSON nor an event."""

    code, http_status = "invalid-event", 422


class InvalidSetting(BadRequest):
    code = "invalid-setting"


class CursorInvalid(BadRequest):
    code = "cursor-invalid"


class CursorOfAnotherStream(BadRequest):
    code = "cursor-of-another-stream"


class StreamNotFound(PlayheadError):
    code, http_status, grpc_status = "stream-not-found", 404, "NOT_FOUND"


class ThreadNotFound(PlayheadError):
    """Unknown, deleted, or not the caller's. Facts: ``thread_id``."""

    code, http_status, grpc_status = "thread-not-found", 404, "NOT_FOUND"


class StreamExpired(PlayheadError):
    code, http_status, grpc_status = "stream-expired", 410, "NOT_FOUND"


class CursorAhead(PlayheadError):
    """Facts: ``offset`` asked for, ``tail`` of the stream."""

    code, http_status, grpc_status = "cursor-ahead", 416, "OUT_OF_RANGE"


class Diverged(PlayheadError):
    """The store no longer holds what this cursor has seen. Start again without a cursor."""

    code, http_status, grpc_status = "diverged", 409, "DATA_LOSS"


class Conflict(PlayheadError):
    code, http_status, grpc_status = "conflict", 409, "FAILED_PRECONDITION"


class ThreadBusy(Conflict):
    """Facts: ``thread_id``, and ``stream_id`` of the stream that is live on it."""

    code = "thread-busy"


class ProducerActive(Conflict):
    """Another producer holds the stream and its lease has not run out."""

    code, retryable = "producer-active", True


class StreamIdTaken(Conflict):
    code = "stream-id-taken"


class IdempotencyMismatch(Conflict):
    """The same idempotency key or stream id came with a different request."""

    code, http_status = "idempotency-mismatch", 422


class StreamClosed(Conflict):
    """Facts: ``outcome`` kind of the close that came first."""

    code = "stream-closed"


class Fenced(Conflict):
    """Somebody took the stream over or closed it; this producer's epoch is over (facts: ``epoch``)."""

    code = "fenced"


class AppendGap(Conflict):
    """The batch does not continue the log (facts: ``first``, ``tail``)."""

    code = "append-gap"


class AppendRepeat(Conflict):
    """Every event of the batch is stored already under the same epoch (facts: ``last``, ``tail``)."""

    code = "append-repeat"


class LimitExceeded(PlayheadError):
    """Facts: ``limit`` and its unit in the message."""

    code, http_status, grpc_status = "limit-exceeded", 429, "RESOURCE_EXHAUSTED"


class EventTooLarge(LimitExceeded):
    code, http_status = "event-too-large", 413


class StreamTooLarge(LimitExceeded):
    code, http_status = "stream-too-large", 413


class TooManyLiveStreams(LimitExceeded):
    code, retryable = "too-many-live-streams", True


class TooManyReaders(LimitExceeded):
    code, retryable = "too-many-readers", True


class Draining(PlayheadError):
    """This process is shutting down. Readers reconnect with their cursor; starts go elsewhere."""

    code, http_status, grpc_status, retryable = "draining", 503, "UNAVAILABLE", True


class SourceFailed(PlayheadError):
    """A stream did not complete (facts: ``outcome`` kind)."""

    code = "source-failed"


class StoreError(PlayheadError):
    code, http_status, grpc_status = "store-error", 500, "INTERNAL"


class StoreUnavailable(StoreError):
    code, http_status, grpc_status, retryable = "store-unavailable", 503, "UNAVAILABLE", True


class StoreLocked(StoreUnavailable):
    """Another process keeps the database locked for longer than the busy timeout."""

    code = "store-locked"


class StoreFull(StoreError):
    code, http_status, grpc_status, retryable = "store-full", 507, "RESOURCE_EXHAUSTED", True


class StoreReadOnly(StoreError):
    code = "store-read-only"


class StoreCorrupt(StoreError):
    code, grpc_status = "store-corrupt", "DATA_LOSS"


class StoreVersionUnsupported(StoreError):
    """The stored data was written by a newer Playhead (facts: ``found``, ``supported``)."""

    code = "store-version-unsupported"


class EventsLost(StoreError):
    """A store lost events that it had acknowledged, and nobody has them any more (facts: ``first``)."""

    code, grpc_status = "events-lost", "DATA_LOSS"
