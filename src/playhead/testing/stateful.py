"""Random histories on three instances of a store, held against a plain model after every step.

    class MineMachine(StoreMachine):
        def start(self):
            data = MyData()
            return lambda clock, options: MyStore(data, clock=clock, options=options)

    TestMine = MineMachine.TestCase

Each step is one call on one instance, so every answer has exactly one right value; races are ``StoreSuite``'s part.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from playhead.errors import PlayheadError, StreamNotFound
from playhead.log import (
    Claim,
    Close,
    CloseDead,
    Command,
    Create,
    Delete,
    Expire,
    Release,
    RequestCancel,
    Settle,
    Watched,
)
from playhead.model import Batch, Lease, Outcome, OutcomeKind, Status
from playhead.store import Query, Store, StoreOptions
from playhead.testing.clock import ManualClock
from playhead.testing.oracle import Oracle, Refused, Stream, Written
from playhead.testing.suite.case import MakeStore, content

LEASE_S = 5.0
STREAM_MAX_BYTES = 200
INSTANCES = 3
STEP = Expire(expired_for_s=20.0, settle_within_s=40.0)
T = TypeVar("T")

instances = st.integers(0, INSTANCES - 1)
IDS = ("a", "b", "c")
ids = st.sampled_from(IDS)
picks = st.integers(0, 11)  # see StoreMachine.pick
epoch_shifts = st.sampled_from([0, 0, 0, 0, 0, -1, 1])
outcomes = st.builds(Outcome, st.sampled_from(OutcomeKind), st.none() | st.text(max_size=5))
events = st.lists(st.tuples(st.sampled_from(["text", "ü", "x" * 255]), st.binary(max_size=30)), max_size=4)


def is_live(stream: Stream) -> bool:
    return stream.is_live


class StoreMachine(RuleBasedStateMachine):
    """Give ``start``; give ``finish`` too when ``start`` made something that must go."""

    def start(self) -> MakeStore:
        raise NotImplementedError("return a function that makes one more store on the same, at first empty, data")

    def finish(self) -> None:
        """Free what ``start`` made."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.stores: list[Store] = []
        self.oracle = Oracle(self.clock, lease_s=LEASE_S, stream_max_bytes=STREAM_MAX_BYTES)
        self.outcomes: dict[str, Outcome] = {}
        self.steps = 0
        self.make = self.start()

    def run(self, call: Awaitable[T]) -> T | Refused:
        """What the store answers: a value, or the class of the error it raised."""

        async def answer() -> T | Refused:
            try:
                async with asyncio.timeout(20):
                    return await call
            except PlayheadError as error:
                return type(error)

        return self.runner.run(answer())

    def pick(self, pick: int, fits: Callable[[Stream], object] = bool) -> str:
        """A stream id: mostly of one that exists and fits, now and then any."""
        fitting = [stream.stream_id for stream in self.oracle.streams.values() if fits(stream)]
        return fitting[pick % len(fitting)] if fitting and pick < 10 else IDS[pick % len(IDS)]

    def apply(self, at: int, stream_id: str, command: Command, expect: Callable[[Stream], Refused | bool]) -> None:
        """One command on a store and on the model."""
        stream = self.oracle.streams.get(stream_id)
        expected = StreamNotFound if stream is None else expect(stream)
        answer = self.run(self.stores[at].apply(stream_id, command))
        if isinstance(answer, type) or isinstance(expected, type) or stream is None:
            assert answer is expected
        elif stream_id in self.oracle.streams:
            assert answer == (stream.info, expected)
        else:
            assert (answer.info.stream_id, answer.changed) == (stream_id, True)

    @initialize(needs_settling=st.booleans())
    def open_all(self, needs_settling: bool) -> None:
        for _ in range(INSTANCES):
            store = self.make(self.clock, StoreOptions(lease_s=LEASE_S, stream_max_bytes=STREAM_MAX_BYTES))
            assert self.run(store.open()) is None
            self.oracle.renew(store.instance_id)
            self.stores.append(store)
        for at in range(2):
            self.create_new(at, needs_settling)
            self.append(at, at, 0, 0, [[("text", b"%d" % at)]])

    def teardown(self) -> None:
        for store in self.stores:
            self.run(store.close())
        self.runner.close()
        self.finish()

    # ---- the world -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.001, LEASE_S - 0.1, LEASE_S, LEASE_S + 0.1, 30.0, 5_000.0, -0.5, -7.0, -5_000.0]))
    def time_passes(self, seconds: float) -> None:
        """Also backwards: somebody sets the clock."""
        self.clock.jump(seconds)

    @rule(at=instances)
    def renew(self, at: int) -> None:
        self.stores[at].renew()
        self.oracle.renew(self.stores[at].instance_id)

    @rule(at=instances)
    def reopen(self, at: int) -> None:
        self.oracle.goodbye(self.stores[at].instance_id)
        assert self.run(self.stores[at].close()) is None
        assert self.run(self.stores[at].open()) is None
        self.oracle.renew(self.stores[at].instance_id)

    # ---- commands --------------------------------------------------------------------------------------

    @rule(at=instances, needs_settling=st.booleans())
    def create_new(self, at: int, needs_settling: bool) -> None:
        """One that nothing hinders."""
        free = [stream_id for stream_id in IDS if stream_id not in self.oracle.streams]
        if free:
            facts = {"fingerprint": "f", "unwatched_after_s": 9.0, "live_per_owner_max": None}
            self.create(at, free[0], None, thread_id=free[0], owner="ann", needs_settling=needs_settling, **facts)

    @rule(
        at=instances,
        stream_id=ids,
        thread_id=st.sampled_from([None, *IDS]),
        owner=st.sampled_from(["ann", "ann", "ann", "bob", None]),
        key=st.sampled_from([None, None, "k", "l"]),
        fingerprint=st.sampled_from(["f", "f", "g"]),
        needs_settling=st.booleans(),
        unwatched_after_s=st.sampled_from([None, 9.0]),
        live_per_owner_max=st.sampled_from([None, None, 1, 2]),
    )
    def create(self, at: int, stream_id: str, key: str | None, **facts: Any) -> None:
        command = Create(
            self.stores[at].instance_id, idempotency_key=key, metadata={"ü": [1]}, retention_s=10.0, **facts
        )
        expected = self.oracle.create(stream_id, command)
        answer = self.run(self.stores[at].apply(stream_id, command))
        if isinstance(answer, type) or isinstance(expected, type):
            assert answer is expected
        else:
            name, changed = expected
            assert answer == (self.oracle.streams[name].info, changed)

    @rule(at=instances, pick=picks, take_over=st.booleans())
    def claim(self, at: int, pick: int, take_over: bool) -> None:
        stream_id = self.pick(pick, is_live)
        instance = self.stores[at].instance_id
        command = Claim(instance, take_over)
        self.apply(at, stream_id, command, lambda s: self.oracle.claim(s, instance, take_over=take_over))

    @rule(
        at=instances,
        pick=picks,
        epoch_shift=epoch_shifts,
        first_shift=st.sampled_from([0, 0, 0, 0, 0, -1, -2, 1]),
        batches=st.lists(events, min_size=1, max_size=4),
    )
    def append(self, at: int, pick: int, epoch_shift: int, first_shift: int, batches: list[Any]) -> None:
        """Several batches handed over in one go; each is stored or refused by itself."""
        stream_id = self.pick(pick, is_live)
        stream = self.oracle.streams.get(stream_id)
        epoch = (stream.epoch if stream else 1) + epoch_shift
        first = (stream.tail if stream else 0) + 1 + first_shift
        made, expected = [], []
        for rows in batches:
            written = [Written(name, data, epoch) for name, data in rows]
            made.append(Batch(first, epoch, [name for name, _ in rows], [data for _, data in rows]))
            expected.append(self.oracle.append(stream, epoch, first, written) if stream else StreamNotFound)
            first += len(rows)

        async def hand_over() -> list[Any]:
            lease = Lease(stream_id, epoch)
            futures = [self.stores[at].append(lease, batch) for batch in made]
            return await asyncio.gather(*futures, return_exceptions=True)

        answers = self.run(hand_over())
        assert isinstance(answers, list)
        assert [None if answer is None else type(answer) for answer in answers] == expected

    @rule(at=instances, pick=st.integers(0, 9), rows=events)
    def write(self, at: int, pick: int, rows: Any) -> None:
        self.append(at, pick, 0, 0, [rows, rows[:1]])

    @rule(at=instances, pick=picks, over=st.integers(-1, 1))
    def fill(self, at: int, pick: int, over: int) -> None:
        """One event that leaves room for one more byte, or for none, or does not fit by one."""
        stream = self.oracle.streams.get(self.pick(pick, is_live))
        room = STREAM_MAX_BYTES - (stream.size_bytes if stream else 0)
        self.append(at, pick, 0, 0, [[("text", b"x" * max(0, room + over))]])

    @rule(at=instances, pick=picks, epoch_shift=epoch_shifts)
    def release(self, at: int, pick: int, epoch_shift: int) -> None:
        stream_id = self.pick(pick, is_live)
        epoch = self.epoch_of(stream_id) + epoch_shift
        self.apply(at, stream_id, Release(epoch), lambda s: self.oracle.release(s, epoch))

    @rule(at=instances, pick=picks, epoch_shift=epoch_shifts, outcome=outcomes)
    def close(self, at: int, pick: int, epoch_shift: int, outcome: Outcome) -> None:
        stream_id = self.pick(pick, is_live)
        epoch = self.epoch_of(stream_id) + epoch_shift
        self.apply(at, stream_id, Close(epoch, outcome), lambda s: self.oracle.close(s, epoch, outcome))

    @rule(at=instances, pick=picks)
    def close_dead(self, at: int, pick: int) -> None:
        stream_id = self.pick(pick, is_live)
        self.apply(at, stream_id, CloseDead(), self.oracle.close_dead)

    @rule(at=instances, pick=picks, by=st.sampled_from(["ann", "bob"]))
    def cancel(self, at: int, pick: int, by: str) -> None:
        stream_id = self.pick(pick, is_live)
        self.apply(at, stream_id, RequestCancel(by), lambda s: self.oracle.request_cancel(s, by))

    @rule(at=instances, pick=picks)
    def settle(self, at: int, pick: int) -> None:
        stream_id = self.pick(pick)
        self.apply(at, stream_id, Settle(), self.oracle.settle)

    @rule(at=instances, pick=picks)
    def watched(self, at: int, pick: int) -> None:
        stream_id = self.pick(pick, is_live)
        self.apply(at, stream_id, Watched(), self.oracle.watched)

    @rule(at=instances, pick=picks, in_time=st.booleans())
    def expire(self, at: int, pick: int, in_time: bool) -> None:
        """Retention's step; ``in_time``: when its time has come."""
        stream_id = self.pick(pick, lambda stream: stream.due_at)
        stream = self.oracle.streams.get(stream_id)
        if in_time and stream and stream.due_at:
            self.clock.jump(max(0.0, stream.due_at - self.clock()))
        facts = {"expired_for_s": STEP.expired_for_s, "settle_within_s": STEP.settle_within_s}
        self.apply(at, stream_id, STEP, lambda s: self.oracle.expire(s, **facts))

    @rule(at=instances, pick=picks)
    def delete(self, at: int, pick: int) -> None:
        stream_id = self.pick(pick)
        self.apply(at, stream_id, Delete(), self.oracle.forget)

    @rule(at=instances, limit=st.integers(1, 3))
    def purge(self, at: int, limit: int) -> None:
        assert self.run(self.stores[at].purge(limit)) == self.oracle.purge(limit)

    # ---- questions -------------------------------------------------------------------------------------

    @rule(at=instances, pick=picks, after=st.integers(0, 30))
    def read(self, at: int, pick: int, after: int) -> None:
        stream_id = self.pick(pick)
        expected = self.oracle.read(stream_id, after)
        answer = self.run(content(self.stores[at], stream_id, after))
        if isinstance(answer, type) or isinstance(expected, type):
            assert answer is expected
        else:
            assert answer == [(offset, event.type, event.data) for offset, event in expected]

    @rule(
        at=instances,
        status=st.none() | st.sampled_from(Status),
        owner=st.sampled_from([None, None, "ann", "bob"]),
        thread_ids=st.sampled_from([None, None, ("a",), ("a", "b")]),
        settled=st.sampled_from([None, None, True, False]),
        before=st.none() | ids,
        limit=st.integers(0, 4),
    )
    def find(self, at: int, before: str | None, limit: int, **filters: Any) -> None:
        before = before if before in self.oracle.streams else None
        newest_first = [stream.info for stream in reversed(self.oracle.streams.values())]
        place = [info.stream_id for info in newest_first].index(before) + 1 if before else 0
        expected = [
            info
            for info in newest_first[place:]
            if filters["status"] in (None, info.status)
            and filters["owner"] in (None, info.owner)
            and (filters["thread_ids"] is None or info.thread_id in filters["thread_ids"])
            and filters["settled"] in (None, info.settled)
        ]
        assert self.run(self.stores[at].find(Query(before=before, limit=limit, **filters))) == expected[:limit]

    # ---- what always holds -------------------------------------------------------------------------------

    def epoch_of(self, stream_id: str) -> int:
        return self.oracle.streams[stream_id].epoch if stream_id in self.oracle.streams else 1

    @invariant()
    def the_store_is_what_the_model_is(self) -> None:
        if not self.stores:
            return
        self.steps += 1
        store = self.stores[self.steps % INSTANCES]
        for stream_id in IDS:
            stream = self.oracle.streams.get(stream_id)
            assert self.run(store.load(stream_id)) == (stream.info if stream else StreamNotFound)
            if stream is None:
                self.outcomes.pop(stream_id, None)
            if stream is None or stream.status is Status.EXPIRED:
                continue
            page = self.run(store.read(stream_id, 0))
            assert not isinstance(page, type)
            assert page.info == stream.info
            rows = [(item.offset, item.type, item.data, b.epoch) for b in page.batches for item in b.events]
            assert rows == [(offset, *written) for offset, written in enumerate(stream.events, start=1)]
            if page.info.outcome:
                assert self.outcomes.setdefault(stream_id, page.info.outcome) == page.info.outcome

    @invariant()
    def the_store_finds_what_needs_care(self) -> None:
        if not self.stores:
            return
        store, proven = self.stores[self.steps % INSTANCES], self.steps % 2 == 0
        orphans = self.run(store.orphans(proven=proven))
        assert isinstance(orphans, list)
        assert sorted(orphans) == sorted(self.oracle.orphans(store.instance_id, proven=proven))
        late = {s.stream_id: s.due_at for s in self.oracle.streams.values() if s.due_at and s.due_at <= self.clock()}
        limit = 1 + self.steps % 4
        due = self.run(store.due(limit))
        assert isinstance(due, list)
        assert [late[stream_id] for stream_id in due] == sorted(filter(None, late.values()))[:limit]
        assert len(set(due)) == len(due)
