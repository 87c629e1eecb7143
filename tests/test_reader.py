"""Reading: replay, live, cursors and their errors, slots, many readers."""

import asyncio
import gc
import random
import statistics
from functools import partial
from typing import Any

import pytest
from conftest import OpenPlayhead
from streaming import Scripted, count, finished, follow, follow_texts, has_stored, rest, say, stored_texts, until

from playhead import (
    Cursor,
    CursorAhead,
    CursorInvalid,
    CursorOfAnotherStream,
    Diverged,
    Event,
    OutcomeKind,
    Playhead,
    StreamNotFound,
)
from playhead.errors import StoreUnavailable, TooManyReaders
from playhead.testing.faults import FaultyStore


async def recorded(playhead: Playhead, events: int = 100, stream_id: str = "s") -> list[Event]:
    await playhead.start(count(events), stream_id=stream_id)
    return await follow(playhead, stream_id)


@pytest.mark.proves("P2.1")
async def test_p2_from_every_cursor_exactly_the_rest(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    everything = await recorded(playhead)
    assert [event.offset for event in everything] == list(range(1, 101))
    cursors = [None]
    async with playhead.tail("s") as tail:
        while await anext(tail, None):
            cursors.append(tail.cursor)
        cursors.append(tail.cursor)
    assert len(cursors) == 102
    assert all(cursor is None or (cursor.isascii() and len(cursor) <= 64) for cursor in cursors)
    for has, cursor in enumerate(cursors):
        for at in (playhead, other):
            tail = at.tail("s", after=cursor)
            assert [event async for event in tail] == everything[has:]
            assert tail.outcome
            assert tail.cursor == cursors[-1] == (await at.info("s")).cursor


@pytest.mark.proves("P1.2", "P2.1", "P2.3")
async def test_p2_reconnecting_readers_miss_and_repeat_nothing(open_playhead: OpenPlayhead) -> None:
    instances = [await open_playhead(), await open_playhead()]
    chance = random.Random(7)

    async def source():
        for n in range(600):
            yield f"{n} "
            if n % 20 == 0:
                await asyncio.sleep(0.001)

    await instances[0].start(source, stream_id="s")

    async def reader() -> list[Event]:
        got: list[Event] = []
        cursor = None
        while True:
            tail = chance.choice(instances).tail("s", after=cursor)
            leave_after = chance.randrange(1, 60)
            async for event in tail:
                got.append(event)
                leave_after -= 1
                if not leave_after:
                    break
            cursor = tail.cursor
            await tail.aclose()
            if tail.outcome:
                return got
            assert len(got) == Cursor.parse(cursor).offset

    all_got = await asyncio.wait_for(asyncio.gather(*[reader() for _ in range(20)]), 60)
    for got in all_got:
        assert got == all_got[0]
        assert [event.text for event in got] == [f"{n} " for n in range(600)]
        assert [event.offset for event in got] == list(range(1, 601))


async def test_p1_readers_are_given_only_what_the_store_has(open_playhead: OpenPlayhead) -> None:
    made: list[FaultyStore] = []

    def wrap(store: Any) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[0]

    playhead, other = await open_playhead(wrap), await open_playhead()
    source = Scripted("a", then=("b", "c"))
    await playhead.start(source, stream_id="s")
    tail = playhead.tail("s")
    assert (await anext(tail)).text == "a"
    await source.said.wait()
    made[0].fail_everything(True)
    source.go_on.set()
    waiting = asyncio.create_task(anext(tail))
    await until(lambda: made[0].failed > 0)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await stored_texts(other, "s") == ["a"]
    made[0].fail_everything(False)
    assert (await asyncio.wait_for(waiting, 15)).text == "b"
    assert [event.text async for event in tail] == ["c"]


# ---- cursors -------------------------------------------------------------------------------------------


@pytest.mark.proves("P2.2")
async def test_p2_bad_cursors_are_named(playhead: Playhead) -> None:
    await recorded(playhead, 5)
    await recorded(playhead, 5, "other")
    info = await playhead.info("s")
    mark, epoch = info.mark, info.epoch
    garbage = ["x", "1", "1.2.3", "1.a.b.c", f"1.{mark}.1", f"1.{mark}.1.-1", f"1.{mark}.1.1.1", f"2.{mark}.1.1", "\0"]
    garbage += [f"1.{mark}.1.²", "é" * 10, "9" * 65, f"1.{mark}.1.{'9' * 40}", f"1.{mark}.{'9' * 19}.1", " ", "\ud800"]
    for text in garbage:
        with pytest.raises(CursorInvalid):
            await follow(playhead, "s", after=text)
        with pytest.raises(CursorInvalid):
            await playhead.read("s", after=text)
    for offset in (0, 3, 6, 7):
        with pytest.raises(CursorOfAnotherStream):
            await follow(playhead, "s", after=str(Cursor((await playhead.info("other")).mark, epoch, offset)))
    with pytest.raises(CursorAhead) as ahead:
        await follow(playhead, "s", after=str(Cursor(mark, epoch, 7)))
    assert (ahead.value.offset, ahead.value.tail) == (7, 5)
    for other_epoch, offset in ((epoch + 1, 3), (epoch - 1, 3), (0, 3), (epoch + 1, 7), (10**17, 10**17)):
        with pytest.raises(Diverged):
            await follow(playhead, "s", after=str(Cursor(mark, other_epoch, offset)))
    with pytest.raises(StreamNotFound):
        await follow(playhead, "unknown", after=str(Cursor(mark, epoch, 1)))
    assert not playhead._readers.counts
    assert not playhead._readers.feeds


async def test_p2_a_cursor_ahead_of_a_live_stream_is_refused_at_once(playhead: Playhead) -> None:
    source = Scripted("a")
    info = await playhead.start(source, stream_id="s")
    await source.said.wait()
    for offset in (2, 3):
        with pytest.raises(CursorAhead):
            await follow(playhead, "s", after=str(Cursor(info.mark, info.epoch, offset)))


async def test_p2_cursors_outlive_a_take_over(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    async with await playhead.produce("s", keep_open=True) as out:
        await out.append("a", "b")
    tail = playhead.tail("s")
    assert (await anext(tail)).text == "a"
    before = tail.cursor
    between = (await playhead.info("s")).cursor
    second = await other.produce("s")
    claimed = (await playhead.info("s")).cursor
    await second.append("c")
    await second.close()
    assert await follow_texts(other, "s", after=before) == ["b", "c"]
    for cursor in (between, claimed):
        assert await follow_texts(other, "s", after=cursor) == ["c"]
    assert [event.text async for event in tail] == ["b", "c"]


async def test_p2_a_shared_look_never_calls_a_good_cursor_ahead(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    out = await playhead.produce("s")
    await out.append("a")
    await out.flush()
    for n in range(2, 60):
        # One reader here waits at the tail; another comes from the writer's process with the next event's cursor.
        waiting = other.tail("s", after=str(Cursor((await other.info("s")).mark, out.epoch, n - 1)))
        opening = asyncio.create_task(waiting.open())
        await out.append(f"{n}")
        await out.flush()
        cursor = str(Cursor((await playhead.info("s")).mark, out.epoch, n))
        assert (await other.read("s", after=cursor)).events == []
        await opening
        await waiting.aclose()
    await out.close()


# ---- tails ---------------------------------------------------------------------------------------------


async def test_a_tail_that_was_left_goes_on_nowhere(playhead: Playhead) -> None:
    await recorded(playhead, 5)
    tail = playhead.tail("s")
    async for event in tail:
        if event.offset == 2:
            break
    cursor = tail.cursor
    await tail.aclose()
    await tail.aclose()
    assert await follow_texts(playhead, "s", after=cursor) == ["3", "4", "5"]
    never_opened = playhead.tail("s")
    await never_opened.aclose()
    assert [event async for event in never_opened] == []
    assert not playhead._readers.counts


async def test_what_a_tail_knows_after_the_end(playhead: Playhead) -> None:
    await recorded(playhead, 5)
    tail = playhead.tail("s")
    assert len([event async for event in tail]) == 5
    assert tail.outcome
    assert tail.outcome.kind is OutcomeKind.COMPLETED
    assert tail.info.tail == 5
    assert tail.cursor == tail.info.cursor
    assert [event async for event in playhead.tail("s", after=tail.cursor)] == []


async def test_a_reader_goes_on_with_its_cursor_after_trouble_with_the_store(open_playhead: OpenPlayhead) -> None:
    made: list[FaultyStore] = []

    def wrap(store: Any) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[-1]

    playhead = await open_playhead(wrap, cache_max_bytes=1, store_patience_s=0.2)
    await playhead.start(say(*["x" * 100_000] * 20), stream_id="s")
    await finished(playhead, "s")
    tail = playhead.tail("s")
    assert (await anext(tail)).offset == 1
    made[0].fail_everything(True)
    with pytest.raises(StoreUnavailable):
        await rest(tail)
    assert tail.outcome is None
    has = Cursor.parse(tail.cursor).offset
    assert 1 <= has < 20
    with pytest.raises(StoreUnavailable):
        await follow(playhead, "s", after=tail.cursor)
    made[0].fail_everything(False)
    offsets = [event.offset for event in await follow(playhead, "s", after=tail.cursor)]
    assert offsets == list(range(has + 1, 21))


@pytest.mark.proves("P2.1")
@pytest.mark.parametrize("then", ["deleted", "made again", "away"])
async def test_p2_a_close_that_is_known_is_told_whatever_comes_right_after_it(
    open_playhead: OpenPlayhead, then: str
) -> None:
    """A reader that is late hears of both at once; a new one is told what is true now."""
    made: list[FaultyStore] = []

    def wrap(store: Any) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[0]

    playhead, elsewhere = await open_playhead(wrap), await open_playhead()
    out = await elsewhere.produce("s")
    await out.append("a")
    tail = playhead.tail("s")
    assert (await anext(tail)).text == "a"
    feed = playhead._readers.feeds["s"]
    await out.close()
    await until(lambda: feed.info is not None and feed.info.outcome is not None)
    if then == "away":
        made[0].fail_everything(True)
        feed.wake(None, None)
    else:
        await elsewhere.delete("s")
        await until(lambda: feed.stale)
    if then == "made again":
        await (await elsewhere.produce("s")).close()
        with pytest.raises(StreamNotFound):
            await feed.refresh()
        assert feed.error is not None
    assert await rest(tail) == []
    assert tail.outcome is not None
    assert tail.outcome.kind is OutcomeKind.COMPLETED
    if then == "made again":
        assert await follow(playhead, "s") == []
    else:
        with pytest.raises(StreamNotFound if then == "deleted" else StoreUnavailable):
            await playhead.tail("s").open()
    made[0].fail_everything(False)


@pytest.mark.proves("P2.4")
async def test_p2_unknown_streams_are_not_found(playhead: Playhead) -> None:
    for call in (follow(playhead, "unknown"), playhead.read("unknown"), stored_texts(playhead, "unknown")):
        with pytest.raises(StreamNotFound):
            await call


async def test_read_takes_pages_and_events_takes_everything(playhead: Playhead) -> None:
    await playhead.start(say(*[f"{n:05}" + "x" * 10_000 for n in range(200)]), stream_id="s")
    await finished(playhead, "s")
    first = await playhead.read("s")
    assert 0 < len(first.events) < 200
    got, cursor = [], None
    while (page := await playhead.read("s", after=cursor)).events:
        got += page.events
        cursor = page.cursor
    assert [event.text[:5] for event in got] == [f"{n:05}" for n in range(200)]
    assert [text[:5] for text in await stored_texts(playhead, "s")] == [f"{n:05}" for n in range(200)]


async def test_read_and_events_do_not_wait(playhead: Playhead) -> None:
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await has_stored(playhead, "s", 1)
    async with asyncio.timeout(30):
        assert [event.text for event in (await playhead.read("s")).events] == ["a"]
        assert await stored_texts(playhead, "s") == ["a"]
        assert (await playhead.read("s", after=(await playhead.info("s")).cursor)).events == []


async def test_read_shows_what_another_process_just_stored(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    out = await playhead.produce("s")
    async with other.tail("s"):
        for n in range(1, 40):
            await out.append(f"{n}")
            await out.flush()
            assert (await other.read("s")).events[-1].text == f"{n}"
            assert (await stored_texts(other, "s"))[-1] == f"{n}"
    await out.close()


# ---- slots ---------------------------------------------------------------------------------------------


async def test_readers_per_owner_are_limited_and_slots_come_back(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(readers_per_owner_max=2, authorize=lambda *_: True)
    source = Scripted("a")
    await playhead.start(source, stream_id="s", owner="ann", thread_id="t")
    await source.said.wait()
    tails = [playhead.tail("s", principal="ann") for _ in range(3)]
    await tails[0].open()
    await anext(tails[1])
    with pytest.raises(TooManyReaders) as refused:
        await tails[2].open()
    assert (refused.value.limit, refused.value.retryable) == (2, True)
    with pytest.raises(TooManyReaders):
        await playhead.read("s", principal="ann")
    async with playhead.tail("s", principal="bob"):
        pass
    waits = [asyncio.create_task(playhead.wait("s", principal="ann")) for _ in range(5)]  # not readers
    await tails[0].aclose()
    await tails[2].open()
    tails[1] = None  # dropped without a word
    gc.collect()
    await (late := playhead.tail("s", principal="ann")).open()
    with pytest.raises(TooManyReaders):
        await playhead.tail("s", principal="ann").open()
    reading = asyncio.create_task(anext(tails[2]))
    await reading
    reading = asyncio.create_task(anext(tails[2]))
    await until(partial(getattr, tails[2], "is_waiting"))
    reading.cancel()
    await asyncio.wait({reading})
    source.go_on.set()
    await asyncio.gather(*waits)
    assert [event async for event in tails[2]] == []  # reading to the end gives the slot back
    assert [event.text async for event in late] == ["a"]
    del tails, late, reading
    await until(lambda: not playhead._readers.counts)
    assert not playhead._readers.feeds


async def test_failed_openings_take_no_slot(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(readers_per_owner_max=1)
    await recorded(playhead, 3)
    info = await playhead.info("s")
    ahead, diverged = Cursor(info.mark, info.epoch, 9), Cursor(info.mark, info.epoch + 1, 1)
    for _ in range(3):
        for stream_id, after in (("unknown", None), ("s", str(ahead)), ("s", str(diverged))):
            with pytest.raises(Exception, match=r"no such stream|cursor is at|lost events"):
                await playhead.tail(stream_id, after=after).open()
    assert len(await follow(playhead, "s")) == 3


# ---- many readers --------------------------------------------------------------------------------------


@pytest.mark.proves("P8.1")
async def test_p8_a_stalled_reader_delays_nobody(playhead: Playhead) -> None:
    stalled = playhead.tail("s")
    source = Scripted("a", then=tuple(f"{n}" for n in range(20_000)))
    await playhead.start(source, stream_id="s")
    assert (await anext(stalled)).text == "a"
    quick = asyncio.create_task(follow_texts(playhead, "s"))
    await source.said.wait()
    source.go_on.set()
    assert len(await quick) == 20_001
    assert (await finished(playhead, "s")).kind is OutcomeKind.COMPLETED
    assert len([event async for event in stalled]) == 20_000


@pytest.mark.proves("P8.2")
async def test_p8_memory_for_readers_is_bounded(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(cache_max_bytes=500_000)
    source = Scripted("a", then=("x" * 10_000,) * 500)
    await playhead.start(source, stream_id="s")
    tails = [playhead.tail("s") for _ in range(5)]
    for tail in tails:
        assert (await anext(tail)).text == "a"
    await source.said.wait()
    source.go_on.set()
    await finished(playhead, "s")
    cache = playhead._readers._cache
    for _ in range(100):
        for tail in tails:
            assert len((await anext(tail)).data) == 10_000
        assert cache._size_bytes <= 500_000
        assert sum(2 * batch.size_bytes for batch in cache._batches.values()) <= 500_000
    for tail in tails:
        assert len([event async for event in tail]) == 400
    assert not cache._batches
    assert cache._size_bytes == 0


@pytest.mark.proves("P9.1")
async def test_p9_many_readers_cost_the_store_one_watch_and_few_reads(open_playhead: OpenPlayhead) -> None:
    class Counting(FaultyStore):
        calls: dict[str, int]

        def __getattribute__(self, name: str) -> Any:
            if name in {"load", "read", "watch"}:
                calls = object.__getattribute__(self, "calls")
                calls[name] = calls.get(name, 0) + 1
            return super().__getattribute__(name)

    stores: list[Counting] = []

    def wrap(store: Any) -> Counting:
        counting = Counting(store)
        counting.calls = {}
        stores.append(counting)
        return counting

    playhead = await open_playhead(wrap)
    source = Scripted(*["x"] * 100, then=tuple("y" * 100))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await has_stored(playhead, "s", 100)
    stores[0].calls.clear()
    readings = [asyncio.create_task(follow(playhead, "s")) for _ in range(300)]
    await until(lambda: playhead._readers.counts.total() == 300)
    source.go_on.set()
    for got in await asyncio.gather(*readings):
        assert len(got) == 200
    assert stores[0].calls.get("watch") == 1
    assert stores[0].calls.get("load", 0) + stores[0].calls.get("read", 0) <= 20


async def test_one_reader_hears_of_another_processs_events(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    out = await playhead.produce("s")
    tail = other.tail("s")
    await tail.open()
    loop = asyncio.get_running_loop()
    medians: list[float] = []
    while not medians or medians[-1] >= 0.05:  # a store that looks too seldom is late in every round
        assert len(medians) < 5, medians
        delays: list[float] = []
        for n in range(20):
            await out.append(f"{n}")
            await out.flush()
            stored_at = loop.time()
            assert (await asyncio.wait_for(anext(tail), 15)).text == f"{n}"
            delays.append(loop.time() - stored_at)
        medians.append(statistics.median(delays))
    await out.close()
    assert [event async for event in tail] == []


@pytest.mark.proves("P2.1")
async def test_p2_a_tail_is_for_one_task_at_a_time(playhead: Playhead) -> None:
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    tail = playhead.tail("s")
    assert (await anext(tail)).text == "a"
    waiting = asyncio.create_task(anext(tail))
    await until(lambda: tail.is_waiting)
    with pytest.raises(RuntimeError, match="another task"):
        await anext(tail)
    source.go_on.set()
    with pytest.raises(StopAsyncIteration):
        await waiting
