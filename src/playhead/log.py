"""THE RULES. What may happen to a stream, and what becomes of it: pure functions, nothing else.

Theory of operation. A store keeps one StreamInfo per stream. For each Command it loads that state, gathers the
Facts that the rules need, calls ``decide`` and commits what came back, all in one transaction. ``decide``
either returns the new state (the same object when nothing changes, None when the stream is to be forgotten)
or raises the error that the caller gets. Appends take the narrow ``decide_append``: it is the hot path.

          Create                Claim, Append, Release, Cancel, Watched
            │                        ┌───┐
            ▼                        ▼   │
    ─────► live ────────────────────────┘     Delete, from anywhere ─► gone
            │ Close, CloseDead, Cancel, Expire (when nobody is the producer any more)
            ▼
          closed ──┐ Settle
            │ ◄────┘
            ▼ Expire
          expired
            ▼ Expire
           gone

What belongs here: every rule about state, epoch, lease and outcome. What never does: a clock (``now`` is a fact),
I/O, the loop, a driver, an identity check (``authorize`` is asked before). When a rule changes, PROTOCOL.md, the
table test of this file and the Lua twin of ``decide_append`` change with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, assert_never

from playhead.errors import (
    AppendGap,
    AppendRepeat,
    CursorAhead,
    CursorOfAnotherStream,
    Diverged,
    Fenced,
    IdempotencyMismatch,
    ProducerActive,
    StreamClosed,
    StreamExpired,
    StreamIdTaken,
    StreamNotFound,
    StreamTooLarge,
    ThreadBusy,
    TooManyLiveStreams,
)
from playhead.model import Cancel, Cursor, Outcome, OutcomeKind, Status, StreamInfo

PRODUCER_LOST = Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")
ABANDONED = Outcome(OutcomeKind.INTERRUPTED, reason="abandoned")
SETTLE_RETRY_S = 3_600.0


# ---- facts and commands ------------------------------------------------------------------------------


class Facts(NamedTuple):
    """What a store tells the rules about the world.

    Attributes:
        now: the store's clock, seconds since the Unix epoch.
        producer_alive: the state's producer still holds its lease (False when there is no producer).
        live_on_thread: id of the live stream on the Create's thread, if there is one.
        live_of_owner: how many streams of the Create's owner are live.
    """

    now: float
    producer_alive: bool = False
    live_on_thread: str | None = None
    live_of_owner: int = 0


@dataclass(frozen=True, slots=True)
class Create:
    """Make the stream and become its first producer; when it exists, leave it as it is."""

    producer: str
    thread_id: str | None = None
    owner: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    retention_s: float = 86_400.0
    unwatched_after_s: float | None = None
    needs_settling: bool = False
    live_per_owner_max: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Become the producer of a live stream: raises the epoch, which fences whoever it was before."""

    producer: str
    take_over: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Stop being the producer without closing, so that another writer may take its turn."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Close:
    """The producer ends its stream. ``tail``: what it was told is stored; a store that holds less has lost some."""

    epoch: int
    outcome: Outcome
    tail: int | None = None


