"""Playhead: starting, finding, waiting, cancelling, deleting, and who may do so."""

import asyncio
from functools import partial

import pytest
from conftest import OpenPlayhead
from streaming import (
    Scripted,
    Stubborn,
    at_once,
    count,
    finished,
    follow,
    follow_texts,
    has_stored,
    rest,
    say,
    stored_texts,
    until,
)

from playhead import (
    Draining,
    OutcomeKind,
    Playhead,
    Query,
    Status,
    StreamInfo,
    StreamNotFound,
    ThreadBusy,
)
from playhead.errors import (
    BadRequest,
    Conflict,
    IdempotencyMismatch,
    InvalidSetting,
    InvalidStreamId,
    LimitExceeded,
    StreamIdTaken,
    TooManyLiveStreams,
)
from playhead.feed import Feed
from playhead.log import Command, Create
from playhead.model import Outcome
from playhead.store import Applied
from playhead.stores import open_store


async def test_start_returns_before_the_first_event_and_readers_get_everything(playhead: Playhead) -> None:
    source = Scripted("Hello", then=(" world",))
    info = await playhead.start(source, metadata={"model": "demo"})
    assert (info.status, info.tail, info.metadata) == (Status.LIVE, 0, {"model": "demo"})
    await source.said.wait()
    async with playhead.tail(info.stream_id) as tail:
        assert (await anext(tail)).text == "Hello"
        source.go_on.set()
        assert [event.text async for event in tail] == [" world"]
        assert tail.outcome
        assert tail.outcome.kind is OutcomeKind.COMPLETED
    assert await stored_texts(playhead, info.stream_id) == ["Hello", " world"]
    assert await stored_texts(playhead, info.stream_id, principal=None) == ["Hello", " world"]


async def test_p3_the_source_never_runs_in_the_starters_task(playhead: Playhead) -> None:
    tasks = []

    async def source():
        tasks.append(asyncio.current_task())
        yield "x"

    info = await playhead.start(source)
    await finished(playhead, info.stream_id)
    assert tasks[0] is not asyncio.current_task()


@pytest.mark.proves("P3.1")
async def test_p3_neither_starter_nor_reader_ends_the_stream_by_leaving(playhead: Playhead) -> None:
    source = Scripted("a", then=("b",))

    async def request() -> None:
        await playhead.start(source, stream_id="s")
        async for _ in playhead.tail("s"):
            pass

    request_task = asyncio.create_task(request())
    await source.said.wait()
    request_task.cancel()
    await asyncio.wait({request_task})
    assert not source.ended.is_set()
    source.go_on.set()
    assert await follow_texts(playhead, "s") == ["a", "b"]


# ---- idempotent starts ---------------------------------------------------------------------------------


@pytest.mark.proves("P7.3")
@pytest.mark.parametrize("same", [{"stream_id": "s"}, {"idempotency_key": "k", "owner": "ann"}])
async def test_p7_racing_starts_make_one_stream_and_run_the_source_once(
    open_playhead: OpenPlayhead, same: dict[str, str]
) -> None:
    both = [await open_playhead(), await open_playhead()]
    sources = [Scripted("once") for _ in range(10)]
    starts = [partial(both[turn % 2].start, source, **same) for turn, source in enumerate(sources)]
    infos = await at_once(*starts)
    assert len({info.stream_id for info in infos}) == 1
    await until(lambda: sum(source.runs for source in sources) == 1)
    for source in sources:
        source.go_on.set()
    principal = same.get("owner")
    assert await follow_texts(both[0], infos[0].stream_id, principal=principal) == ["once"]
    assert sum(source.runs for source in sources) == 1


async def test_p7_a_repeated_start_closes_the_source_that_is_not_wanted(playhead: Playhead) -> None:
    await playhead.start(say("first"), stream_id="s")
    await finished(playhead, "s")
    again = count(3)
    info = await playhead.start(again, stream_id="s")
    assert info.outcome
    assert await anext(again, "closed") == "closed"
    assert await follow_texts(playhead, "s") == ["first"]


