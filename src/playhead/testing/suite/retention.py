"""Expire, settle, delete, purge: what goes, when, and that nothing else goes with it."""

from typing import Any

import pytest

from playhead.errors import StreamExpired, StreamNotFound
from playhead.log import Claim, Close, Create, Delete, Expire, Settle
from playhead.model import COMPLETED, Status, StreamInfo
from playhead.store import Query, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import StoreCase, append, content, create, create_closed, proves, words

DAY_S = 86_400.0
STEP = Expire(expired_for_s=10, settle_within_s=DAY_S)


class RetentionSuite(StoreCase):
    async def test_due_lists_the_longest_overdue_first(self, store: Store, other: Store, clock: ManualClock) -> None:
        for retention_s in (30, 10, 20, 40):
            await create_closed(store, f"{retention_s}", retention_s=retention_s)
        await create(store, "live", retention_s=1)
        assert await other.due(10) == []
        clock.advance(10)
        assert await other.due(10) == ["10"]
        clock.advance(20)
        assert await other.due(10) == ["10", "20", "30"]
        assert await other.due(2) == ["10", "20"]

    @proves("P2.4")
    async def test_retention_takes_the_events_then_the_name(
        self, store: Store, other: Store, clock: ManualClock
    ) -> None:
        await create_closed(store, retention_s=30)
        clock.advance(30)
        expired, changed = await store.apply("s", STEP)
        assert (expired.status, expired.due_at, changed) == (Status.EXPIRED, clock() + 10, True)
        assert await other.load("s") == expired
        for at in (store, other):
            with pytest.raises(StreamExpired):
                await at.read("s", 0)
        assert await store.due(10) == []
        clock.advance(10)
        assert await store.due(10) == ["s"]
        assert await other.apply("s", STEP) == (expired, True)
        for at in (store, other):
            with pytest.raises(StreamNotFound):
                await at.load("s")
        assert await store.due(10) == []

    async def test_retention_never_comes_early(self, store: Store, clock: ManualClock) -> None:
        closed = await create_closed(store, retention_s=30)
        live = (await store.apply("live", Create(store.instance_id, retention_s=1))).info
        clock.advance(29.9)
        assert await store.apply("s", STEP) == (closed, False)
        assert await store.apply("live", STEP) == (live, False)
        clock.jump(-3_600)
        assert await store.apply("s", STEP) == (closed, False)
        assert await words(store) == ["only"]

    # ---- settle ----------------------------------------------------------------------------------------

    async def test_p7_what_is_not_settled_is_kept(self, store: Store, clock: ManualClock) -> None:
        await create_closed(store, retention_s=30, needs_settling=True)
        clock.advance(30)
        kept = (await store.apply("s", STEP)).info
        assert kept.status is Status.CLOSED
        assert kept.due_at
        assert clock() < kept.due_at <= clock() + DAY_S
        assert await words(store) == ["only"]
        settled, changed = await store.apply("s", Settle())
        assert (settled.settled, changed) == (True, True)
        clock.advance(kept.due_at - clock())
        assert (await store.apply("s", STEP)).info.status is Status.EXPIRED

    async def test_p7_but_not_for_ever(self, store: Store, clock: ManualClock) -> None:
        await create_closed(store, retention_s=30, needs_settling=True)
        clock.advance(30 + DAY_S)
        assert (await store.apply("s", STEP)).info.status is Status.EXPIRED

    async def test_p7_settle_is_idempotent(self, store: Store, other: Store) -> None:
        lease = await create(store, needs_settling=True)
        live = await store.load("s")
        assert await store.apply("s", Settle()) == (live, False)
        await store.apply("s", Close(lease.epoch, COMPLETED))
        settled, changed = await store.apply("s", Settle())
        assert (settled.settled, changed) == (True, True)
        assert await other.apply("s", Settle()) == (settled, False)
        assert await other.load("s") == settled

    # ---- delete ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["live", "closed", "expired"])
    async def test_delete_at_any_state(self, store: Store, other: Store, clock: ManualClock, state: str) -> None:
        facts: dict[str, Any] = {
            "owner": "ann",
            "thread_id": "t",
            "idempotency_key": "k",
            "live_per_owner_max": 1,
            "retention_s": 1,
        }
        lease = await create(store, **facts)
        await append(store, lease, 1, "x")
        if state != "live":
            await store.apply("s", Close(lease.epoch, COMPLETED))
        if state == "expired":
            clock.advance(2)
            await store.apply("s", STEP)
        before = await store.load("s")
        assert before.status == state
        assert await other.apply("s", Delete()) == (before, True)
        for at in (store, other):
            with pytest.raises(StreamNotFound):
                await at.load("s")
            with pytest.raises(StreamNotFound):
                await at.read("s", 0)
            with pytest.raises(StreamNotFound):
                await append(at, lease, 2, "late")
            with pytest.raises(StreamNotFound):
                await at.apply("s", Delete())
            assert await at.find(Query()) == []
        clock.advance(100)
        assert await store.due(10) == await other.orphans(proven=False) == []
        again = await create(store, "s2", **facts)
        assert again.stream_id == "s2"

    async def test_a_name_used_again_begins_empty(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 6):
            await append(store, lease, offset, f"old {offset}")
        await store.apply("s", Delete())
        again = await create(other)
        info = await store.load("s")
        assert (info.tail, info.size_bytes, info.outcome, info.cancel) == (0, 0, None, None)
        assert await content(store) == []
        await append(other, again, 1, "new 1", "new 2", "new 3")
        assert await words(store) == ["new 1", "new 2", "new 3"]
        assert await words(store, after=2) == ["new 3"]
        while await store.purge(2):
            assert await words(other) == ["new 1", "new 2", "new 3"]
        assert await words(store) == ["new 1", "new 2", "new 3"]

    async def test_deleting_one_leaves_the_others(self, store: Store) -> None:
        leases = [await create(store, f"s{n}", owner="ann", thread_id=f"t{n}") for n in range(3)]
        for lease in leases:
            await append(store, lease, 1, lease.stream_id)
        await store.apply("s1", Delete())
        while await store.purge(10):
            pass
        assert [info.stream_id for info in await store.find(Query(owner="ann"))] == ["s2", "s0"]
        for lease in (leases[0], leases[2]):
            await append(store, lease, 2, "on")
            assert await words(store, lease.stream_id) == [lease.stream_id, "on"]

    # ---- purge -----------------------------------------------------------------------------------------

    async def test_purge_frees_a_little_at_a_time(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 11):
            await append(store, lease, offset, "x")
        assert await store.purge(100) == 0
        await store.apply("s", Delete())
        assert [await at.purge(3) for at in (store, other, store, other, store)] == [3, 3, 3, 1, 0]

    async def test_purge_takes_expired_and_forgotten_streams(self, store: Store, clock: ManualClock) -> None:
        kept = await create_closed(store, "kept")
        await create_closed(store, "expired", retention_s=1)
        await create_closed(store, "deleted")
        clock.advance(2)
        await store.apply("expired", STEP)
        await store.apply("deleted", Delete())
        assert [await store.purge(100), await store.purge(100)] == [2, 0]
        clock.advance(20)
        await store.apply("expired", STEP)
        assert await store.purge(100) == 0
        assert await store.load("kept") == kept
        assert await words(store, "kept") == ["only"]

    async def test_purge_amid_appends(self, store: Store, other: Store) -> None:
        await _fill(store, "gone", 100)
        lease = await create(store, "live")
        await other.apply("gone", Delete())
        for offset in range(1, 51):
            await append(store, lease, offset, str(offset))
            assert await other.purge(2) == 2
        assert await other.purge(2) == 0
        assert await words(store, "live") == [str(n) for n in range(1, 51)]

    async def test_p6_an_expired_stream_takes_no_events(self, store: Store, clock: ManualClock) -> None:
        closed = await create_closed(store, retention_s=1)
        clock.advance(2)
        await store.apply("s", STEP)
        with pytest.raises(StreamExpired):
            await store.apply("s", Claim(store.instance_id, take_over=True))
        with pytest.raises(StreamExpired):
            await create(store)
        assert (await store.load("s")).tail == closed.tail


async def _fill(store: Store, stream_id: str, events: int) -> StreamInfo:
    lease = await create(store, stream_id)
    for offset in range(1, events + 1):
        await append(store, lease, offset, str(offset))
    return await store.load(stream_id)
