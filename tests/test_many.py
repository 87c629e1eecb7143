"""Many streams over one connection, without HTTP: what is told when, what a slow client costs, how it ends."""

import asyncio
import json
from typing import Any

import pytest
from conftest import OpenPlayhead
from streaming import Scripted, finished, has_stored, say, until
from wire import Wire

from playhead import Playhead, StreamInfo
from playhead.asgi import RETRY_MS
from playhead.many import ManyStreams, Subscription
from playhead.sse import opening
from playhead.store import PAGE_MAX_BYTES, Query
from playhead.testing.faults import FaultyStore


class SlowFinds(FaultyStore):
    """Shows new streams only when it is told to; counts how often it was asked."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.finds = 0
        self.shows = asyncio.Event()
        self.answers = asyncio.Event()
        self.shows.set()
        self.answers.set()

    async def find(self, query: Query) -> list[StreamInfo]:
        self.finds += 1
        found = await super().find(query)
        await self.answers.wait()
        return found if self.shows.is_set() else []


def following(playhead: Playhead, *subscriptions: Subscription, describe: Any = lambda info: info.stream_id) -> Any:
    return ManyStreams(playhead, list(subscriptions), principal=None, describe=describe)


def told(wire: Wire, kind: str) -> list[dict[str, Any]]:
    lines = wire.body.decode().removeprefix(opening(RETRY_MS).decode()).splitlines()
    frames = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return [frame for frame in frames if frame["type"] == kind]


@pytest.mark.proves("H9")
async def test_a_stream_that_shows_late_is_told_of(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a stream's creation and its commit there may be seconds: a slow disk, a stopped process."""
    monkeypatch.setattr("playhead.news.LOOK_EVERY_S", 0.2)
    stores: list[SlowFinds] = []

    def slow(store: Any) -> SlowFinds:
        stores.append(SlowFinds(store))
        return stores[0]

    here, elsewhere = await open_playhead(slow), await open_playhead()
    began: list[StreamInfo | None] = []
    assert await here.watch_thread("t", began.append) == []
    stores[0].shows.clear()
    info = await elsewhere.start(say("a"), thread_id="t")
    asked = stores[0].finds
    await until(lambda: stores[0].finds > asked + 3)
    assert began == []
    stores[0].shows.set()
    await until(lambda: bool(began))
    assert {one.stream_id for one in began if one} == {info.stream_id}
    here.unwatch_thread("t", began.append)


@pytest.mark.proves("H9")
async def test_what_is_told_of_early_keeps_its_cursor_and_its_place(open_playhead: OpenPlayhead) -> None:
    stores: list[SlowFinds] = []

    def slow(store: Any) -> SlowFinds:
        stores.append(SlowFinds(store))
        return stores[0]

    playhead = await open_playhead(slow)
    listed = await playhead.start(Scripted("a", "b"), stream_id="listed", thread_id="t")
    await has_stored(playhead, "listed", 2)
    tail = playhead.tail("listed")
    await anext(tail)
    wire = Wire()
    stores[0].answers.clear()
    app = following(playhead, Subscription("k", thread_id="t", streams={"listed": tail.cursor}))
    running = asyncio.create_task(wire.run(app))
    asked = stores[0].finds
    await until(lambda: stores[0].finds > asked)
    playhead._news.began(listed)
    stores[0].answers.set()
    await until(lambda: told(wire, "text") != [])
    assert wire.body.index(b"playhead.thread") < wire.body.index(b"playhead.open")
    assert [frame["offset"] for frame in told(wire, "playhead.open")] == [1]
    assert [(frame["offset"], frame["data"]) for frame in told(wire, "text")] == [(2, "b")]
    await tail.aclose()
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.proves("P8.1", "P8.2")
async def test_a_stalled_client_holds_one_page_per_stream_and_is_given_up(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.asgi.STALLED_S", 1.0)
    monkeypatch.setattr("playhead.asgi._TICK_S", 0.05)
    sources = [Scripted("a", then=("x" * 50_000,) * 100) for _ in range(3)]
    names = [(await playhead.start(source)).stream_id for source in sources]
    wire = Wire()
    app = following(playhead, *[Subscription(name, stream_id=name) for name in names])
    running = asyncio.create_task(wire.run(app))
    await until(lambda: len(told(wire, "text")) == 3)
    wire.let.clear()
    for source in sources:
        source.go_on.set()
    for name in names:
        await finished(playhead, name)
    await asyncio.wait_for(wire.stuck.wait(), 15)
    assert sum(map(len, app._ready)) < 3 * 2 * PAGE_MAX_BYTES
    await asyncio.wait_for(running, 15)
    assert not playhead._readers.counts
    assert all(pump.done() for pump in app._pumps.values())


@pytest.mark.proves("P11.1")
async def test_draining_ends_it_also_when_all_it_follows_is_over(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It does not hear of it by chance, when it is woken for one of these.
    monkeypatch.setattr("playhead.asgi.PRESENCE_S", 3600)
    monkeypatch.setattr("playhead.asgi.KEEP_ALIVE_S", 3600)
    await playhead.start(say("a"), stream_id="s")
    await finished(playhead, "s")
    wire = Wire()
    running = asyncio.create_task(wire.run(following(playhead, Subscription("k", stream_id="s"))))
    await until(lambda: told(wire, "playhead.close") != [])
    await playhead.drain(grace_s=0)
    await asyncio.wait_for(running, 30)
    assert wire.is_complete


async def test_a_fault_ends_the_response_instead_of_leaving_one_stream_silent(playhead: Playhead) -> None:
    await playhead.start(Scripted("a"), stream_id="s")
    await playhead.start(Scripted("a"), stream_id="broken")

    def describe(info: StreamInfo) -> str:
        if info.stream_id == "broken":
            raise ZeroDivisionError("a fault of the describer")
        return info.stream_id

    app = following(playhead, *[Subscription(name, stream_id=name) for name in ("s", "broken")], describe=describe)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(Wire().run(app), 15)
    assert not playhead._readers.counts


async def test_each_stream_counts_as_a_reader_of_its_owner(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(readers_per_owner_max=2)
    for name in "abc":
        await playhead.start(Scripted(name), stream_id=name)
        await has_stored(playhead, name, 1)
    wire = Wire()
    running = asyncio.create_task(
        wire.run(following(playhead, *[Subscription(name, stream_id=name) for name in "abc"]))
    )
    await until(lambda: len(told(wire, "text")) == 2 and told(wire, "playhead.error") != [])
    (refused,) = told(wire, "playhead.error")
    assert (refused["key"], refused["code"], refused["retryable"]) == ("c", "too-many-readers", True)
    wire.gone.set()
    await asyncio.wait_for(running, 15)
    assert not playhead._readers.counts
