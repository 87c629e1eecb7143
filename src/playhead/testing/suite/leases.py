"""Claim, release, fencing, and who is taken for dead."""

import asyncio
from functools import partial

import pytest

from playhead.errors import Fenced, PlayheadError, ProducerActive, StreamClosed, StreamNotFound
from playhead.log import Claim, Close, CloseDead, Expire, Release, RequestCancel
from playhead.model import COMPLETED, Outcome, OutcomeKind
from playhead.store import Applied, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import LEASE_S, StoreCase, append, create, create_closed, proves, race, texts, words


class LeasesSuite(StoreCase):
    async def test_each_opening_is_a_new_instance(self, store: Store, other: Store) -> None:
        first = store.instance_id
        assert len({first, other.instance_id, ""}) == 3
        await store.close()
        await store.open()
        assert store.instance_id not in {first, other.instance_id, ""}

    @proves("P6.4")
    async def test_claim_needs_a_free_stream(self, store: Store, other: Store, clock: ManualClock) -> None:
        await create(store)
        before = await store.load("s")
        clock.advance(LEASE_S - 0.1)
        with pytest.raises(ProducerActive) as refused:
            await other.apply("s", Claim(other.instance_id))
        assert refused.value.retryable
        assert await other.load("s") == before

    @proves("P6.1", "P6.4")
    async def test_take_over_raises_the_epoch(self, store: Store, other: Store) -> None:
        lease = await create(store)
        info, changed = await other.apply("s", Claim(other.instance_id, take_over=True))
        assert changed
        assert (info.producer, info.epoch) == (other.instance_id, lease.epoch + 1)
        assert await store.load("s") == info

    async def test_claim_of_closed_and_unknown_streams(self, store: Store) -> None:
        await create_closed(store)
        with pytest.raises(StreamClosed):
            await store.apply("s", Claim(store.instance_id, take_over=True))
        with pytest.raises(StreamNotFound):
            await store.apply("unknown", Claim(store.instance_id, take_over=True))

    @proves("P6.1")
    async def test_p6_a_fenced_producer_can_neither_append_nor_close(self, store: Store, other: Store) -> None:
        old = await create(store)
        await append(store, old, 1, "old")
        new = old._replace(epoch=(await other.apply("s", Claim(other.instance_id, take_over=True))).info.epoch)
        before = await other.load("s")
        with pytest.raises(Fenced) as fenced:
            await append(store, old, 2, "late")
        assert fenced.value.epoch == old.epoch
        for command in (Close(old.epoch, COMPLETED), Release(old.epoch)):
            with pytest.raises(Fenced):
                await store.apply("s", command)
        assert await other.load("s") == before
        await append(other, new, 2, "new")
        assert await words(store) == ["old", "new"]

    @proves("P6.1")
    async def test_p6_take_over_amid_appends_cuts_them_off_clean(self, store: Store, other: Store) -> None:
        old = await create(store)
        appends = [store.append(old, texts(old, n, f"old {n}")) for n in range(1, 201)]
        claimed = await other.apply("s", Claim(other.instance_id, take_over=True))
        results = await asyncio.gather(*appends, return_exceptions=True)
        stored = results.count(None)
        assert results[:stored] == [None] * stored
        assert all(isinstance(error, Fenced) for error in results[stored:])
        assert claimed.info.tail == stored
        new = old._replace(epoch=claimed.info.epoch)
        await append(other, new, stored + 1, "new")
        assert await words(store) == [f"old {n}" for n in range(1, stored + 1)] + ["new"]

    async def test_p6_racing_claims_have_one_winner(self, store: Store, other: Store) -> None:
        for turn in range(5):
            lease = await create(store, f"s{turn}")
            await store.apply(f"s{turn}", Release(lease.epoch))
            results = await race(*[partial(at.apply, f"s{turn}", Claim(at.instance_id)) for at in [store, other] * 3])
            winners = [result.info for result in results if isinstance(result, Applied)]
            assert len(winners) == 1
            assert sum(isinstance(error, ProducerActive) for error in results) == 5
            assert await store.load(f"s{turn}") == winners[0]

    # ---- release ---------------------------------------------------------------------------------------

    async def test_released_streams_are_free_at_once(self, store: Store, other: Store, clock: ManualClock) -> None:
        lease = await create(store, retention_s=60)
        released = (await store.apply("s", Release(lease.epoch))).info
        assert (released.producer, released.is_live, released.due_at) == (None, True, clock() + 60)
        claimed = (await other.apply("s", Claim(other.instance_id))).info
        assert (claimed.producer, claimed.due_at) == (other.instance_id, None)
        with pytest.raises(Fenced):
            await append(store, lease, 1, "late")

    async def test_released_streams_are_not_dead(self, store: Store, other: Store) -> None:
        lease = await create(store)
        await store.apply("s", Release(lease.epoch))
        assert await other.orphans(proven=False) == []
        with pytest.raises(ProducerActive):
            await other.apply("s", CloseDead())

    async def test_p7_a_stream_that_nobody_takes_up_again_is_closed(self, store: Store, clock: ManualClock) -> None:
        lease = await create(store, retention_s=60)
        await store.apply("s", Release(lease.epoch))
        clock.advance(60)
        assert await store.due(10) == ["s"]
        info = (await store.apply("s", Expire(expired_for_s=60, settle_within_s=0))).info
        assert info.outcome == Outcome(OutcomeKind.INTERRUPTED, reason="abandoned")
        with pytest.raises(Fenced):
            await append(store, lease, 1, "late")

    async def test_p4_release_obeys_a_stored_cancel(self, store: Store) -> None:
        lease = await create(store)
        await store.apply("s", RequestCancel("ann"))
        info = (await store.apply("s", Release(lease.epoch))).info
        assert info.outcome
        assert (info.outcome.kind, info.outcome.by) == (OutcomeKind.CANCELLED, "ann")

    # ---- death -----------------------------------------------------------------------------------------

    async def test_p5_the_living_are_not_orphaned(self, store: Store, other: Store, clock: ManualClock) -> None:
        await create(store)
        clock.advance(LEASE_S - 0.1)
        other.renew()
        assert await other.orphans(proven=False) == await other.orphans(proven=True) == []
        with pytest.raises(ProducerActive):
            await other.apply("s", CloseDead())

    @proves("P5.1")
    async def test_p5_a_lease_that_ran_out(self, store: Store, other: Store, clock: ManualClock) -> None:
        old = await create(store)
        clock.advance(LEASE_S + 0.1)
        other.renew()
        assert await other.orphans(proven=False) == ["s"]
        assert await other.orphans(proven=True) == []
        info, changed = await other.apply("s", CloseDead())
        assert changed
        assert info.outcome == Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")
        assert (info.producer, info.epoch) == (None, old.epoch + 1)
        assert await other.apply("s", CloseDead()) == (info, False)
        with pytest.raises(Fenced):
            await append(store, old, 1, "late")
        with pytest.raises(Fenced):
            await store.apply("s", Close(old.epoch, COMPLETED))

    async def test_p5_an_instance_that_said_goodbye_is_known_dead(self, store: Store, other: Store) -> None:
        await create(store)
        closed = await create_closed(store, "closed")
        await store.close()
        assert await other.orphans(proven=True) == await other.orphans(proven=False) == ["s"]
        assert (await other.apply("s", CloseDead())).info.outcome == Outcome(
            OutcomeKind.INTERRUPTED, reason="producer-lost"
        )
        assert await other.orphans(proven=True) == []
        assert await other.load("closed") == closed

    async def test_p5_a_predecessors_streams_are_found_after_reopening(self, store: Store) -> None:
        await create(store)
        await store.close()
        await store.open()
        assert await store.orphans(proven=True) == ["s"]
        await store.apply("s", CloseDead())

    async def test_p5_streams_of_a_dead_producer_can_be_claimed(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        old = await create(store)
        clock.advance(LEASE_S + 0.1)
        other.renew()
        info = (await other.apply("s", Claim(other.instance_id))).info
        assert (info.producer, info.epoch) == (other.instance_id, old.epoch + 1)

    @proves("P6.3")
    async def test_p6_nobodys_own_streams_are_orphans(self, store: Store, clock: ManualClock) -> None:
        await create(store)
        clock.advance(10 * LEASE_S)
        assert await store.orphans(proven=False) == await store.orphans(proven=True) == []

    @proves("P6.2")
    async def test_p6_expiry_alone_only_permits(self, store: Store, other: Store, clock: ManualClock) -> None:
        lease = await create(store)
        clock.advance(10 * LEASE_S)
        await append(store, lease, 1, "still mine")
        await asyncio.to_thread(store.renew)
        with pytest.raises(ProducerActive):
            await other.apply("s", Claim(other.instance_id))
        with pytest.raises(ProducerActive):
            await other.apply("s", CloseDead())
        assert await other.orphans(proven=False) == []
        await append(store, lease, 2, "and again")
        assert await words(other) == ["still mine", "and again"]

    async def test_p6_a_clock_set_back_kills_nobody(self, store: Store, other: Store, clock: ManualClock) -> None:
        await create(store)
        clock.jump(-3_600)
        assert await other.orphans(proven=False) == []
        clock.jump(3_600 + LEASE_S + 0.1)
        other.renew()
        assert await other.orphans(proven=False) == ["s"]

    async def test_orphans_come_a_thousand_at_most(self, store: Store, other: Store) -> None:
        for n in range(1_010):
            await create(store, f"s{n}")
        await store.close()
        first = await other.orphans(proven=True)
        assert len(first) == 1_000
        for stream_id in first:
            await other.apply(stream_id, CloseDead())
        assert len(await other.orphans(proven=True)) == 10

    async def test_p6_racing_close_dead_and_renewed_append(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        """Whoever comes first, the log and the state tell the same story."""
        for turn in range(10):
            lease = await create(store, f"s{turn}")
            clock.advance(LEASE_S + 0.1)
            other.renew()
            results: list[object] = [
                *await race(
                    partial(other.apply, lease.stream_id, CloseDead()),
                    partial(append, store, lease, 1, "mine"),
                )
            ]
            info = await store.load(lease.stream_id)
            assert info.outcome == Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")
            assert isinstance(results[1], Fenced) if info.tail == 0 else results[1] is None
            assert len(await words(store, lease.stream_id)) == info.tail
            assert not isinstance(results[0], PlayheadError)
