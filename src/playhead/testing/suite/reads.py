"""Read: pages of whole batches, from any place, of one moment."""

import asyncio
from functools import partial

import pytest

from playhead.errors import StreamNotFound
from playhead.log import Close
from playhead.model import BYTES, COMPLETED, TEXT, Batch
from playhead.store import PAGE_MAX_BYTES, Store
from playhead.testing.suite.case import StoreCase, append, content, create, create_closed, proves, race, texts, words

BEYOND = [3, 4, 1_000, 10**18 - 1]


class ReadsSuite(StoreCase):
    async def test_nothing_yet(self, store: Store, other: Store) -> None:
        await create(store)
        for after in (0, 1, 10**18 - 1):
            assert await other.read("s", after) == ([], await store.load("s"))

    async def test_nothing_after_the_tail(self, store: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a", "b", "c")
        for after in BEYOND:
            assert await store.read("s", after) == ([], await store.load("s"))

    async def test_p12_no_place_leads_into_another_stream(self, store: Store) -> None:
        for n in range(3):
            lease = await create(store, f"s{n}")
            await append(store, lease, 1, f"a of s{n}", f"b of s{n}")
        for after in (-1, -2, -(10**9), 0):
            batches = (await store.read("s1", after)).batches
            assert [event.text for batch in batches for event in batch.events] == ["a of s1", "b of s1"]
        for after in (2, 3, 2**32 - 1, 2**32, 2**32 + 1, 10**18 - 1):
            assert (await store.read("s1", after)).batches == []

    async def test_unknown_streams(self, store: Store) -> None:
        with pytest.raises(StreamNotFound):
            await store.read("s", 0)

    @proves("P2.1")
    async def test_p2_from_any_place(self, store: Store, other: Store) -> None:
        lease = await create(store)
        first, sizes = 1, [1, 3, 1, 5, 2]
        for size in sizes:
            await append(store, lease, first, *[f"event {n}" for n in range(first, first + size)])
            first += size
        everything = await content(store)
        assert [event.text for event in everything] == [f"event {n}" for n in range(1, 13)]
        for after in range(13):
            page = await other.read("s", after)
            if after < 12:
                assert page.batches[0].first <= after + 1 <= page.batches[0].last
            assert await content(other, after=after) == everything[after:]

    async def test_pages_hold_whole_batches(self, store: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a", "b", "c")
        await append(store, lease, 4, "d")
        page = await store.read("s", 2)
        assert [(batch.first, batch.last, batch.size_bytes) for batch in page.batches] == [(1, 3, 3), (4, 4, 1)]
        assert page.batches[0].after(2).events == (await content(store))[2:3]

    @proves("P8.2")
    async def test_p8_pages_are_bounded_in_bytes(self, store: Store) -> None:
        lease = await create(store)
        size_bytes, count = 24 * 1024, 50
        for offset in range(1, count + 1):
            await store.append(lease, Batch(offset, lease.epoch, BYTES, [bytes([offset]) * size_bytes]))
        after, pages = 0, 0
        while batches := (await store.read("s", after)).batches:
            assert batches[0].first == after + 1
            total = sum(batch.size_bytes for batch in batches)
            assert total <= PAGE_MAX_BYTES + size_bytes
            assert total > PAGE_MAX_BYTES // 2 or batches[-1].last == count
            after, pages = batches[-1].last, pages + 1
        assert (after, pages > 3) == (count, True)
        assert [event.data for event in await content(store)] == [bytes([n]) * size_bytes for n in range(1, count + 1)]

    async def test_p8_a_batch_larger_than_a_page_comes_alone(self, store: Store) -> None:
        lease = await create(store)
        large = b"x" * (4 * PAGE_MAX_BYTES)
        await append(store, lease, 1, "small")
        await store.append(lease, Batch(2, lease.epoch, BYTES, [large]))
        await append(store, lease, 3, "small")
        batches = (await store.read("s", 1)).batches
        assert [batch.first for batch in batches] == [2]
        assert [event.data for event in await content(store)] == [b"small", large, b"small"]

    async def test_many_small_batches(self, store: Store) -> None:
        lease = await create(store)
        futures = [store.append(lease, texts(lease, offset, str(offset))) for offset in range(1, 3_001)]
        await asyncio.gather(*futures)
        assert await words(store) == [str(n) for n in range(1, 3_001)]
        assert await words(store, after=2_990) == [str(n) for n in range(2_991, 3_001)]

    async def test_p2_a_page_and_its_state_are_of_one_moment(self, store: Store, other: Store) -> None:
        """A reader that believed a state newer than its page would take the end for reached too early."""
        lease = await create(store)

        async def write() -> None:
            for offset in range(1, 201):
                await append(store, lease, offset, "x")
            await store.apply("s", Close(lease.epoch, COMPLETED))

        async def follow(at: Store) -> None:
            after, closed = 0, False
            while not closed:
                page = await at.read("s", after)
                assert page.info.tail == (page.batches[-1].last if page.batches else after)
                after, closed = page.info.tail, page.info.outcome is not None
                await asyncio.sleep(0)
            assert after == 200

        async with asyncio.timeout(60):
            results: list[object] = [*await race(write, partial(follow, store), partial(follow, other))]
        assert results == [None] * 3

    async def test_p8_many_readers_at_once(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 401, 4):
            await store.append(lease, Batch(offset, lease.epoch, TEXT, [b"x" * 1_000] * 4))
        everything = await content(store)
        reads = [content(at, after=after) for after in range(0, 400, 20) for at in (store, other)]
        results = await asyncio.gather(*reads)
        assert results == [everything[after:] for after in range(0, 400, 20) for _ in range(2)]

    @proves("P10.1")
    async def test_p10_cancelled_reads_break_nothing(self, store: Store) -> None:
        lease = await create(store)
        await store.append(lease, Batch(1, lease.epoch, TEXT, [b"x" * 1_000] * 500))
        for steps in range(12):
            tasks = [asyncio.ensure_future(store.read("s", n)) for n in range(10)]
            tasks += [asyncio.ensure_future(_loaded(store)) for _ in range(3)]  # type: ignore[arg-type]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not any(isinstance(result, Exception) for result in results)
        assert len(await content(store)) == 500

    async def test_reading_a_closed_stream(self, store: Store, other: Store) -> None:
        info = await create_closed(store)
        page = await other.read("s", 0)
        assert page.info == info
        assert [batch.events[0].text for batch in page.batches] == ["only"]
        assert await other.read("s", 1) == await other.read("s", 2) == ([], info)


async def _loaded(store: Store) -> object:
    return await store.load("s")
