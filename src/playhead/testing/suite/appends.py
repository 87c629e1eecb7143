"""Append: order, gaps, repeats, retries, limits, and bytes that come back as they went in."""

import asyncio
import struct
from functools import partial

import pytest

from playhead.errors import AppendGap, AppendRepeat, Fenced, PlayheadError, StreamNotFound, StreamTooLarge
from playhead.log import Claim
from playhead.model import BYTES, TEXT, TYPE_MAX_BYTES, Batch, Event, Lease
from playhead.store import Store
from playhead.testing.suite.case import OpenStore, StoreCase, append, content, create, proves, race, texts, words

MIB = 1024 * 1024
ODD_DATAS = {
    "empty": b"",
    "nul": b"a\0b\0",
    "lines": b"\r\n\r\n: data: x\n\nid: 7\r\r",
    "lone surrogate": "\ud800 \udfff".encode("utf-8", "surrogatepass"),
    "not utf-8": b"\xff\xfe\xc0\x80\xed\xa0",
    "every byte": bytes(range(256)) * 4,
    "a MiB": bytes(range(256)) * 4096,
}
ODD_TYPES = ["text", "a b", "ü☃𝄞", "x" * TYPE_MAX_BYTES, "ü" * 127, ": id:", "'\"\\;--", "0"]


