"""A Redis that forgets what it had acknowledged, as at a failover; nothing is lost while the producer lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import OpenPlayhead
from redis_server import RedisServer
from streaming import Scripted, until

from playhead import Diverged, OutcomeKind, Playhead
from playhead.stores import open_store

EVENTS = [f"event {number}" for number in range(1, 41)]


@pytest.fixture
def make_store(redis_url: str) -> Any:
    return lambda options: open_store(redis_url, options.store)


def forget(redis: RedisServer, stream_id: str, tail: int) -> None:
    """Take the stream back to how it was at an offset, as an older copy of the same Redis would have it."""
    name = f"playhead:1:{{s:{stream_id}}}"
    newer = redis.command("XRANGE", f"{name}:log", f"({tail}-0", "+")
    for entry_id, _ in newer:
        redis.command("XDEL", f"{name}:log", entry_id)
    redis.command("XSETID", f"{name}:log", f"{tail}-0")
    redis.command("HSET", f"{name}:state", "tail", tail)


async def recorded(playhead: Playhead, source: Scripted, events: int) -> None:
    await source.said.wait()

    async def stored() -> bool:
        return (await playhead.info("s")).tail == events

    await until(stored)


async def texts(playhead: Playhead, after: str | None = None) -> list[str]:
    async with asyncio.timeout(10):
        return [event.text async for event in playhead.tail("s", after=after)]


class Slowly(Scripted):
    """A source whose events are entries of their own."""

    async def __call__(self) -> AsyncIterator[Any]:
        async for item in super().__call__():
            yield item
            await asyncio.sleep(0.003)


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
    source = Slowly(*EVENTS, then=("more",))
    await playhead.start(source, stream_id="s")
    following = [asyncio.create_task(texts(at)) for at in (playhead, other)]
    await recorded(playhead, source, 40)
    cursor = (await other.read("s")).cursor

    async def caught_up() -> bool:
        return all(feed.tail == 40 for at in (playhead, other) for feed in at._readers.feeds.values())

    await until(caught_up)
    forget(redis_server, "s", 25)
    source.go_on.set()
    for reading in following:
        with pytest.raises(Diverged):
            await reading
    with pytest.raises(Diverged):
        await texts(other, after=cursor)
    assert await texts(other) == EVENTS[:25]
    info = await playhead.info("s")
    assert info.outcome.kind is OutcomeKind.FAILED
    assert "lost events" in info.outcome.error
