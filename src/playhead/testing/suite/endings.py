"""Close and cancel: one end, decided by what is stored."""

from functools import partial

import pytest

from playhead.errors import Fenced, PlayheadError, StreamClosed, StreamExpired, StreamNotFound
from playhead.log import Claim, Close, CloseDead, Expire, Release, RequestCancel
from playhead.model import COMPLETED, Cancel, Lease, Outcome, OutcomeKind, Status
from playhead.store import Applied, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import LEASE_S, StoreCase, append, create, create_closed, proves, race, words

FAILED = Outcome(OutcomeKind.FAILED, error="out of words")
ODD = "nul \0, line\r\nend, quote\" it's, lone \ud800 surrogate, ☃" + "x" * 10_000


class EndingsSuite(StoreCase):
    async def test_p7_close_ends_a_stream(self, store: Store, other: Store, clock: ManualClock) -> None:
        lease = await create(store, retention_s=60)
        await append(store, lease, 1, "a", "b")
        clock.advance(1)
        info, changed = await store.apply("s", Close(lease.epoch, COMPLETED))
        assert changed
        assert (info.status, info.outcome, info.producer) == (Status.CLOSED, COMPLETED, None)
        assert (info.tail, info.epoch, info.closed_at, info.due_at) == (2, lease.epoch, clock(), clock() + 60)
        assert await other.load("s") == info
        assert await words(other) == ["a", "b"]

    @pytest.mark.parametrize("kind", OutcomeKind)
    async def test_outcomes_are_kept_whatever_they_say(self, store: Store, other: Store, kind: OutcomeKind) -> None:
        outcome = Outcome(kind, error=ODD, by="ü", reason="")
        await create_closed(store, outcome=outcome)
        kept = (await other.load("s")).outcome
        assert kept == outcome
        assert isinstance(kept, Outcome)
        assert isinstance(kept.kind, OutcomeKind)

    @proves("P7.1")
    async def test_p7_the_first_close_stays(self, store: Store, other: Store, clock: ManualClock) -> None:
        first = await create_closed(store)
        clock.advance(1)
        assert await store.apply("s", Close(first.epoch, FAILED)) == (first, False)
        assert await other.apply("s", CloseDead()) == (first, False)
        assert await other.apply("s", RequestCancel("ann")) == (first, False)
        assert await other.load("s") == first

    @proves("P7.1")
    async def test_p7_racing_closes_have_one_end(self, store: Store, other: Store) -> None:
        for turn in range(5):
            lease = await create(store, f"s{turn}")
            results = await race(
                partial(store.apply, lease.stream_id, Close(lease.epoch, COMPLETED)),
                partial(other.apply, lease.stream_id, Close(lease.epoch, FAILED)),
                partial(store.apply, lease.stream_id, Close(lease.epoch, COMPLETED)),
                partial(other.apply, lease.stream_id, Close(lease.epoch, FAILED)),
            )
            closes = [result for result in results if isinstance(result, Applied)]
            assert len(closes) == 4
            assert sum(result.changed for result in closes) == 1
            assert len({result.info.outcome for result in closes}) == 1

    @proves("P7.1")
    async def test_p7_nothing_follows_a_close(self, store: Store, other: Store) -> None:
        info = await create_closed(store)
        lease = await _lease_of(store)
        for at in (store, other):
            with pytest.raises(StreamClosed):
                await append(at, lease, 2, "late")
        assert await store.load("s") == info
        assert await words(store) == ["only"]

    async def test_close_of_unknown_and_foreign_streams(self, store: Store) -> None:
        with pytest.raises(StreamNotFound):
            await store.apply("s", Close(1, COMPLETED))
        lease = await create(store)
        with pytest.raises(Fenced):
            await store.apply("s", Close(lease.epoch + 1, COMPLETED))

    # ---- cancel ----------------------------------------------------------------------------------------

    @proves("P4.1")
    async def test_p4_cancel_is_a_stored_fact(self, store: Store, other: Store, clock: ManualClock) -> None:
        lease = await create(store)
        clock.advance(1)
        info, changed = await other.apply("s", RequestCancel("ann", ODD))
        assert changed
        assert info.cancel == Cancel("ann", clock(), ODD)
        assert info.is_live
        assert await store.load("s") == info
        await append(store, lease, 1, "partial output is kept")
        assert (await store.load("s")).cancel == info.cancel

    @proves("P4.2")
    async def test_p4_the_first_cancel_stays(self, store: Store, other: Store, clock: ManualClock) -> None:
        await create(store)
        first = (await store.apply("s", RequestCancel("ann", "first"))).info
        clock.advance(1)
        assert await other.apply("s", RequestCancel("bob", "second")) == (first, False)
        assert await store.load("s") == first

    @proves("P4.4")
    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, Outcome(OutcomeKind.INTERRUPTED, reason="shutdown")])
    async def test_p4_stored_cancel_decides_the_outcome(self, store: Store, other: Store, outcome: Outcome) -> None:
        lease = await create(store)
        await append(store, lease, 1, "partial")
        await other.apply("s", RequestCancel("ann", "changed my mind"))
        info = (await store.apply("s", Close(lease.epoch, outcome))).info
        assert info.outcome == Outcome(OutcomeKind.CANCELLED, outcome.error, "ann", "changed my mind")
        assert await words(store) == ["partial"]

    @proves("P4.4")
    async def test_p4_stored_cancel_survives_a_take_over(self, store: Store, other: Store) -> None:
        await create(store)
        await store.apply("s", RequestCancel("ann"))
        claimed = (await other.apply("s", Claim(other.instance_id, take_over=True))).info
        assert claimed.cancel
        assert claimed.cancel.by == "ann"
        closed = (await other.apply("s", Close(claimed.epoch, COMPLETED))).info
        assert closed.outcome == Outcome(OutcomeKind.CANCELLED, by="ann")

    @proves("P4.4")
    async def test_p4_stored_cancel_decides_when_the_producer_dies(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        await create(store)
        await other.apply("s", RequestCancel("ann"))
        clock.advance(LEASE_S + 0.1)
        other.renew()
        info = (await other.apply("s", CloseDead())).info
        assert info.outcome == Outcome(OutcomeKind.CANCELLED, by="ann")

    @proves("P4.3", "P4.4")
    async def test_p4_cancel_of_a_dead_producer_closes(self, store: Store, other: Store, clock: ManualClock) -> None:
        old = await create(store)
        await append(store, old, 1, "partial")
        clock.advance(LEASE_S + 0.1)
        other.renew()
        info, changed = await other.apply("s", RequestCancel("ann", "gone"))
        assert changed
        assert (info.status, info.epoch) == (Status.CLOSED, old.epoch + 1)
        assert info.outcome == Outcome(OutcomeKind.CANCELLED, by="ann", reason="gone")
        with pytest.raises(Fenced):
            await append(store, old, 2, "late")
        assert await words(other) == ["partial"]

    async def test_p4_cancel_between_two_writers_closes(self, store: Store, other: Store) -> None:
        lease = await create(store)
        await _release(store)
        info = (await other.apply("s", RequestCancel("ann"))).info
        assert info.outcome == Outcome(OutcomeKind.CANCELLED, by="ann")
        with pytest.raises(Fenced):
            await append(store, lease, 1, "late")

    async def test_p4_a_second_cancel_closes_when_the_producer_died_meanwhile(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        await create(store)
        await other.apply("s", RequestCancel("ann"))
        clock.advance(LEASE_S + 0.1)
        other.renew()
        info, changed = await other.apply("s", RequestCancel("bob"))
        assert (changed, info.outcome) == (True, Outcome(OutcomeKind.CANCELLED, by="ann"))

    @proves("P4.2")
    async def test_p4_cancel_of_what_is_over(self, store: Store, clock: ManualClock) -> None:
        with pytest.raises(StreamNotFound):
            await store.apply("s", RequestCancel())
        closed = await create_closed(store, retention_s=1)
        assert await store.apply("s", RequestCancel("ann")) == (closed, False)
        clock.advance(2)
        await store.apply("s", Expire(expired_for_s=60, settle_within_s=0))
        with pytest.raises(StreamExpired):
            await store.apply("s", RequestCancel("ann"))

    @proves("P4.4")
    async def test_p4_racing_cancel_and_close_tell_one_story(self, store: Store, other: Store) -> None:
        for turn in range(10):
            lease = await create(store, f"s{turn}")
            results = await race(
                partial(other.apply, lease.stream_id, RequestCancel("ann")),
                partial(store.apply, lease.stream_id, Close(lease.epoch, COMPLETED)),
            )
            assert not any(isinstance(result, PlayheadError) for result in results)
            info = await store.load(lease.stream_id)
            cancelled = Outcome(OutcomeKind.CANCELLED, by="ann")
            assert info.outcome == (cancelled if info.cancel else COMPLETED)


async def _lease_of(store: Store) -> Lease:
    info = await store.load("s")
    return Lease("s", info.epoch)


async def _release(store: Store) -> None:
    lease = await _lease_of(store)
    await store.apply("s", Release(lease.epoch))