@dataclass(frozen=True, slots=True)
class CloseDead:
    """Somebody else ends a stream whose producer is gone."""


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """Ask for the end. A durable fact as soon as it is stored."""

    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Settle:
    """What the stream produced is part of its thread's history now."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A reader is attached just now."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Retention's step, when ``due_at`` has come."""

    expired_for_s: float
    settle_within_s: float


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget the stream and its events, whatever its state."""


Command = Create | Claim | Release | Close | CloseDead | RequestCancel | Settle | Watched | Expire | Delete


# ---- the rules ---------------------------------------------------------------------------------------


def decide(stream_id: str, state: StreamInfo | None, command: Command, facts: Facts) -> StreamInfo | None:
    """What the state becomes (P4 to P7).

    Returns: the new state; the very same object when nothing changes; None when it is to be forgotten.
    Raises: the error that the caller of the store gets; then nothing may be changed.
    """
    if isinstance(command, Create):
        return _create(stream_id, state, command, facts)
    if state is None:
        raise StreamNotFound("there is no such stream", stream_id=stream_id)
    match command:
        case Claim():
            return _claim(state, command, facts)
        case Release(epoch):
            _check_producer(state, epoch)
            if state.cancel:
                return _closed(state, ABANDONED, facts.now)
            return state.but(producer=None, epoch=epoch + 1, due_at=facts.now + state.retention_s)
        case Close(epoch, outcome, tail):
            if not state.is_live and state.epoch == epoch:
                return state
            _check_producer(state, epoch)
            if tail is not None and state.tail < tail:
                lost = f"event {state.tail + 1} was stored, and is gone"
                raise AppendGap(lost, first=tail + 1, tail=state.tail)
            return _closed(state, outcome, facts.now)
        case CloseDead():
            if not state.is_live:
                return state
            if state.producer is None or facts.producer_alive:
                raise ProducerActive("its producer is not known to be gone", stream_id=stream_id)
            return _closed(state.but(epoch=state.epoch + 1), PRODUCER_LOST, facts.now)
        case RequestCancel(by, reason):
            return _cancel(state, Cancel(by, facts.now, reason), facts)
        case Settle():
            return state if state.settled or state.is_live else state.but(settled=True)
        case Watched():
            counts = state.is_live and state.unwatched_after_s is not None
            return state.but(watched_at=max(facts.now, state.watched_at or 0.0)) if counts else state
        case Expire():
            return _expire(state, command, facts.now)
        case Delete():
            return None
    assert_never(command)  # what no rule knows must not pass for a Delete


def _create(stream_id: str, state: StreamInfo | None, command: Create, facts: Facts) -> StreamInfo:
    if state is not None:
        check_readable(state)
        if state.owner != command.owner:
            raise StreamIdTaken("this stream id is in use; choose another one", stream_id=stream_id)
        if state.thread_id != command.thread_id or state.fingerprint != command.fingerprint:
            raise IdempotencyMismatch(
                "the same id or idempotency key came with another request", stream_id=state.stream_id
            )
        return state
    if facts.live_on_thread is not None:
        raise ThreadBusy(
            "another stream is live on this thread; wait for its end, cancel it, or start with supersede",
            thread_id=command.thread_id,
            stream_id=facts.live_on_thread,
        )
    if command.live_per_owner_max is not None and facts.live_of_owner >= command.live_per_owner_max:
        raise TooManyLiveStreams(
            f"at most {command.live_per_owner_max} streams may be live at once for one owner",
            limit=command.live_per_owner_max,
        )
    return StreamInfo(
        stream_id=stream_id,
        thread_id=command.thread_id,
        owner=command.owner,
        producer=command.producer,
        # So a lease or a cursor never fits a later stream that was given a deleted one's id.
        epoch=1 + int(facts.now * 1000),
        created_at=facts.now,
        settled=not command.needs_settling,
        idempotency_key=command.idempotency_key,
        fingerprint=command.fingerprint,
        metadata=command.metadata,
        retention_s=command.retention_s,
        unwatched_after_s=command.unwatched_after_s,
    )


def _claim(state: StreamInfo, command: Claim, facts: Facts) -> StreamInfo:
    check_readable(state)
    if not state.is_live:
        raise _closed_error(state)
    if facts.producer_alive and not command.take_over:
        raise ProducerActive(
            "another producer is writing this stream; wait for its turn to end, or take over",
            stream_id=state.stream_id,
        )
    return state.but(producer=command.producer, epoch=state.epoch + 1, due_at=None)


def _cancel(state: StreamInfo, cancel: Cancel, facts: Facts) -> StreamInfo:
    check_readable(state)
    if not state.is_live:
        return state
    asked = state if state.cancel else state.but(cancel=cancel)
    if facts.producer_alive:
        return asked
    return _closed(asked.but(epoch=state.epoch + 1), PRODUCER_LOST, facts.now)


def _expire(state: StreamInfo, command: Expire, now: float) -> StreamInfo | None:
    if state.due_at is None or now < state.due_at:
        return state
    if state.is_live:
        return _closed(state.but(epoch=state.epoch + 1), ABANDONED, now)
    if state.status is Status.EXPIRED:
        return None
    give_up_at = (state.closed_at or 0.0) + state.retention_s + command.settle_within_s
    if not state.settled and now < give_up_at:
        return state.but(due_at=min(now + SETTLE_RETRY_S, give_up_at))
    return state.but(status=Status.EXPIRED, due_at=now + command.expired_for_s)


def _closed(state: StreamInfo, outcome: Outcome, now: float) -> StreamInfo:
    """The one way to close. A stored cancel decides the outcome, whoever closes and however (P4)."""
    if state.cancel:
        reason = state.cancel.reason
        outcome = Outcome(OutcomeKind.CANCELLED, error=outcome.error, by=state.cancel.by, reason=reason)
    return state.but(
        status=Status.CLOSED, producer=None, outcome=outcome, closed_at=now, due_at=now + state.retention_s
    )


def _check_producer(state: StreamInfo, epoch: int) -> None:
    if state.epoch != epoch:
        raise _fenced(state.stream_id, epoch)
    if not state.is_live:
        raise _closed_error(state)


def _fenced(stream_id: str, epoch: int) -> Fenced:
    return Fenced(
        "somebody took this stream over or closed it; this producer may no longer write",
        epoch=epoch,
        stream_id=stream_id,
    )


def _closed_error(state: StreamInfo) -> StreamClosed:
    kind = state.outcome.kind if state.outcome else None
    return StreamClosed("the stream is closed", stream_id=state.stream_id, outcome=kind)


# ---- the hot path ------------------------------------------------------------------------------------


class Head(NamedTuple):
    """The little that an append needs to know of a stream."""

    is_live: bool
    epoch: int
    tail: int
    size_bytes: int


def decide_append(
    stream_id: str,
    head: Head | None,
    *,
    epoch: int,
    first: int,
    last: int,
    size_bytes: int,
    stream_max_bytes: int,
) -> Head:
    """What an append of events ``first`` to ``last`` makes of a stream (P1, P2, P6).

    Raises: StreamNotFound, Fenced, StreamClosed, AppendRepeat (the retry of a batch that is stored already; an
        empty batch too, which must never become an entry), AppendGap, StreamTooLarge.
    """
    if head is None:
        raise StreamNotFound("there is no such stream", stream_id=stream_id)
    if head.epoch != epoch:
        raise _fenced(stream_id, epoch)
    if not head.is_live:
        raise StreamClosed("the stream is closed", stream_id=stream_id, outcome=None)
    if last <= head.tail:
        raise AppendRepeat("these events are stored already", last=last, tail=head.tail)
    if first != head.tail + 1:
        raise AppendGap(f"event {first} does not follow event {head.tail}", first=first, tail=head.tail)
    if head.size_bytes + size_bytes > stream_max_bytes:
        raise StreamTooLarge(f"a stream may hold at most {stream_max_bytes:,} bytes", limit=stream_max_bytes)
    return Head(True, epoch, last, head.size_bytes + size_bytes)


# ---- reading -----------------------------------------------------------------------------------------


def check_readable(state: StreamInfo) -> None:
    """Raises: StreamExpired."""
    if state.status is Status.EXPIRED:
        raise StreamExpired("the stream's retention time is over; its events are gone", stream_id=state.stream_id)


def check_cursor(state: StreamInfo, cursor: Cursor, epoch_there: int | None) -> None:
    """Whether a reader that has ``cursor`` may go on reading (P1, P2).

    ``epoch_there`` is the epoch under which the event at the cursor's offset was stored, None when none is.
    Raises: CursorOfAnotherStream, CursorAhead, Diverged.
    """
    if cursor.mark != state.mark:
        raise CursorOfAnotherStream(
            "this cursor belongs to another stream; read without one to start over", stream_id=state.stream_id
        )
    if cursor.offset == 0:
        return
    if epoch_there is None and cursor.offset == state.tail + 1 and state.outcome:
        epoch_there = state.epoch
    if epoch_there is None and cursor.epoch == state.epoch:
        raise CursorAhead(
            f"the cursor is at {cursor.offset}, the stream ends at {state.tail}",
            offset=cursor.offset,
            tail=state.tail,
        )
    # ``StreamInfo.cursor`` of a stream that was claimed but not yet written to names an epoch after the event's.
    if epoch_there is None or not epoch_there <= cursor.epoch <= state.epoch:
        raise Diverged(
            "the store lost events that this reader has seen; read without a cursor to start over",
            stream_id=state.stream_id,
        )
