"""Close and open again: everything that was acknowledged is there."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from playhead.errors import AppendRepeat, StoreUnavailable, StreamExpired
from playhead.log import Claim, Close, Create, Delete, Expire, RequestCancel, Watched
from playhead.model import Batch, Lease, Outcome, OutcomeKind
from playhead.store import Query, Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import OpenStore, StoreCase, append, content, create, create_closed, texts, words


async def _reopen(store: Store) -> None:
    await store.close()
    await store.open()


class SurvivalSuite(StoreCase):
    async def test_the_clock_is_the_one_given(self, store: Store, clock: ManualClock) -> None:
        assert store.now() == clock()
        clock.advance(1.5)
        assert store.now() == clock()

    async def test_close_is_idempotent(self, store: Store) -> None:
        await store.close()
        await store.close()
        await store.open()
        await create(store)

    async def test_states_survive(self, store: Store, clock: ManualClock) -> None:
        live = await create(
            store, "live", owner="ann", thread_id="t", idempotency_key="k", metadata={"a": [1]}, unwatched_after_s=3
        )
        await append(store, live, 1, "x")
        clock.advance(0.123456)
        await store.apply("live", Watched())
        await store.apply("live", RequestCancel("bob", "why"))
        await create_closed(store, "closed", Outcome(OutcomeKind.FAILED, "error", "by", "reason"), needs_settling=True)
        await create_closed(store, "expired", retention_s=1)
        clock.advance(2)
        await store.apply("expired", Expire(expired_for_s=100, settle_within_s=0))
        await create_closed(store, "deleted")
        await store.apply("deleted", Delete())
        before = await store.find(Query())
        assert len(before) == 3
        assert before[2].watched_at == before[2].created_at + 0.123456
        await _reopen(store)
        assert await store.find(Query()) == before
        assert [await store.load(info.stream_id) for info in before] == before
        with pytest.raises(StreamExpired):
            await store.read("expired", 0)
        again = await store.apply("new", Create(store.instance_id, owner="ann", thread_id="t", idempotency_key="k"))
        assert (again.info.stream_id, again.changed) == ("live", False)

    async def test_p1_events_survive(self, store: Store) -> None:
        lease = await create(store)
        await store.append(lease, Batch(1, lease.epoch, ["a", "ü"], [b"\0\xff", b""]))
        await append(store, lease, 3, "three")
        before = await content(store)
        await _reopen(store)
        assert await content(store) == before
        assert len(before) == 3

    async def test_p1_appends_go_on_where_they_were(self, store: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a", "b")
        await _reopen(store)
        with pytest.raises(AppendRepeat):
            await append(store, lease, 1, "a", "b")
        lease = Lease("s", (await store.apply("s", Claim(store.instance_id))).info.epoch)
        await append(store, lease, 3, "c")
        await store.apply("s", Close(lease.epoch, Outcome(OutcomeKind.COMPLETED)))
        await _reopen(store)
        assert await words(store) == ["a", "b", "c"]
        assert (await store.load("s")).size_bytes == 3

    async def test_p1_close_finishes_what_was_handed_over(self, store: Store) -> None:
        lease = await create(store)
        futures = [store.append(lease, texts(lease, offset, str(offset))) for offset in range(1, 51)]
        await store.close()
        assert await asyncio.gather(*futures) == [None] * 50
        await store.open()
        assert await words(store) == [str(n) for n in range(1, 51)]

    async def test_limits_survive(self, open_store: OpenStore) -> None:
        store = await open_store(stream_max_bytes=4)
        lease = await create(store, thread_id="t", owner="ann")
        await append(store, lease, 1, "1234")
        await _reopen(store)
        info = await store.load("s")
        assert (info.size_bytes, info.tail, info.is_live) == (4, 1, True)
        assert [found.stream_id for found in await store.find(Query(thread_ids=("t",), owner="ann"))] == ["s"]

    async def test_garbage_survives_until_it_is_purged(self, store: Store) -> None:
        lease = await create(store)
        for offset in range(1, 6):
            await append(store, lease, offset, "x")
        await store.apply("s", Delete())
        assert await store.purge(2) == 2
        await _reopen(store)
        assert [await store.purge(2) for _ in range(3)] == [2, 1, 0]

    async def test_p2_times_survive_exactly(self, store: Store, other: Store, clock: ManualClock) -> None:
        """A cursor's mark holds the time of creation: the last bit of it counts."""
        for n in range(20):
            clock.advance(0.1)
            info = await create_closed(store, f"s{n}", retention_s=1 / 3)
            assert info.created_at == clock()
            assert await other.load(f"s{n}") == info
        before = await store.find(Query())
        await _reopen(store)
        after = await store.find(Query())
        assert after == before
        assert [info.cursor for info in after] == [info.cursor for info in before]

    async def test_a_closed_store_says_so(self, store: Store, other: Store) -> None:
        lease = await create(store)
        await store.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.load("s"),
            lambda: store.read("s", 0),
            lambda: store.find(Query()),
            lambda: store.due(1),
            lambda: store.purge(1),
            lambda: store.orphans(proven=False),
            lambda: store.apply("s", Delete()),
            lambda: store.append(lease, texts(lease, 1, "x")),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                await call()
        assert (await other.load("s")).tail == 0

    async def test_p5_goodbye_is_final(self, store: Store, other: Store) -> None:
        """A heartbeat that comes late does not bring back the dead."""
        await create(store)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await asyncio.to_thread(store.renew)
        assert await other.orphans(proven=True) == ["s"]
