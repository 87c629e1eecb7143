"""Producers: driven sources of every kind, writers by hand, and what becomes of both."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest
from conftest import OpenPlayhead
from streaming import Scripted, Stubborn, at_once, finished, follow, follow_texts, has_stored, say, stored_texts, until

import playhead as front_door
from playhead import Fenced, OutcomeKind, Playhead, ProducerActive, StreamClosed, StreamNotFound, event, stopping
from playhead.errors import AppendRepeat, EventTooLarge, InvalidEvent, StoreFull, StoreUnavailable, StreamTooLarge
from playhead.model import COMPLETED, Draft, Outcome
from playhead.testing.faults import FaultyStore

MIB = 1024 * 1024


# ---- what sources yield --------------------------------------------------------------------------------


@pytest.mark.proves("P1.3")
async def test_p1_everything_survives_as_it_was_yielded(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    big = bytes(range(256)) * (MIB // 256)
    texts = [
        "",
        "\0",
        "\r",
        "\n",
        "\r\n\r\n",
        "data: x\n\nevent: y",
        "\ud800",
        "a\udfff",
        "☃ 𝄞 שלום",
        "\u2028",
        "x" * MIB,
    ]
    items = [*texts, b"", b"\xff\0\xfe", bytearray(b"ba"), memoryview(b"mv"), big, None, 0, 1.5, True, [], {"a": [1]}]
    items += [event("tool", {"ü": "\0"}), event("empty"), event("bytes-of-mine", b"\x80"), event("a b:c", "\r\n")]
    await playhead.start(say(*items), stream_id="s")
    for at in (playhead, other):
        events = await follow(at, "s")
        assert [e.offset for e in events] == list(range(1, len(items) + 1))
        assert [e.text for e in events[: len(texts)]] == texts
        assert {e.type for e in events[: len(texts)]} == {"text"}
        rest = events[len(texts) :]
        assert [e.data for e in rest[:5]] == [b"", b"\xff\0\xfe", b"ba", b"mv", big]
        assert {e.type for e in rest[:5]} == {"bytes"}
        assert [e.json() for e in rest[5:11]] == [None, 0, 1.5, True, [], {"a": [1]}]
        assert {e.type for e in rest[5:11]} == {"json"}
        assert [(e.type, e.data) for e in rest[11:]] == [
            ("tool", '{"ü":"\\u0000"}'.encode()),
            ("empty", b""),
            ("bytes-of-mine", b"\x80"),
            ("a b:c", b"\r\n"),
        ]


@pytest.mark.parametrize("garbage", [object(), {1, 2}, float("nan"), {"x": object()}, [[b"bytes"]], 1j])
async def test_garbage_fails_the_stream_and_keeps_what_came_before(playhead: Playhead, garbage: Any) -> None:
    await playhead.start(say("fine", garbage, "never"), stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "a source may yield" in outcome.error
    assert await stored_texts(playhead, "s") == ["fine"]


def test_events_have_proper_types() -> None:
    for name in ("", "x" * 256, "a\nb", "\0", "\ud800"):
        with pytest.raises(InvalidEvent):
            event(name)
    with pytest.raises(InvalidEvent):
        event("x", object())


async def test_an_event_may_be_so_large(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(event_max_bytes=10)
    await playhead.start(say("x" * 10, "y" * 11), stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "10 bytes" in outcome.error
    assert await stored_texts(playhead, "s") == ["x" * 10]
    async with await playhead.produce("w") as out:
        with pytest.raises(EventTooLarge) as refused:
            await out.append("fine", "z" * 11)
        assert refused.value.limit == 10
        await out.append("after")
    assert await follow_texts(playhead, "w") == ["fine", "after"]


async def test_a_stream_may_be_so_large(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(stream_max_bytes=1000)

    async def endless():
        while True:
            yield "x" * 100
            await asyncio.sleep(0)

    await playhead.start(endless, stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "1,000 bytes" in outcome.error
    stored = await stored_texts(playhead, "s")
    assert 1 <= len(stored) <= 10
    writer = await playhead.produce("w")
    await writer.append("x" * 1001)
    with pytest.raises(StreamTooLarge):
        await writer.flush()
    with pytest.raises(StreamTooLarge):
        await writer.append("y")
    assert (await writer.close()).outcome.kind is OutcomeKind.FAILED


@pytest.mark.parametrize("at", ["await", "yield"])
@pytest.mark.parametrize("how", ["cancel", "shutdown", "take-over"])
async def test_a_source_is_told_why_it_is_stopped(open_playhead: OpenPlayhead, how: str, at: str) -> None:
    (playhead, faults), other = await faulty(open_playhead), await open_playhead()
    told: list[Outcome | None] = []

    async def source() -> AsyncIterator[str]:
        told.append(stopping())
        try:
            yield "a"
            while at == "yield":
                yield "x" * MIB
            await asyncio.Event().wait()
        finally:
            told.append(stopping())

    with faults.held():  # so that a source which yields is left at a yield
        await playhead.start(source, stream_id="s")
        producer = playhead._producers["s"]
        await until(lambda: bool(told) and producer.is_crowded == (at == "yield"))
        if how == "cancel":
            await other.cancel("s", reason="enough")
        elif how == "take-over":
            await (await other.produce("s", take_over=True)).close()
        else:
            ending = asyncio.create_task(playhead.drain(0))
        await until(lambda: len(told) == 2)
    if how == "shutdown":
        await ending
    assert told[0] is stopping() is None
    assert told[1] is not None
    assert (told[1].kind, told[1].reason) == {
        "cancel": (OutcomeKind.CANCELLED, "enough"),
        "shutdown": (OutcomeKind.INTERRUPTED, "shutdown"),
        "take-over": (OutcomeKind.FAILED, None),
    }[how]
    assert (how == "take-over") == ("took this stream over" in str(told[1].error))


@pytest.mark.parametrize("items", [("a", "b"), ("a", object())])
async def test_a_source_is_closed_in_the_context_in_which_it_ran(playhead: Playhead, items: tuple[Any, ...]) -> None:
    """So it may reset what it has set, as tracers do; also when it is left at a yield."""
    mine: ContextVar[str] = ContextVar("mine")
    told: list[Outcome | None] = []

    async def source() -> AsyncIterator[Any]:
        token = mine.set("set")
        try:
            for item in items:
                yield item
        finally:
            told.append(stopping())
            mine.reset(token)
            told.append(stopping())

    await playhead.start(source, stream_id="s")
    await finished(playhead, "s")
    assert told == [None, None]


async def test_a_source_that_ignores_that_its_stream_is_full_is_abandoned(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(stream_max_bytes=10, cancel_grace_s=0.1)
    source = Stubborn("x" * 11)
    await playhead.start(source, stream_id="s")
    assert (await finished(playhead, "s")).kind is OutcomeKind.FAILED
    source.let_go.set()
    await asyncio.wait_for(source.ended.wait(), 15)


async def test_many_types_in_one_stream(playhead: Playhead) -> None:
    items = [event(f"type {n % 700}", str(n)) for n in range(3000)]
    await playhead.start(say(*items), stream_id="s")
    events = await follow(playhead, "s")
    assert [(e.type, e.text) for e in events] == [(f"type {n % 700}", str(n)) for n in range(3000)]


async def test_big_and_small_events_mixed_stay_in_order(playhead: Playhead) -> None:
    sizes = [n * 7919 % 300_000 if n % 50 == 0 else n % 10 for n in range(1000)]
    await playhead.start(say(*["x" * size for size in sizes]), stream_id="s")
    assert [len(event.data) for event in await follow(playhead, "s")] == sizes


# ---- sources of every kind -----------------------------------------------------------------------------


async def test_kinds_of_sources(playhead: Playhead) -> None:
    async def generator():
        yield "x"

    async def factory():
        return generator()

    class Iterable:
        def __aiter__(self):
            return generator()

    class Iterator:
        def __init__(self):
            self.left = ["x"]

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    for n, source in enumerate([generator, generator(), factory, factory(), Iterable(), Iterator(), Iterator]):
        await playhead.start(source, stream_id=f"s{n}")
        assert await follow_texts(playhead, f"s{n}") == ["x"], source


@pytest.mark.parametrize("what", [None, 42, "text", ["list"], lambda: None, lambda: ["x"], lambda: 1 / 0, dict])
async def test_what_is_no_source_fails_with_a_reason(playhead: Playhead, what: Any) -> None:
    await playhead.start(what, stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "async iterator" in outcome.error or "ZeroDivisionError" in outcome.error
    assert await follow(playhead, "s") == []


async def test_an_unwanted_coroutine_is_closed(playhead: Playhead) -> None:
    async def factory():
        return say("x")

    await playhead.start(say("first"), stream_id="s")
    await playhead.start(factory(), stream_id="s")  # a coroutine that was never awaited would warn: an error here


async def test_odd_endings_of_sources(open_playhead: OpenPlayhead, caplog: pytest.LogCaptureFixture) -> None:
    playhead = await open_playhead(cancel_grace_s=0.1)

    async def raises_at_once():
        raise ValueError("no words")
        yield

    async def never_yields():
        return
        yield

    async def cancels_itself():
        yield "a"
        raise asyncio.CancelledError

    class ClosesBadly:
        def __init__(self, aclose):
            self.aclose = aclose

        def __aiter__(self):
            return say("a")

    async def hangs():
        await asyncio.Event().wait()

    async def breaks():
        raise RuntimeError("broken")

    def breaks_at_once():
        raise RuntimeError("broken")

    async def hanging_finally():
        try:
            yield "a"
        finally:
            await asyncio.Event().wait()

    cases = {
        "raises": (raises_at_once, OutcomeKind.FAILED, "ValueError: no words", []),
        "silent": (never_yields, OutcomeKind.COMPLETED, None, []),
        "cancels itself": (cancels_itself, OutcomeKind.FAILED, "cancelled from inside", ["a"]),
        "aclose hangs": (ClosesBadly(hangs), OutcomeKind.COMPLETED, None, ["a"]),
        "aclose raises": (ClosesBadly(breaks), OutcomeKind.COMPLETED, None, ["a"]),
        "aclose breaks": (ClosesBadly(breaks_at_once), OutcomeKind.COMPLETED, None, ["a"]),
        "aclose is sync": (ClosesBadly(lambda: None), OutcomeKind.COMPLETED, None, ["a"]),
    }
    with caplog.at_level(logging.CRITICAL, "playhead"):
        for name, (source, kind, error, texts) in cases.items():
            await playhead.start(source, stream_id=name)
            outcome = await finished(playhead, name)
            assert outcome.kind is kind, name
            assert (error or "") in (outcome.error or ""), name
            assert await stored_texts(playhead, name) == texts, name
        await playhead.start(hanging_finally, stream_id="hangs")
        await asyncio.sleep(0)
        await playhead.cancel("hangs")
        assert (await finished(playhead, "hangs")).kind is OutcomeKind.CANCELLED


async def test_a_generator_that_somebody_else_runs_already(playhead: Playhead) -> None:
    source = Scripted("a")
    generator = source()
    running = asyncio.create_task(anext(generator))
    assert await running == "a"
    running = asyncio.create_task(anext(generator))
    await source.said.wait()
    await playhead.start(generator, stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "running" in outcome.error
    running.cancel()
    await asyncio.wait({running})
    await generator.aclose()


async def test_p8_a_source_that_never_suspends_neither_blocks_the_loop_nor_fills_memory(playhead: Playhead) -> None:
    async def flood():
        while True:
            yield "x"

    await playhead.start(flood, stream_id="s")
    longest, last = 0.0, time.thread_time()  # what the loop itself ran: others may keep it from running for long
    for _ in range(100):
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        assert len(playhead._producers["s"]._datas) <= 8192
    assert longest < 0.5
    await playhead.cancel("s")
    assert (await finished(playhead, "s")).kind is OutcomeKind.CANCELLED
    info = await playhead.info("s")
    assert info.tail > 0
    assert len(await stored_texts(playhead, "s")) == info.tail


async def test_error_texts_are_bounded(playhead: Playhead) -> None:
    async def verbose():
        raise ValueError("x" * 1_000_000)
        yield

    await playhead.start(verbose, stream_id="s")
    assert len((await finished(playhead, "s")).error) <= 2000


# ---- writers by hand -----------------------------------------------------------------------------------


async def test_a_writer_writes(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    async with await playhead.produce("s", owner="ann", thread_id="t", metadata={"m": 1}) as out:
        assert out.stream_id == "s"
        assert out.epoch == (await other.info("s", principal="ann")).epoch
        await out.append("Hello", " world")
        await out.flush()
        assert await stored_texts(other, "s", principal="ann") == ["Hello", " world"]
        assert not out.cancelled.is_set()
    info = await other.info("s", principal="ann")
    assert info.outcome == COMPLETED
    assert (info.thread_id, info.metadata) == ("t", {"m": 1})
    with pytest.raises(StreamClosed):
        await out.append("late")
    assert await out.close() == info
    async with await playhead.produce() as made:
        await made.append("x")
    assert await follow_texts(playhead, made.stream_id) == ["x"]


async def test_writers_take_turns(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    reading, before = None, 0
    for turn in range(6):
        async with await both[turn % 2].produce("s", keep_open=True) as out:
            assert out.epoch > before
            before = out.epoch
            reading = reading or asyncio.create_task(follow_texts(both[1], "s"))
            await out.append(f"turn {turn}")
        with pytest.raises((StreamClosed, Fenced)):
            await out.append("not my turn any more")
    assert (await both[0].info("s")).is_live
    async with await both[0].produce("s") as out:
        await out.append("last")
    assert await reading == [f"turn {turn}" for turn in range(6)] + ["last"]
    with pytest.raises(StreamClosed):
        await both[1].produce("s", take_over=True)


@pytest.mark.proves("P6.1", "P6.4")
async def test_p6_take_over_fences_the_writer_before(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    old = await playhead.produce("s")
    await old.append("old")
    await old.flush()
    with pytest.raises(ProducerActive):
        await other.produce("s")
    new = await other.produce("s", take_over=True)
    assert new.epoch == old.epoch + 1
    await until(lambda: old._producer._broken is not None)
    with pytest.raises(Fenced):
        await old.append("late")
    assert await old.close() is None
    await new.append("new")
    await new.close()
    assert await follow_texts(playhead, "s") == ["old", "new"]


@pytest.mark.proves("P6.1")
async def test_p6_a_driven_source_that_is_taken_over_is_stopped(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("old", then=("never",))
    await playhead.start(source, stream_id="s")
    await has_stored(playhead, "s", 1)
    async with await other.produce("s", take_over=True) as out:
        await asyncio.wait_for(source.ended.wait(), 15)
        await out.append("new")
    assert await follow_texts(playhead, "s") == ["old", "new"]
    assert (await playhead.info("s")).outcome.kind is OutcomeKind.COMPLETED


async def test_a_failing_block_fails_the_stream(playhead: Playhead) -> None:
    async def work() -> None:
        async with await playhead.produce("s") as out:
            await out.append("a")
            raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        await work()
    outcome = await finished(playhead, "s")
    assert (outcome.kind, outcome.error) == (OutcomeKind.FAILED, "ZeroDivisionError: division by zero")
    assert await stored_texts(playhead, "s") == ["a"]


async def test_cancelling_the_blocks_task_interrupts_the_stream(playhead: Playhead) -> None:
    inside = asyncio.Event()

    async def work():
        async with await playhead.produce("s") as out:
            await out.append("a")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome = await finished(playhead, "s")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-cancelled")
    assert await stored_texts(playhead, "s") == ["a"]


async def test_p4_a_writer_hears_of_a_cancel(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(cancel_grace_s=30), await open_playhead()
    async with await playhead.produce("s") as out:
        await out.append("a")
        await other.cancel("s", reason="enough")
        await asyncio.wait_for(out.cancelled.wait(), 15)
        await out.append("last words")
    outcome = await finished(other, "s")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.CANCELLED, "enough")
    assert await stored_texts(other, "s") == ["a", "last words"]


@pytest.mark.proves("P4.5")
async def test_p4_a_writer_that_does_not_listen_is_closed_after_the_grace_period(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(cancel_grace_s=0.1)
    out = await playhead.produce("s")
    await out.append("a")
    await playhead.cancel("s")
    assert (await finished(playhead, "s")).kind is OutcomeKind.CANCELLED
    await until(lambda: not playhead._producers)
    with pytest.raises(StreamClosed):
        await out.append("late")


async def test_p4_a_cancel_between_two_writers_closes(playhead: Playhead) -> None:
    async with await playhead.produce("s", keep_open=True) as out:
        await out.append("a")
    info = await playhead.cancel("s", reason="enough")
    assert (info.outcome.kind, info.outcome.reason) == (OutcomeKind.CANCELLED, "enough")


async def test_a_writer_hears_of_a_delete(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    out = await playhead.produce("s")
    await out.append("a")
    await other.delete("s")
    await until(lambda: not playhead._producers)
    with pytest.raises(StreamNotFound):
        await out.append("b")
    assert await out.close() is None


async def test_p7_a_writer_that_is_dropped_ends_its_stream(
    playhead: Playhead, caplog: pytest.LogCaptureFixture
) -> None:
    out = await playhead.produce("s")
    await out.append("a")
    del out
    outcome = await finished(playhead, "s")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")
    assert "dropped" in caplog.text
    assert await stored_texts(playhead, "s") == ["a"]


async def test_racing_producers_of_one_stream_have_one_winner(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    for turn in range(10):
        results = await at_once(*[lambda at=at, turn=turn: at.produce(f"s{turn}") for at in both * 3])
        writers = [result for result in results if isinstance(result, front_door.Writer)]
        assert len(writers) == 1
        assert sum(isinstance(error, ProducerActive) for error in results) == 5
        await writers[0].append("won")
        await writers[0].close()
        assert await follow_texts(both[0], f"s{turn}") == ["won"]


async def test_racing_take_overs_leave_one_writer(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    for turn in range(10):
        name = f"s{turn}"
        writers = await at_once(*[lambda at=at, name=name: at.produce(name, take_over=True) for at in both * 3])
        assert len({writer.epoch for writer in writers}) == 6
        newest = max(writers, key=lambda writer: writer.epoch)
        stored = 0
        for writer in writers:
            try:
                await writer.append(f"epoch {writer.epoch}")
                await writer.flush()
                stored += 1
                assert writer is newest
            except Fenced:
                assert writer is not newest
        assert stored == 1
        await newest.close()
        assert await follow_texts(both[1], name) == [f"epoch {newest.epoch}"]
        for writer in writers:
            await writer.close()


async def test_appends_wait_while_the_store_is_behind(open_playhead: OpenPlayhead) -> None:
    faults: list[FaultyStore] = []

    def wrap(store: Any) -> FaultyStore:
        faults.append(FaultyStore(store))
        return faults[0]

    playhead = await open_playhead(wrap)
    out = await playhead.produce("s")
    with faults[0].held():
        filling = asyncio.create_task(out.append(*["x" * 1000] * 3000))
        await until(lambda: out._producer.is_crowded)
        await asyncio.sleep(0.02)
        assert not filling.done()
        assert out._producer._pending_bytes < 2 * MIB
    await asyncio.wait_for(filling, 60)
    await out.close()
    assert len(await follow(playhead, "s")) == 3000


# ---- trouble with the store ----------------------------------------------------------------------------


async def faulty(open_playhead: OpenPlayhead, **settings: Any) -> tuple[Playhead, FaultyStore]:
    made: list[FaultyStore] = []

    def wrap(store: Any) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[0]

    return await open_playhead(wrap, **settings), made[0]


async def test_appends_are_retried_while_the_store_is_away(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    source = Scripted("a", then=("b", "c"))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    faults.fail_appends(3)
    source.go_on.set()
    assert await follow_texts(playhead, "s") == ["a", "b", "c"]
    assert faults.failed == 3
    assert (await playhead.info("s")).outcome.kind is OutcomeKind.COMPLETED


@pytest.mark.proves("P1.5")
async def test_p1_an_append_whose_answer_was_lost_is_stored_once(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    source = Scripted("a", then=tuple("bcdef"))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    faults.lose_append_answers(2)
    source.go_on.set()
    assert await follow_texts(playhead, "s") == list("abcdef")
    assert faults.lost == 2
    assert (await playhead.info("s")).tail == 6


async def test_a_repeat_that_was_not_asked_for_is_an_error(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    faults.fail_appends(1, AppendRepeat("somebody else wrote this"))
    source.go_on.set()
    assert (await finished(playhead, "s")).kind is OutcomeKind.FAILED


@pytest.mark.parametrize("error", [StoreFull("full"), StoreUnavailable("away")])
async def test_patience_has_an_end(open_playhead: OpenPlayhead, error: Any) -> None:
    playhead, faults = await faulty(open_playhead, store_patience_s=0.2)
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    faults.fail_appends(10**9, error)
    source.go_on.set()
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error == str(error)
    assert await stored_texts(playhead, "s") == ["a"]
    assert source.ended.is_set()


async def test_an_error_that_will_not_pass_fails_the_stream_at_once(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    faults.fail_appends(1, front_door.errors.StoreReadOnly("read-only"))
    await playhead.start(say("a"), stream_id="s")
    outcome = await finished(playhead, "s")
    assert (outcome.kind, outcome.error) == (OutcomeKind.FAILED, "read-only")


async def test_p7_a_close_that_the_store_refused_for_too_long_is_stored_later(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead, store_patience_s=0.1, lease_s=30)
    other = await open_playhead(lease_s=30)  # so long that only the stream's own instance can close it
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    reading = asyncio.create_task(follow_texts(other, "s"))
    faults.fail_everything(True)
    source.go_on.set()
    await until(lambda: not playhead._producers)
    assert (await other.info("s")).is_live
    faults.fail_everything(False)
    assert (await reading)[0] == "a"
    assert (await finished(other, "s")).kind in {OutcomeKind.FAILED, OutcomeKind.COMPLETED}


async def test_p7_a_stream_whose_creation_was_not_answered_does_not_stay_live(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead, lease_s=1.0)
    for number, call in enumerate([playhead.start, playhead.produce]):
        name = f"s{number}"
        faults.lose_apply_answers(1)
        arguments = (Scripted("x"),) if number == 0 else ()
        with pytest.raises(StoreUnavailable):
            await call(*arguments, stream_id=name, thread_id="t")
        outcome = await finished(playhead, name)
        assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")
        await until(lambda: not playhead._adrift)


async def test_p7_a_release_that_was_not_answered_is_repeated(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    async with await playhead.produce("s", keep_open=True) as out:
        await out.append("a")
        await out.flush()
        faults.fail_applies(2)
    async with await playhead.produce("s") as out:
        await out.append("b")
    assert await follow_texts(playhead, "s") == ["a", "b"]


async def test_p7_a_turn_whose_last_events_were_refused_fails_the_stream(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(stream_max_bytes=10)
    out = await playhead.produce("s")
    await out.append("x" * 11)
    with pytest.raises(StreamTooLarge):
        await out.release()
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert "10 bytes" in outcome.error


async def test_p4_a_cancel_is_seen_though_the_store_was_away_meanwhile(open_playhead: OpenPlayhead) -> None:
    playhead, faults = await faulty(open_playhead)
    other = await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    faults.fail_everything(True)
    await other.cancel("s")
    await asyncio.sleep(0.1)
    faults.fail_everything(False)
    assert (await finished(other, "s")).kind is OutcomeKind.CANCELLED


async def test_close_does_not_wait_for_a_store_that_is_gone(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.streams._LAST_WORDS_S", 0.2)
    playhead, faults = await faulty(open_playhead, cancel_grace_s=0.1)
    other = await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await has_stored(playhead, "s", 1)
    faults.fail_everything(True)
    await asyncio.wait_for(playhead.close(), 15)  # of 30 s, which are its patience with a store
    outcome = await finished(other, "s")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")


def test_outcomes_can_be_raised() -> None:
    COMPLETED.raise_for_failure()
    with pytest.raises(front_door.PlayheadError, match="cancelled: enough") as failed:
        Outcome(OutcomeKind.CANCELLED, reason="enough").raise_for_failure()
    assert failed.value.outcome == "cancelled"


@pytest.mark.parametrize("made", [Draft("x", "text"), Draft("playhead.close", b"{}"), Draft(7, b"")], ids=str)  # type: ignore[arg-type]
async def test_events_made_past_the_front_door_fail_their_stream_only(playhead: Playhead, made: Draft) -> None:
    await playhead.start(say("before", made), stream_id="s")
    outcome = await finished(playhead, "s")
    assert outcome.kind is OutcomeKind.FAILED
    assert await stored_texts(playhead, "s") == ["before"]