async def test_p7_the_same_key_with_another_request_is_refused(playhead: Playhead) -> None:
    await playhead.start(say("x"), idempotency_key="k", owner="ann", fingerprint="1", stream_id="s")
    with pytest.raises(IdempotencyMismatch):
        await playhead.start(say("x"), idempotency_key="k", owner="ann", fingerprint="2")
    with pytest.raises(IdempotencyMismatch):
        await playhead.start(say("x"), stream_id="s", owner="ann", fingerprint="1", thread_id="t")
    with pytest.raises(StreamIdTaken):
        await playhead.start(say("x"), stream_id="s", owner="eve", fingerprint="1")
    other = await playhead.start(say("y"), idempotency_key="k", owner="bob", fingerprint="2")
    assert other.stream_id != "s"


async def test_a_refused_start_runs_the_sources_finally(playhead: Playhead) -> None:
    closed = []

    class Source:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise StopAsyncIteration

        async def aclose(self):
            closed.append(True)

    with pytest.raises(InvalidStreamId):
        await playhead.start(Source(), stream_id="line\nbreak")
    with pytest.raises(InvalidStreamId):
        await playhead.start(Source(), stream_id="x" * 1001)
    with pytest.raises(InvalidStreamId):
        await playhead.start(Source(), stream_id="")
    await playhead.start(say("x"), stream_id="s", owner="ann")
    with pytest.raises(StreamIdTaken):
        await playhead.start(Source(), stream_id="s", owner="eve")
    assert closed == [True] * 4


# ---- threads -------------------------------------------------------------------------------------------


