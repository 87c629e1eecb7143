"""P10: cancel every public await at random, thousands of times; afterwards nothing is left and everything works."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from conftest import OpenPlayhead
from streaming import Scripted, count, finished, follow_texts, say, tidied, until

from playhead import Playhead, PlayheadError, Query, Status, StreamInfo, StreamNotFound
from playhead.model import COMPLETED

CALLS = 2500  # on each store
AT_ONCE = 15


class Caller:
    """Public calls on shared streams, each of which may be cancelled anywhere."""

    def __init__(self, both: list[Playhead], chance: random.Random) -> None:
        self.both, self.chance = both, chance
        self.number = 0

    @property
    def at(self) -> Playhead:
        return self.chance.choice(self.both)

    @property
    def known(self) -> str:
        return f"s{self.chance.randrange(max(self.number - 30, 0), self.number + 1)}"

    def new(self) -> str:
        self.number += 1
        return f"s{self.number}"

    async def start(self) -> None:
        await self.at.start(count(self.chance.randrange(20)), stream_id=self.new(), thread_id=f"t{self.number % 50}")

    async def start_again(self) -> None:
        await self.at.start(count(3), stream_id=self.known)

    async def supersede(self) -> None:
        name, thread = self.new(), f"busy {self.chance.randrange(20)}"
        await self.at.start(Scripted("x"), stream_id=name, thread_id=thread, supersede=True, unwatched_after_s=0.3)

    async def produce(self) -> None:
        async with await self.at.produce(self.new()) as out:
            await out.append(*"abc")
            await out.flush()
            await out.append("d")

    async def take_turns(self) -> None:
        out = await self.at.produce(self.known, take_over=self.chance.random() < 0.5, keep_open=True)
        await out.append("mine")
        await (out.release() if self.chance.random() < 0.5 else out.close(COMPLETED))

    async def drop_writer(self) -> None:
        out = await self.at.produce(self.new())
        await out.append("x")

    async def tail(self) -> None:
        async for _ in self.at.tail(self.known):
            pass

    async def tail_by_hand(self) -> None:
        tail = self.at.tail(self.known)
        await tail.open()
        await anext(tail)
        await anext(tail)

    async def tail_in_a_block(self) -> None:
        async with self.at.tail(self.known) as tail:
            await tail.ready()

    async def read(self) -> None:
        await self.at.read(self.known)

    async def events(self) -> None:
        async for _ in self.at.events(self.known):
            pass

    async def info(self) -> None:
        await self.at.info(self.known)

    async def find(self) -> None:
        await self.at.find(Query(limit=5))

    async def live(self) -> None:
        await self.at.live(["t1", "t2", "busy 3"])

    async def cancel(self) -> None:
        await self.at.cancel(self.known)

    async def delete(self) -> None:
        await self.at.delete(self.known)

    async def wait(self) -> None:
        await self.at.wait(self.known)

    async def settle(self) -> None:
        await self.at.settle(f"t{self.chance.randrange(50)}")

    def any(self) -> Callable[[], Awaitable[None]]:
        verbs = [
            *(self.start, self.start, self.start_again, self.supersede, self.produce, self.take_turns),
            *(self.drop_writer, self.tail, self.tail, self.tail_by_hand, self.tail_in_a_block, self.read, self.events),
            *(self.info, self.find, self.live, self.cancel, self.delete, self.wait, self.settle),
        ]
        return self.chance.choice(verbs)


async def hurt(call: Callable[[], Awaitable[None]], chance: random.Random) -> str:
    """Run a call and cancel it somewhere; how that ended."""
    how = chance.choice(["task", "task twice", "anyio scope", "anyio deadline", "timeout"])
    delay_s = chance.random() ** 3 * 0.02
    try:
        if how.startswith("task"):
            task = asyncio.create_task(call())
            if chance.random() < 0.5:
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(delay_s)
            task.cancel()
            if how == "task twice":
                await asyncio.sleep(0)
                task.cancel()
            await task
        elif how == "anyio scope":
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(delay_s, scope.cancel)
                await call()
        elif how == "anyio deadline":
            with anyio.move_on_after(delay_s):
                await call()
        else:
            async with asyncio.timeout(delay_s):
                await call()
    except asyncio.CancelledError:
        return "cancelled"
    except TimeoutError:
        return "timed out"
    except PlayheadError as error:
        return error.code
    except StopAsyncIteration:
        return "read to the end"
    return "done, or left a scope"


@pytest.mark.proves("P10.1", "P10.2")
async def test_p10_cancelling_every_await_leaves_nothing_behind(open_playhead: OpenPlayhead) -> None:
    settled: Counter[str] = Counter()

    async def settle(info: StreamInfo) -> None:
        await asyncio.sleep(0)
        settled[info.stream_id] += 1

    both = [await open_playhead(settle=settle, lease_s=2.0, cancel_grace_s=0.2) for _ in range(2)]
    tasks_before = asyncio.all_tasks()
    chance = random.Random(5)
    caller = Caller(both, chance)
    endings: Counter[str] = Counter()

    async def hurt_many(calls: int) -> None:
        for _ in range(calls):
            endings[await hurt(caller.any(), chance)] += 1

    await asyncio.gather(*[hurt_many(CALLS // AT_ONCE) for _ in range(AT_ONCE)])
    assert endings["cancelled"] > CALLS / 10, endings
    assert endings["done, or left a scope"] > CALLS / 10, endings

    async def all_has_ended() -> bool:
        under_way = any(at._background for at in both)  # the start of a cancelled caller waits for its turn
        live = await both[0].find(Query(status=Status.LIVE, limit=1000))
        for info in live:
            # Left between two writers, or with a source that has no end of its own: as it was asked for.
            if info.producer is None or (info.thread_id or "").startswith("busy"):
                with suppress(StreamNotFound):
                    await both[0].cancel(info.stream_id)
        return not (live or under_way)

    await until(all_has_ended)
    await tidied(*both)
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    for number in range(20):
        await both[number % 2].start(say("still", "works"), stream_id=f"after {number}")
        assert await follow_texts(both[1 - number % 2], f"after {number}") == ["still", "works"]
    closed = await both[0].find(Query(status=Status.CLOSED, limit=10_000))
    assert len(closed) > CALLS / 20

    async def all_settled() -> bool:
        return not await both[0].find(Query(status=Status.CLOSED, settled=False))

    await until(all_settled)
    await tidied(*both)


async def test_p10_what_a_cancelled_start_began_is_carried_out(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    made = 0
    for turns in range(12):
        starting = asyncio.create_task(playhead.start(say("a"), stream_id=f"s{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})
        await until(lambda: not playhead._background)
        found = [info.stream_id for info in await playhead.find(Query())]
        if f"s{turns}" in found:
            made += 1
            await finished(playhead, f"s{turns}")
            assert await follow_texts(playhead, f"s{turns}") == ["a"]
    assert made >= 11  # all but the one that was cancelled before it began


async def test_p10_a_cancelled_reader_loses_no_event(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    chance = random.Random(9)

    async def source():
        for number in range(1, 801):
            yield str(number)
            if number % 3 == 0:
                await asyncio.sleep(0.0005)

    await playhead.start(source, stream_id="s")
    tail = other.tail("s")
    got: list[str] = []
    cancelled = 0
    while True:
        step = asyncio.create_task(anext(tail, None))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            await asyncio.wait({step}, timeout=0.01)
        step.cancel()
        try:
            event = await step
        except asyncio.CancelledError:
            cancelled += 1
            continue
        if event is None:
            break
        got.append(event.text)
    assert got == [str(number) for number in range(1, 801)]
    assert cancelled > 20
    assert tail.outcome


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/streams.db"])
async def test_p10_life_itself_may_be_cancelled_anywhere(tmp_path: Path, url: str) -> None:
    tasks_before = asyncio.all_tasks()
    chance = random.Random(3)
    for turn in range(60):
        playhead = Playhead.open(url.format(tmp_path))

        async def live(playhead: Playhead = playhead, turn: int = turn) -> None:
            async with playhead:
                await playhead.start(Scripted("x"), stream_id=f"s{turn}")
                await playhead.drain(grace_s=0.01)

        ending = await hurt(live, chance)
        await asyncio.wait_for(playhead.close(), 10)
        assert ending in {"cancelled", "timed out", "done, or left a scope", "draining", "store-unavailable"}, ending
    await until(lambda: asyncio.all_tasks() <= tasks_before)
    async with Playhead.open(url.format(tmp_path)) as playhead:

        async def nothing_is_live() -> bool:
            return not await playhead.find(Query(status=Status.LIVE))

        await until(nothing_is_live)
        await playhead.start(say("x"), stream_id="s")
        assert await follow_texts(playhead, "s") == ["x"]


async def test_p10_draining_may_be_cancelled(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(), await open_playhead()
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await source.said.wait()
    for _ in range(5):
        draining = asyncio.create_task(playhead.drain(grace_s=10))
        await asyncio.sleep(0)
        draining.cancel()
        await asyncio.wait({draining})
    await asyncio.wait_for(playhead.drain(grace_s=0), 15)
    assert (await other.info("s")).outcome.reason == "shutdown"
