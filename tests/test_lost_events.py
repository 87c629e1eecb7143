"""A Redis that forgets what it had acknowledged, as at a failover; nothing is lost while the producer lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import OpenPlayhead
from redis_server import RedisServer
from streaming import Scripted, has_stored, until

from playhead import Diverged, OutcomeKind, Playhead, Query, Status, ThreadBusy
from playhead.stores import open_store

EVENTS = [f"event {number}" for number in range(1, 41)]


@pytest.fixture
def make_store(redis_url: str) -> Any:
    return lambda options: open_store(redis_url, options.store)


def forget(redis: RedisServer, stream_id: str, tail: int) -> int:
    """Take the stream back to how it was at about an offset, as an older copy of the same Redis would have it.

    Returns the offset: one at which an append ended.
    """
    name = f"playhead:1:{{s:{stream_id}}}"
    ((last, _),) = redis.command("XREVRANGE", f"{name}:log", f"{tail}-0", "-", "COUNT", 1)
    for entry_id, _ in redis.command("XRANGE", f"{name}:log", f"({last.decode()}", "+"):
        redis.command("XDEL", f"{name}:log", entry_id)
    redis.command("XSETID", f"{name}:log", last)
    tail = int(last.split(b"-")[0])
    redis.command("HSET", f"{name}:state", "tail", tail)
    return tail


async def recorded(playhead: Playhead, source: Scripted, events: int) -> None:
    await source.said.wait()

    async def stored() -> bool:
        return (await playhead.info("s")).tail == events

    await until(stored)


async def texts(playhead: Playhead, after: str | None = None) -> list[str]:
    async with asyncio.timeout(60):
        return [event.text async for event in playhead.tail("s", after=after)]


class Slowly(Scripted):
    """A source whose events are entries of their own."""

    async def __call__(self) -> AsyncIterator[Any]:
        async for item in super().__call__():
            yield item
            await asyncio.sleep(0.003)


class OneByOne(Scripted):
    """A source whose events are entries of their own, however slow the store is.

    Attributes:
        playhead: where it is started.
    """

    playhead: Playhead

    async def __call__(self) -> AsyncIterator[Any]:
        number = 0
        async for item in super().__call__():
            number += 1
            yield item
            await has_stored(self.playhead, "s", number)


@pytest.mark.proves("P1.6")
@pytest.mark.parametrize("then", [("more",), ()])
async def test_p1_what_the_store_lost_is_appended_again(
    open_playhead: OpenPlayhead, redis_server: RedisServer, then: tuple[str, ...]
) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Slowly(*EVENTS, then=then)
    await playhead.start(source, stream_id="s")
    following = [asyncio.create_task(texts(at)) for at in (playhead, other)]
    await recorded(playhead, source, 40)
    cursor = (await other.read("s")).cursor
    forget(redis_server, "s", 25)
    source.go_on.set()
    for reading in following:
        assert await reading == [*EVENTS, *then]
    assert await texts(other) == [*EVENTS, *then]
    assert await texts(other, after=cursor) == list(then)
    info = await other.info("s")
    assert (info.tail, info.outcome.kind) == (40 + len(then), OutcomeKind.COMPLETED)


@pytest.mark.proves("P1.6")
async def test_p1_a_producer_that_has_nothing_to_say_appends_it_again_too(
    open_playhead: OpenPlayhead, redis_server: RedisServer
) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Slowly(*EVENTS)
    await playhead.start(source, stream_id="s")
    await recorded(playhead, source, 40)
    forget(redis_server, "s", 25)
    redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")  # as a failover does

    async def whole() -> bool:
        return (await other.info("s")).tail == 40

    await until(whole)
    source.go_on.set()
    assert await texts(other) == EVENTS


@pytest.mark.proves("P1.4", "P1.6")
async def test_p1_what_nobody_has_any_more_is_told(
    open_playhead: OpenPlayhead, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.recent.KEPT_MAX_BYTES", 4_000)  # about eight batches
    playhead, other = await open_playhead(), await open_playhead()
    source = OneByOne(*EVENTS, then=("more",))
    source.playhead = playhead
    await playhead.start(source, stream_id="s")
    following = [asyncio.create_task(texts(at)) for at in (playhead, other)]
    await recorded(playhead, source, 40)
    cursor = (await other.read("s")).cursor

    async def caught_up() -> bool:
        return all(feed.tail == 40 for at in (playhead, other) for feed in at._readers.feeds.values())

    await until(caught_up)
    tail = forget(redis_server, "s", 25)
    source.go_on.set()
    for reading in following:
        with pytest.raises(Diverged):
            await reading
    with pytest.raises(Diverged):
        await texts(other, after=cursor)
    assert await texts(other) == EVENTS[:tail]
    info = await playhead.info("s")
    assert info.outcome.kind is OutcomeKind.FAILED
    assert "lost events" in info.outcome.error


def lose_close(redis: RedisServer, before: dict[bytes, bytes]) -> None:
    """The stream's state as it was before."""
    name = "playhead:1:{s:s}:state"
    redis.command("DEL", name)
    redis.command("HSET", name, *[word for field in before.items() for word in field])


@pytest.mark.proves("P5.1", "P1.6")
@pytest.mark.parametrize("lost_events", [0, 15])
async def test_p5_a_close_that_the_store_lost_is_made_again(
    open_playhead: OpenPlayhead, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, lost_events: int
) -> None:
    """Nobody writes the stream any more, but its process lives: without that it would be live for ever."""
    monkeypatch.setattr("playhead.stores.redis.store.REPLAY_S", 0.5)
    playhead, other = await open_playhead(), await open_playhead()
    source = Slowly(*EVENTS)
    await playhead.start(source, stream_id="s")
    await recorded(playhead, source, 40)
    before = redis_server.command("HGETALL", "playhead:1:{s:s}:state")
    source.go_on.set()
    await playhead.wait("s")
    lose_close(redis_server, before)
    tail = forget(redis_server, "s", 40 - lost_events)
    assert (await other.info("s")).is_live
    info = await asyncio.wait_for(other.wait("s"), 15)
    assert info.tail == tail
    assert info.outcome is not None
    assert info.outcome.kind is (OutcomeKind.FAILED if lost_events else OutcomeKind.COMPLETED)
    assert lost_events == 0 or "lost events" in (info.outcome.error or "")
    await until(lambda: not playhead._adrift)


@pytest.mark.proves("P5.1", "P7.4")
async def test_p5_lists_and_claims_that_were_lost_are_made_again(
    open_playhead: OpenPlayhead, redis_server: RedisServer
) -> None:
    """In a cluster they lie on other masters than the stream that they name, and fail over without it."""
    playhead, other = await open_playhead(lease_s=1.0), await open_playhead(lease_s=1.0)
    source = Scripted("a")
    await playhead.start(source, stream_id="s", thread_id="t", owner="ann")
    await source.said.wait()
    kept = {b"playhead:1:instances", b"playhead:1:count"}
    names = {name for name in redis_server.command("KEYS", "playhead:1:*") if b"{s:s}" not in name} - kept
    assert len(names) == 7
    redis_server.command("DEL", *names)
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")  # as a failover does

    async def made_again() -> bool:
        return set(await asyncio.to_thread(redis_server.command, "KEYS", "playhead:1:*")) >= names

    await until(made_again)
    with pytest.raises(ThreadBusy):
        await other.start(Scripted("b"), thread_id="t", owner="ann")
    assert [info.stream_id for info in await other.store.find(Query(owner="ann", status=Status.LIVE))] == ["s"]
    source.go_on.set()
    await other.wait("s", principal="ann")
