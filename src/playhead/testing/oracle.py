"""A store as a newcomer would write it down: the plain model that ``stateful`` holds real stores against.

It knows nothing of ``log.py``; what both say about the rules is said twice on purpose. An answer is what the store
must return, or the class of the error that it must raise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from playhead.errors import (
    AppendGap,
    AppendRepeat,
    Fenced,
    IdempotencyMismatch,
    PlayheadError,
    ProducerActive,
    StreamClosed,
    StreamExpired,
    StreamIdTaken,
    StreamNotFound,
    StreamTooLarge,
    ThreadBusy,
    TooManyLiveStreams,
)
from playhead.log import Create
from playhead.model import Cancel, Outcome, OutcomeKind, Status, StreamInfo

Refused = type[PlayheadError]
HOUR_S = 3_600.0
LOST = Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")
ABANDONED = Outcome(OutcomeKind.INTERRUPTED, reason="abandoned")


class Written(NamedTuple):
    """One event, as it must be read."""

    type: str
    data: bytes
    epoch: int


@dataclass
class Stream:
    """What is known of one stream, and what happened to it."""

    asked: Create
    stream_id: str
    created_at: float
    producer: str | None
    epoch: int
    status: Status = Status.LIVE
    events: list[Written] = field(default_factory=list)
    entries: int = 0
    cancel: Cancel | None = None
    outcome: Outcome | None = None
    closed_at: float | None = None
    settled: bool = True
    watched_at: float | None = None
    due_at: float | None = None
    tail: int = 0
    size_bytes: int = 0

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(
            stream_id=self.stream_id,
            thread_id=self.asked.thread_id,
            owner=self.asked.owner,
            status=self.status,
            producer=self.producer,
            epoch=self.epoch,
            tail=self.tail,
            size_bytes=self.size_bytes,
            created_at=self.created_at,
            cancel=self.cancel,
            outcome=self.outcome,
            closed_at=self.closed_at,
            settled=self.settled,
            idempotency_key=self.asked.idempotency_key,
            fingerprint=self.asked.fingerprint,
            metadata=self.asked.metadata,
            retention_s=self.asked.retention_s,
            unwatched_after_s=self.asked.unwatched_after_s,
            watched_at=self.watched_at,
            due_at=self.due_at,
        )

    @property
    def is_live(self) -> bool:
        return self.status is Status.LIVE

    def end(self, outcome: Outcome, now: float, *, by_another: bool = False) -> None:
        if self.cancel:
            outcome = Outcome(OutcomeKind.CANCELLED, outcome.error, self.cancel.by, self.cancel.reason)
        self.status, self.outcome, self.producer = Status.CLOSED, outcome, None
        self.closed_at, self.due_at = now, now + self.asked.retention_s
        self.epoch += by_another


class Oracle:
    """All streams, oldest first; who is alive until when; how many entries wait to be purged."""

    def __init__(self, clock: Callable[[], float], *, lease_s: float, stream_max_bytes: int) -> None:
        self.now = clock
        self.lease_s = lease_s
        self.stream_max_bytes = stream_max_bytes
        self.streams: dict[str, Stream] = {}
        self.leases: dict[str, float] = {}
        self.garbage_entries = 0

    # ---- instances -------------------------------------------------------------------------------------

    def renew(self, instance: str) -> None:
        self.leases[instance] = self.now() + self.lease_s

    def goodbye(self, instance: str) -> None:
        del self.leases[instance]

    def is_alive(self, instance: str | None) -> bool:
        return instance in self.leases and self.now() < self.leases[instance]

    def orphans(self, asking: str, *, proven: bool) -> set[str]:
        """Streams whose producer said goodbye (proven), or is silent for too long."""
        return {
            s.stream_id
            for s in self.streams.values()
            if s.is_live and s.producer and s.producer != asking
            if s.producer not in self.leases or not (proven or self.is_alive(s.producer))
        }  # fmt: skip

    # ---- commands: the error, or whether something changed ------------------------------------------------

    def create(self, stream_id: str, asked: Create) -> Refused | tuple[str, bool]:
        known = self.streams.get(stream_id)
        for stream in self.streams.values():
            its_key = (stream.asked.owner, stream.asked.idempotency_key)
            if asked.idempotency_key is not None and its_key == (asked.owner, asked.idempotency_key):
                known = stream
        if known:
            return self._create_again(known, asked)
        live = [stream for stream in self.streams.values() if stream.is_live]
        if asked.thread_id is not None and any(stream.asked.thread_id == asked.thread_id for stream in live):
            return ThreadBusy
        of_owner = sum(stream.asked.owner == asked.owner for stream in live)
        if asked.live_per_owner_max is not None and of_owner >= asked.live_per_owner_max:
            return TooManyLiveStreams
        self.streams[stream_id] = Stream(
            asked, stream_id, self.now(), asked.producer, 1 + int(self.now() * 1000), settled=not asked.needs_settling
        )  # fmt: skip
        return stream_id, True

    def _create_again(self, known: Stream, asked: Create) -> Refused | tuple[str, bool]:
        if known.status is Status.EXPIRED:
            return StreamExpired
        if known.asked.owner != asked.owner:
            return StreamIdTaken
        if (known.asked.thread_id, known.asked.fingerprint) != (asked.thread_id, asked.fingerprint):
            return IdempotencyMismatch
        return known.stream_id, False

    def claim(self, stream: Stream, instance: str, *, take_over: bool) -> Refused | bool:
        if stream.status is Status.EXPIRED:
            return StreamExpired
        if not stream.is_live:
            return StreamClosed
        if self.is_alive(stream.producer) and not take_over:
            return ProducerActive
        stream.producer, stream.due_at = instance, None
        stream.epoch += 1
        return True

    def append(self, stream: Stream, epoch: int, first: int, events: Sequence[Written]) -> Refused | None:
        if epoch != stream.epoch:
            return Fenced
        if not stream.is_live:
            return StreamClosed
        last = first + len(events) - 1
        if last <= stream.tail:
            return AppendRepeat
        if first != stream.tail + 1:
            return AppendGap
        size_bytes = sum(len(event.data) for event in events)
        if stream.size_bytes + size_bytes > self.stream_max_bytes:
            return StreamTooLarge
        stream.events += events
        stream.entries += 1
        stream.tail += len(events)
        stream.size_bytes += size_bytes
        return None

    def release(self, stream: Stream, epoch: int) -> Refused | bool:
        if epoch != stream.epoch:
            return Fenced
        if not stream.is_live:
            return StreamClosed
        if stream.cancel:
            stream.end(ABANDONED, self.now())
        else:
            stream.producer, stream.due_at = None, self.now() + stream.asked.retention_s
            stream.epoch += 1
        return True

    def close(self, stream: Stream, epoch: int, outcome: Outcome) -> Refused | bool:
        if epoch != stream.epoch:
            return Fenced
        if stream.is_live:
            stream.end(outcome, self.now())
            return True
        return False

    def close_dead(self, stream: Stream) -> Refused | bool:
        if not stream.is_live:
            return False
        if stream.producer is None or self.is_alive(stream.producer):
            return ProducerActive
        stream.end(LOST, self.now(), by_another=True)
        return True

    def request_cancel(self, stream: Stream, by: str) -> Refused | bool:
        if stream.status is Status.EXPIRED:
            return StreamExpired
        if not stream.is_live:
            return False
        first = stream.cancel is None
        stream.cancel = stream.cancel or Cancel(by, self.now(), None)
        if self.is_alive(stream.producer):
            return first
        stream.end(LOST, self.now(), by_another=True)
        return True

    def settle(self, stream: Stream) -> bool:
        changes = not stream.is_live and not stream.settled
        stream.settled = stream.settled or changes
        return changes

    def watched(self, stream: Stream) -> bool:
        if not stream.is_live or stream.asked.unwatched_after_s is None:
            return False
        stream.watched_at = max(self.now(), stream.watched_at or 0.0)
        return True

    def expire(self, stream: Stream, *, expired_for_s: float, settle_within_s: float) -> bool:
        now = self.now()
        if stream.due_at is None or now < stream.due_at:
            return False
        if stream.is_live:
            stream.end(ABANDONED, now, by_another=True)
        elif stream.status is Status.EXPIRED:
            self.forget(stream)
        else:
            kept_until = (stream.closed_at or 0.0) + stream.asked.retention_s + settle_within_s
            if stream.settled or now >= kept_until:
                stream.status, stream.due_at = Status.EXPIRED, now + expired_for_s
                self._throw_away(stream)
            else:
                stream.due_at = min(now + HOUR_S, kept_until)
        return True

    def forget(self, stream: Stream) -> bool:
        self._throw_away(stream)
        del self.streams[stream.stream_id]
        return True

    def _throw_away(self, stream: Stream) -> None:
        self.garbage_entries += stream.entries
        stream.entries, stream.events = 0, []

    def purge(self, limit: int) -> int:
        freed = min(limit, self.garbage_entries)
        self.garbage_entries -= freed
        return freed

    # ---- questions -------------------------------------------------------------------------------------

    def read(self, stream_id: str, after: int) -> Refused | list[tuple[int, Written]]:
        if stream_id not in self.streams:
            return StreamNotFound
        stream = self.streams[stream_id]
        if stream.status is Status.EXPIRED:
            return StreamExpired
        return list(enumerate(stream.events, start=1))[after:]