class AppendsSuite(StoreCase):
    @proves("P1.1", "P1.2")
    async def test_p1_acknowledged_events_are_seen_by_all(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 6):
            await append(store, lease, offset, f"event {offset}")
            for reader in (store, other):
                assert await words(reader) == [f"event {n}" for n in range(1, offset + 1)]
                info = await reader.load("s")
                assert (info.tail, info.size_bytes) == (offset, 7 * offset)

    @proves("P1.2")
    async def test_p1_all_readers_see_the_same_bytes(self, store: Store, other: Store) -> None:
        lease = await create(store)
        await store.append(lease, Batch(1, lease.epoch, ["a", "b"], [b"1", b"2"]))
        expected = [Event(1, "a", b"1"), Event(2, "b", b"2")]
        assert await content(store) == await content(other) == expected
        assert all(isinstance(event, Event) for event in await content(other))

    async def test_p2_appends_handed_over_together_keep_their_order(self, store: Store, other: Store) -> None:
        lease = await create(store)
        resolved: list[int] = []
        futures = []
        for offset in range(1, 101):
            future = store.append(lease, texts(lease, offset, str(offset)))
            future.add_done_callback(partial(_note, resolved, offset))
            futures.append(future)
        await asyncio.gather(*futures)
        assert resolved == list(range(1, 101))
        assert await words(other) == [str(n) for n in range(1, 101)]

    async def test_streams_do_not_mix(self, store: Store, other: Store) -> None:
        leases = [await create(at, f"s{n}") for n, at in enumerate([store, other] * 5)]

        async def write(at: Store, lease: Lease) -> None:
            for offset in range(1, 21, 2):
                await append(at, lease, offset, f"{lease.stream_id} {offset}", f"{lease.stream_id} {offset + 1}")

        await race(*[partial(write, at, lease) for at, lease in zip([store, other] * 5, leases, strict=True)])
        for lease in leases:
            assert await words(store, lease.stream_id) == [f"{lease.stream_id} {n}" for n in range(1, 21)]

    # ---- refusals --------------------------------------------------------------------------------------

    @proves("P2.5")
    async def test_p2_gaps_are_refused(self, store: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a")
        before = await store.load("s")
        with pytest.raises(AppendGap) as gap:
            await append(store, lease, 3, "c")
        assert (gap.value.first, gap.value.tail) == (3, 1)
        with pytest.raises(AppendGap):
            await append(store, lease, 10**15, "far away")
        assert await store.load("s") == before
        await append(store, lease, 2, "b")
        assert await words(store) == ["a", "b"]

    @proves("P2.5")
    async def test_p2_repeats_are_refused(self, store: Store, other: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a", "b", "c")
        before = await store.load("s")
        for first, items in ((1, "abc"), (1, "a"), (2, "b"), (3, "c")):
            with pytest.raises(AppendRepeat) as repeat:
                await append(other, lease, first, *items)
            assert (repeat.value.last, repeat.value.tail) == (first + len(items) - 1, 3)
        assert await store.load("s") == before

    @proves("P2.5")
    async def test_p2_half_a_repeat_is_refused(self, store: Store) -> None:
        lease = await create(store)
        await append(store, lease, 1, "a", "b")
        with pytest.raises(AppendGap):
            await append(store, lease, 2, "b", "c")
        assert await words(store) == ["a", "b"]

    async def test_p2_nothing_is_no_entry(self, store: Store) -> None:
        lease = await create(store)
        for tail in (0, 1):
            with pytest.raises(AppendRepeat):
                await store.append(lease, Batch(tail + 1, lease.epoch, TEXT, []))
            with pytest.raises(AppendRepeat):
                await store.append(lease, Batch(tail + 1, lease.epoch, [], []))
            await append(store, lease, tail + 1, "x")
        assert await words(store) == ["x", "x"]

    async def test_p2_a_refused_append_takes_nothing_along(self, store: Store, other: Store) -> None:
        """Handed over in one go, perhaps committed in one go: right ones are stored, wrong ones are not."""
        lease = await create(store)
        elsewhere = await create(store, "elsewhere")
        batches = [texts(lease, first, f"{first}") for first in (1, 3, 2, 2, 4, 3)]
        futures = [store.append(lease, batch) for batch in batches]
        futures += [store.append(elsewhere, texts(elsewhere, 1, "1"))]
        futures += [store.append(Lease("unknown", 1), texts(lease, 1, "1"))]
        futures += [store.append(lease._replace(epoch=lease.epoch + 1), texts(lease, 4, "4"))]
        results = await asyncio.gather(*futures, return_exceptions=True)
        expected = [type(None), AppendGap, type(None), AppendRepeat, AppendGap, type(None)]
        assert list(map(type, results)) == [*expected, type(None), StreamNotFound, Fenced]
        assert await words(other) == ["1", "2", "3"]
        assert await words(other, "elsewhere") == ["1"]

    async def test_the_same_lease_in_two_hands_writes_once(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 11):
            calls = [partial(append, at, lease, offset, f"{n}") for n, at in enumerate([store, other] * 2)]
            results: list[object] = [*await race(*calls)]
            assert results.count(None) == 1
            assert sum(isinstance(error, AppendRepeat) for error in results) == 3
            assert await words(store, after=offset - 1) == [str(results.index(None))]

    async def test_append_to_unknown_streams(self, store: Store) -> None:
        with pytest.raises(StreamNotFound):
            await append(store, Lease("s", 1), 1, "x")
        with pytest.raises(StreamNotFound):
            await store.load("s")

    async def test_a_stream_holds_so_many_bytes(self, open_store: OpenStore) -> None:
        store = await open_store(stream_max_bytes=10)
        lease = await create(store)
        await append(store, lease, 1, "12345", "6789")
        with pytest.raises(StreamTooLarge) as refused:
            await append(store, lease, 3, "ab")
        assert refused.value.limit == 10
        await append(store, lease, 3, "a")
        await append(store, lease, 4, "")
        with pytest.raises(StreamTooLarge):
            await append(store, lease, 5, "b")
        assert (await store.load("s")).size_bytes == 10
        assert await words(store) == ["12345", "6789", "a", ""]

    # ---- retries ---------------------------------------------------------------------------------------

    @proves("P1.5")
    async def test_p1_a_frozen_batch_is_stored_once(self, store: Store, other: Store) -> None:
        lease = await create(store)
        batch = Batch(1, lease.epoch, ["a", "b"], [b"1", b"2"])
        await store.append(lease, batch)
        for at in (store, other):
            with pytest.raises(AppendRepeat):
                await at.append(lease, batch)
        assert await content(store) == batch.events

    @proves("P1.5", "P10.2")
    async def test_p10_an_abandoned_append_is_not_taken_back(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset in range(1, 31):
            batch = texts(lease, offset, str(offset))
            future = store.append(lease, batch)
            for _ in range(offset % 4):
                await asyncio.sleep(0)
            future.cancel()
            # Handed in again it is either stored already or, in order after the first, refused as a repeat.
            with pytest.raises(AppendRepeat):
                await store.append(lease, batch)
        assert await words(other) == [str(n) for n in range(1, 31)]

    async def test_p10_abandoned_appends_do_not_hold_up_the_next(self, store: Store) -> None:
        lease = await create(store)
        futures = [store.append(lease, texts(lease, offset, str(offset))) for offset in range(1, 51)]
        for future in futures[:49]:
            future.cancel()
        await futures[49]
        assert await words(store) == [str(n) for n in range(1, 51)]

    # ---- bytes -----------------------------------------------------------------------------------------

    @proves("P1.3")
    @pytest.mark.parametrize("name", ODD_DATAS)
    async def test_p1_any_bytes_come_back(self, store: Store, other: Store, name: str) -> None:
        lease = await create(store)
        data = ODD_DATAS[name]
        await store.append(lease, Batch(1, lease.epoch, BYTES, [data]))
        await store.append(lease, Batch(2, lease.epoch, BYTES, [b"", data, b"", data, b""]))
        expected = [data, b"", data, b"", data, b""]
        assert [event.data for event in await content(other)] == expected
        assert (await other.load("s")).size_bytes == 3 * len(data)

    async def test_p1_any_types_come_back(self, store: Store, other: Store) -> None:
        lease = await create(store)
        for offset, name in enumerate(ODD_TYPES, start=1):
            await store.append(lease, Batch(offset, lease.epoch, name, [b"x"]))
        start = len(ODD_TYPES) + 1
        await store.append(lease, Batch(start, lease.epoch, ODD_TYPES, [b"y"] * len(ODD_TYPES)))
        await store.append(lease, Batch(2 * start - 1, lease.epoch, ["same", "same"], [b"z", b"z"]))
        assert [event.type for event in await content(other)] == [*ODD_TYPES, *ODD_TYPES, "same", "same"]

    async def test_p1_a_batch_may_hold_255_types(self, store: Store) -> None:
        lease = await create(store)
        types = [f"type {n % 255}" for n in range(600)]
        await store.append(lease, Batch(1, lease.epoch, types, [str(n).encode() for n in range(600)]))
        assert [(event.type, event.text) for event in await content(store)] == [
            (f"type {n % 255}", str(n)) for n in range(600)
        ]

    async def test_p1_a_batch_that_fits_no_entry_changes_nothing(self, store: Store, other: Store) -> None:
        """Producers never make such batches; but one mistake must not make a stream unreadable."""
        lease = await create(store)
        await append(store, lease, 1, "before")
        before = await store.load("s")
        too_long, too_many = ["x" * (TYPE_MAX_BYTES + 1)], [str(n) for n in range(256)]
        for types in (too_long, too_many):
            with pytest.raises((ValueError, struct.error, PlayheadError)):
                await store.append(lease, Batch(2, lease.epoch, types, [b"x"] * len(types)))
        assert await other.load("s") == before
        await append(store, lease, 2, "after")
        assert await words(other) == ["before", "after"]

    async def test_p1_a_batch_may_hold_many_events(self, store: Store) -> None:
        lease = await create(store)
        await store.append(lease, Batch(1, lease.epoch, TEXT, [b"%d" % n for n in range(20_000)]))
        assert await words(store) == [str(n) for n in range(20_000)]

    async def test_batches_are_not_kept_by_reference(self, store: Store) -> None:
        lease = await create(store)
        datas, types = [b"mine", b"too"], ["a", "b"]
        await store.append(lease, Batch(1, lease.epoch, types, datas))
        datas[0], types[0] = b"changed", "changed"
        assert await content(store) == [Event(1, "a", b"mine"), Event(2, "b", b"too")]

    async def test_p6_events_name_the_epoch_of_their_append(self, store: Store, other: Store) -> None:
        old = await create(store)
        await append(store, old, 1, "old")
        new = Lease("s", (await other.apply("s", Claim(other.instance_id, take_over=True))).info.epoch)
        await append(other, new, 2, "new")
        page = await store.read("s", 0)
        assert [(batch.first, batch.epoch) for batch in page.batches] == [(1, old.epoch), (2, new.epoch)]
        assert (await store.load("s")).epoch == new.epoch


def _note(offsets: list[int], offset: int, _future: object) -> None:
    offsets.append(offset)