@pytest.mark.proves("P7.4")
async def test_p7_one_live_stream_on_a_thread(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    first = Scripted("a")
    await playhead.start(first, stream_id="one", thread_id="t")
    with pytest.raises(ThreadBusy) as busy:
        await other.start(say("b"), thread_id="t")
    assert (busy.value.thread_id, busy.value.stream_id) == ("t", "one")
    await other.start(say("c"), thread_id="another thread")
    first.go_on.set()
    await finished(other, "one")
    await other.start(say("d"), stream_id="two", thread_id="t")
    assert await follow_texts(playhead, "two") == ["d"]


@pytest.mark.proves("P7.4")
async def test_p7_supersede_waits_for_the_end_of_the_one_before(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    first = Scripted("a")
    await playhead.start(first, stream_id="one", thread_id="t", owner="ann")
    await first.said.wait()
    ended_first = []

    async def second():
        ended_first.append(first.ended.is_set())
        yield "b"

    await other.start(second, stream_id="two", thread_id="t", owner="ann", supersede=True)
    assert await follow_texts(playhead, "two", principal="ann") == ["b"]
    assert ended_first == [True]
    outcome = (await playhead.info("one", principal="ann")).outcome
    assert (outcome.kind, outcome.by, outcome.reason) == (OutcomeKind.CANCELLED, "ann", "superseded")
    assert await stored_texts(playhead, "one", principal="ann") == ["a"]


async def test_p7_racing_supersedes_leave_one_live_stream(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    sources = [Scripted(f"{n}") for n in range(6)]
    starts = [
        partial(both[n % 2].start, source, stream_id=f"s{n}", thread_id="t", supersede=True)
        for n, source in enumerate(sources)
    ]
    results = await at_once(*starts)
    assert all(isinstance(result, StreamInfo) for result in results), results
    live = await both[0].live(["t"])
    assert len(live) == 1
    for n in range(6):
        if f"s{n}" != live[0].stream_id:
            assert (await finished(both[0], f"s{n}")).reason == "superseded"
    await both[1].cancel(live[0].stream_id)
    await finished(both[0], live[0].stream_id)


@pytest.mark.proves("P12.1")
async def test_p12_a_thread_belongs_to_its_owner(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    mine = Scripted("mine")
    await playhead.start(mine, stream_id="mine", thread_id="t", owner="ann")
    for supersede in (False, True):
        with pytest.raises(StreamNotFound):
            await playhead.start(say("theirs"), thread_id="t", owner="eve", supersede=supersede)
        with pytest.raises(StreamNotFound):
            await playhead.start(say("theirs"), thread_id="t", supersede=supersede)
    with pytest.raises(StreamNotFound):
        await playhead.produce(thread_id="t", owner="eve")
    assert (await playhead.info("mine", principal="ann")).cancel is None
    mine.go_on.set()


async def test_p12_racing_supersedes_never_cancel_a_strangers_stream(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    for turn in range(20):
        starts = [
            partial(both[n].start, Scripted("x"), stream_id=f"{turn} {owner}", thread_id=f"t{turn}", owner=owner)
            for n, owner in enumerate(["ann", "eve"])
        ]
        results = await at_once(*[partial(start, supersede=True) for start in starts])
        winners = [info for info in results if isinstance(info, StreamInfo)]
        assert len(winners) == 1
        assert sum(isinstance(error, StreamNotFound) for error in results) == 1
        state = await both[0].info(winners[0].stream_id, principal=winners[0].owner)
        assert state.is_live
        assert state.cancel is None


# ---- finding -------------------------------------------------------------------------------------------


async def test_live_latest_and_find(playhead: Playhead) -> None:
    sources = [Scripted(f"{n}") for n in range(3)]
    for n, source in enumerate(sources):
        await playhead.start(source, stream_id=f"s{n}", thread_id=f"t{n}", owner="ann")
    await playhead.start(say("x"), stream_id="done", thread_id="t9", owner="ann")
    await finished(playhead, "done", principal="ann")
    live = await playhead.live(["t0", "t2", "t9", "unknown"], principal="ann")
    assert {info.stream_id for info in live} == {"s0", "s2"}
    assert await playhead.live([], principal="ann") == []
    latest = await playhead.latest("t9", principal="ann")
    assert latest
    assert latest.stream_id == "done"
    assert await playhead.latest("unknown", principal="ann") is None
    found = await playhead.find(Query(owner="ann", limit=3), principal="ann")
    assert [info.stream_id for info in found] == ["done", "s2", "s1"]
    assert await playhead.find(Query(), principal="eve") == []
    assert await playhead.latest("t9", principal="eve") is None


async def test_live_is_complete_for_many_threads(playhead: Playhead) -> None:
    for n in range(150):
        await playhead.start(Scripted("x"), thread_id=f"t{n}")
    assert len(await playhead.live([f"t{n}" for n in range(200)])) == 150


async def test_a_stream_is_listed_and_followed_before_its_first_event(playhead: Playhead) -> None:
    source = Scripted(then=("late",))
    info = await playhead.start(source, thread_id="t")
    assert [live.stream_id for live in await playhead.live(["t"])] == [info.stream_id]
    reading = asyncio.create_task(follow_texts(playhead, info.stream_id))
    await source.said.wait()
    source.go_on.set()
    assert await reading == ["late"]


# ---- cancel --------------------------------------------------------------------------------------------


@pytest.mark.proves("P4.1", "P4.3")
async def test_p4_cancel_from_another_instance_before_the_first_event(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted()
    await playhead.start(source, stream_id="s", owner="ann")
    info = await other.cancel("s", principal="ann", reason="enough")
    assert info.cancel
    outcome = await finished(other, "s", principal="ann")
    assert (outcome.kind, outcome.by, outcome.reason) == (OutcomeKind.CANCELLED, "ann", "enough")
    assert source.runs == source.ended.is_set()
    assert await follow(playhead, "s", principal="ann") == []


async def test_p4_no_cancel_is_lost_between_the_start_and_the_producers_watch(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    for turn in range(60):
        at = playhead if turn % 2 else other

        async def cancel(at: Playhead = at, stream_id: str = f"s{turn}") -> None:
            while True:
                try:
                    await at.cancel(stream_id)
                    return
                except StreamNotFound:
                    await asyncio.sleep(0)

        await at_once(partial(playhead.start, Scripted("x"), stream_id=f"s{turn}"), cancel)
        assert (await finished(playhead, f"s{turn}")).kind is OutcomeKind.CANCELLED


@pytest.mark.proves("P4.1")
async def test_p4_a_cancel_that_is_stored_before_the_producer_watches_is_obeyed(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    apply = playhead.store.apply

    async def cancelled_at_once(stream_id: str, command: Command) -> Applied:
        applied = await apply(stream_id, command)
        if isinstance(command, Create):
            await other.cancel(stream_id)
        return applied

    monkeypatch.setattr(playhead.store, "apply", cancelled_at_once)
    await playhead.start(Scripted("x"), stream_id="s")
    assert (await finished(playhead, "s")).kind is OutcomeKind.CANCELLED


@pytest.mark.proves("P4.3", "P4.4")
async def test_p4_cancel_keeps_what_was_said_and_runs_the_sources_finally(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("partial", " answer")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    reading = asyncio.create_task(follow_texts(other, "s"))
    await other.cancel("s")
    assert await reading == ["partial", " answer"]
    assert source.ended.is_set()
    assert (await other.info("s")).outcome.kind is OutcomeKind.CANCELLED


@pytest.mark.proves("P4.2")
async def test_p4_cancel_is_idempotent(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    infos = await at_once(*[partial(at.cancel, "s", reason=f"{n}") for n, at in enumerate([playhead, other] * 3)])
    assert len({info.cancel.reason for info in infos}) == 1
    closed = await finished(playhead, "s")
    assert (await other.cancel("s", reason="later")).outcome == closed
    await playhead.start(say("x"), stream_id="done")
    assert (await finished(playhead, "done")).kind is OutcomeKind.COMPLETED
    assert (await other.cancel("done")).outcome.kind is OutcomeKind.COMPLETED


@pytest.mark.proves("P4.5")
async def test_p4_a_source_that_ignores_cancellation_is_abandoned_and_fenced(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(cancel_grace_s=0.1)
    source = Stubborn("a", "b")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await playhead.cancel("s")
    assert (await finished(playhead, "s")).kind is OutcomeKind.CANCELLED
    assert source.cancels >= 1
    assert not source.ended.is_set()
    source.let_go.set()
    await asyncio.wait_for(source.ended.wait(), 15)
    assert await stored_texts(playhead, "s") == ["a", "b"]


async def test_cancel_and_close_race_to_one_end(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    kinds = set()
    for turn in range(40):
        source = Scripted("x")
        await playhead.start(source, stream_id=f"s{turn}")
        await source.said.wait()
        reading = asyncio.create_task(follow_texts(other, f"s{turn}"))

        async def end(source: Scripted = source) -> None:
            source.go_on.set()

        await at_once(end, partial([playhead, other][turn % 2].cancel, f"s{turn}"))
        kind = (await finished(playhead, f"s{turn}")).kind
        kinds.add(kind)
        assert await reading == ["x"]
        assert (await other.info(f"s{turn}")).outcome.kind is kind
        assert source.ended.is_set()
    assert kinds <= {OutcomeKind.COMPLETED, OutcomeKind.CANCELLED}


# ---- delete --------------------------------------------------------------------------------------------


async def test_delete_forgets_a_closed_stream(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    await playhead.start(say("x"), stream_id="s")
    await finished(playhead, "s")
    await other.delete("s")
    for verb in (playhead.info, playhead.read, playhead.wait, playhead.cancel, playhead.delete):
        with pytest.raises(StreamNotFound):
            await verb("s")
    with pytest.raises(StreamNotFound):
        await follow(playhead, "s")


async def test_delete_of_a_live_stream_stops_its_source_and_tells_its_readers(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s", thread_id="t")
    await source.said.wait()
    tails = [at.tail("s") for at in (playhead, other)]
    for tail in tails:
        assert (await anext(tail)).text == "a"
    await other.delete("s")
    for tail in tails:
        with pytest.raises(StreamNotFound):
            await asyncio.wait_for(anext(tail), 15)
    await asyncio.wait_for(source.ended.wait(), 15)
    await playhead.start(say("b"), stream_id="next", thread_id="t")


async def test_a_deleted_streams_events_never_show_in_a_later_one_of_the_same_id(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    first = Scripted("old 1", "old 2")
    await playhead.start(first, stream_id="s", owner="ann")
    await first.said.wait()
    stale = [at.tail("s", principal="ann") for at in (playhead, other)]
    for tail in stale:
        assert (await anext(tail)).text == "old 1"
    cursors = [tail.cursor for tail in stale]
    await other.delete("s", principal="ann")
    second = Scripted("new 1", then=("new 2",))
    await playhead.start(second, stream_id="s", owner="eve")
    await second.said.wait()
    async with playhead.tail("s", principal="eve") as tail:
        assert (await anext(tail)).text == "new 1"
    with pytest.raises(StreamNotFound):
        await playhead.read("s", principal="ann")
    for tail, cursor in zip(stale, cursors, strict=True):
        with pytest.raises(StreamNotFound):
            await rest(tail)
        with pytest.raises(Exception, match="another stream"):
            await playhead.read("s", after=cursor, principal="eve")
    await asyncio.wait_for(first.ended.wait(), 15)
    second.go_on.set()
    assert await follow_texts(other, "s", principal="eve") == ["new 1", "new 2"]
    with pytest.raises(StreamNotFound):
        await other.read("s", principal="ann")
    assert (await other.info("s", principal="eve")).outcome.kind is OutcomeKind.COMPLETED


# ---- waiting -------------------------------------------------------------------------------------------


async def test_wait_returns_the_final_state(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    waits = [asyncio.create_task(at.wait("s")) for at in (playhead, other)]
    await source.said.wait()
    source.go_on.set()
    for info in await asyncio.wait_for(asyncio.gather(*waits), 15):
        assert (info.status, info.tail, info.outcome.kind) == (Status.CLOSED, 1, OutcomeKind.COMPLETED)
    assert await playhead.wait("s") == info
    with pytest.raises(StreamNotFound):
        await playhead.wait("unknown")


@pytest.mark.proves("P2.1")
async def test_p2_who_waits_gets_a_close_that_a_deletion_follows_at_once(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits may be held up so long that it hears of both at once."""
    playhead, elsewhere = await open_playhead(), await open_playhead()
    out = await elsewhere.produce("s")
    waits, held, wait = asyncio.Event(), asyncio.Event(), Feed.wait

    async def late(feed: Feed, waiter: "asyncio.Future[None]") -> None:
        waits.set()
        await wait(feed, waiter)
        await held.wait()

    monkeypatch.setattr(Feed, "wait", late)
    waiting = asyncio.create_task(playhead.wait("s"))
    await asyncio.wait_for(waits.wait(), 30)
    feed = playhead._readers.feeds["s"]
    await out.close()
    await until(lambda: feed.info is not None and feed.info.outcome is not None)
    await elsewhere.delete("s")
    await until(lambda: feed.stale)
    held.set()
    assert (await asyncio.wait_for(waiting, 30)).outcome == Outcome(OutcomeKind.COMPLETED)


# ---- who may -------------------------------------------------------------------------------------------


@pytest.mark.proves("P12.1")
@pytest.mark.parametrize("stranger", ["eve", None])
async def test_p12_strangers_are_told_that_it_does_not_exist(playhead: Playhead, stranger: str | None) -> None:
    source = Scripted("secret")
    await playhead.start(source, stream_id="s", thread_id="t", owner="ann")
    await source.said.wait()
    for verb in (playhead.info, playhead.read, playhead.wait, playhead.cancel, playhead.delete):
        with pytest.raises(StreamNotFound) as refused:
            await verb("s", principal=stranger)
        with pytest.raises(StreamNotFound) as unknown:
            await verb("unknown", principal=stranger)
        assert str(refused.value) == str(unknown.value)
        assert {**refused.value.facts, "stream_id": ""} == {**unknown.value.facts, "stream_id": ""}
    with pytest.raises(StreamNotFound):
        await follow(playhead, "s", principal=stranger)
    with pytest.raises(StreamNotFound):
        await stored_texts(playhead, "s", principal=stranger)
    with pytest.raises(StreamNotFound):
        await playhead.produce("s", owner=stranger, take_over=True)
    assert await playhead.live(["t"], principal=stranger) == []
    assert await playhead.latest("t", principal=stranger) is None
    assert (await playhead.info("s", principal="ann")).is_live
    assert not playhead._readers.counts


@pytest.mark.parametrize("is_async", [False, True])
async def test_p12_authorize_decides(open_playhead: OpenPlayhead, is_async: bool) -> None:
    asked = []

    def decide(principal: str | None, verb: str, stream: StreamInfo) -> bool:
        asked.append((principal, verb, stream.stream_id))
        return principal == stream.owner or (principal == "bob" and verb in {"read", "list"})

    async def decide_later(principal: str | None, verb: str, stream: StreamInfo) -> bool:
        await asyncio.sleep(0)
        return decide(principal, verb, stream)

    playhead = await open_playhead(authorize=decide_later if is_async else decide)
    source = Scripted("x")
    await playhead.start(source, stream_id="s", thread_id="t", owner="ann")
    await has_stored(playhead, "s", 1, principal="ann")
    assert (await playhead.info("s", principal="bob")).is_live
    assert [event.text for event in (await playhead.read("s", principal="bob")).events] == ["x"]
    assert len(await playhead.live(["t"], principal="bob")) == 1
    for verb in (playhead.cancel, playhead.delete):
        with pytest.raises(StreamNotFound):
            await verb("s", principal="bob")
    with pytest.raises(StreamNotFound):
        await playhead.start(say("y"), thread_id="t", owner="bob")
    with pytest.raises(StreamNotFound):
        await playhead.produce("s", owner="bob")
    verbs = {verb for principal, verb, _ in asked if principal == "bob"}
    assert verbs == {"read", "list", "cancel", "delete", "start", "produce"}
    await playhead.cancel("s", principal="ann")


async def test_an_authorize_that_raises_leaves_nothing_behind(open_playhead: OpenPlayhead) -> None:
    def decide(principal: str | None, verb: str, stream: StreamInfo) -> bool:
        raise ConnectionError("memberships are away")

    playhead = await open_playhead(authorize=decide)
    await playhead.start(say("x"), stream_id="s")
    for call in (follow(playhead, "s"), playhead.read("s"), playhead.cancel("s"), playhead.wait("s")):
        with pytest.raises(ConnectionError):
            await call
    assert not playhead._readers.counts


# ---- limits --------------------------------------------------------------------------------------------


async def test_live_streams_per_owner_are_limited(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(live_per_owner_max=2)
    sources = [Scripted("x") for _ in range(5)]
    results = await at_once(*[partial(playhead.start, source, owner="ann") for source in sources])
    assert sum(isinstance(result, StreamInfo) for result in results) == 2
    errors = [result for result in results if isinstance(result, TooManyLiveStreams)]
    assert [(error.limit, error.retryable) for error in errors] == [(2, True)] * 3
    assert all(isinstance(error, LimitExceeded) for error in errors)
    await playhead.start(say("y"), owner="bob")
    for source in sources:
        source.go_on.set()
    for info in results:
        if isinstance(info, StreamInfo):
            await finished(playhead, info.stream_id, principal="ann")
    await playhead.start(say("z"), owner="ann")


# ---- life ----------------------------------------------------------------------------------------------


@pytest.mark.proves("P11.1", "P11.2")
async def test_p11_drain(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(cancel_grace_s=0.2), await open_playhead()
    quick, endless, idle = Scripted("a", then=("b",)), Scripted("c"), Scripted()
    for name, source in (("quick", quick), ("endless", endless), ("idle", idle)):
        await playhead.start(source, stream_id=name)
        await source.said.wait()
    writer = await playhead.produce("writer")
    await writer.append("d")
    tail = playhead.tail("endless")
    assert (await anext(tail)).text == "c"
    waiting = [asyncio.create_task(anext(tail)), asyncio.create_task(playhead.wait("idle"))]
    await until(lambda: tail.is_waiting)
    draining = asyncio.create_task(playhead.drain(grace_s=60))
    for task in waiting:  # readers go at once, not after the sources
        with pytest.raises(Draining):
            await task
    assert not draining.done()
    assert playhead.is_draining
    for call in (playhead.start(say("x")), playhead.produce("x"), playhead.tail("quick").open()):
        with pytest.raises(Draining) as refused:
            await call
        assert refused.value.retryable
    quick.go_on.set()
    await finished(other, "quick")
    assert not draining.done()  # the others may still end by themselves
    draining.cancel()
    await asyncio.wait({draining})
    await asyncio.wait_for(playhead.drain(grace_s=0.1), 15)
    assert idle.ended.is_set()
    assert endless.ended.is_set()
    assert (await other.info("quick")).outcome.kind is OutcomeKind.COMPLETED
    assert await follow_texts(other, "quick") == ["a", "b"]
    for name in ("endless", "idle", "writer"):
        outcome = (await other.info(name)).outcome
        assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "shutdown"), name
    assert await follow_texts(other, "endless", after=tail.cursor) == []
    assert await follow_texts(other, "writer") == ["d"]
    assert [event.text for event in (await playhead.read("quick")).events] == [
        "a",
        "b",
    ]  # what is stored can still be read


async def test_p11_readers_far_behind_are_sent_away_at_once_too(playhead: Playhead) -> None:
    source = Scripted(*["x" * 10_000] * 100)
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await has_stored(playhead, "s", 100)
    tail = playhead.tail("s")
    assert (await tail.ready())[0].first == 1
    await playhead.drain(grace_s=0)
    with pytest.raises(Draining):
        await tail.ready()


async def test_p11_sources_that_ignore_their_end_do_not_hold_up_the_process(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(cancel_grace_s=0.1), await open_playhead()
    source = Stubborn("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    await asyncio.wait_for(playhead.close(), 15)
    outcome = (await other.info("s")).outcome
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "shutdown")
    source.let_go.set()
    await asyncio.wait_for(source.ended.wait(), 15)


async def test_p11_close_may_be_cancelled_and_called_again(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    for _ in range(3):
        closing = asyncio.create_task(playhead.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
    await asyncio.wait_for(at_once(playhead.close, playhead.close), 15)
    assert (await other.info("s")).outcome.reason == "shutdown"


async def test_p11_what_is_being_started_while_the_process_goes_is_closed_too(open_playhead: OpenPlayhead) -> None:
    other = await open_playhead()
    for turn in range(20):
        playhead = await open_playhead()
        starts = [partial(playhead.start, Scripted("x"), stream_id=f"{turn} {n}") for n in range(5)]
        results = await asyncio.wait_for(at_once(*starts, playhead.close), 15)
        for result in results[:-1]:
            if isinstance(result, StreamInfo):
                outcome = (await other.info(result.stream_id)).outcome
                assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "shutdown")
            else:
                assert isinstance(result, Draining)
    assert await other.find(Query(status=Status.LIVE)) == []


def test_stores_are_named_by_urls() -> None:
    options = Playhead.open("memory://").options
    for url in ("memory", "memory://x", "sqlite://", "sqlite:///", "sqlite://x.db", "redis://host/x", ""):
        with pytest.raises(InvalidSetting) as error:
            open_store(url, options.store)
        assert error.value.setting == "store"
    with pytest.raises(InvalidSetting):
        open_store("sqlite:///x.db?synchronous=off", options.store)


async def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYHEAD_STORE", "memory://")
    async with Playhead.from_env() as playhead:
        await playhead.start(say("x"), stream_id="s")
        assert await follow_texts(playhead, "s") == ["x"]
    monkeypatch.setenv("PLAYHEAD_STORE", "nonsense")
    with pytest.raises(InvalidSetting):
        Playhead.from_env()


# ---- words of the wrong kind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"owner": 42},
        {"thread_id": 5},
        {"idempotency_key": b"k"},
        {"fingerprint": 1},
        {"retention_s": "60"},
        {"retention_s": 0},
        {"retention_s": float("nan")},
        {"unwatched_after_s": -1},
        {"metadata": {"not": object()}},
        {"stream_id": 5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_words_of_the_wrong_kind_are_refused_and_harm_nobody(
    open_playhead: OpenPlayhead, wrong: dict[str, object]
) -> None:
    playhead = await open_playhead()
    source = Scripted("x")
    await playhead.start(source, stream_id="innocent")
    refused = Scripted("never")
    with pytest.raises(BadRequest):
        await playhead.start(refused, **wrong)  # type: ignore[arg-type]
    source.go_on.set()
    assert (await finished(playhead, "innocent")).kind is OutcomeKind.COMPLETED
    assert len(await playhead.find(Query())) == 1


async def test_a_playhead_may_be_opened_again(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    with pytest.raises(Conflict):
        await playhead.connect()
    for turn in range(3):
        await playhead.start(Scripted("x"), stream_id=f"s{turn}")
        await playhead.close()
        await playhead.connect()
        assert (await playhead.info(f"s{turn}")).outcome is not None
    await playhead.start(say("once more"), stream_id="last")
    assert (await finished(playhead, "last")).kind is OutcomeKind.COMPLETED
