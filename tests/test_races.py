"""Races, with barriers: readers at the very start and the very end, and many who stop reading."""

import asyncio
import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import OpenPlayhead
from serving import Client
from streaming import PATIENCE_S, Scripted, at_once, finished, follow, follow_texts, until

from playhead import Event, OutcomeKind, Playhead, StreamNotFound

TRIALS = 125  # of each kind on each store: 500 in all
MIB = 1024 * 1024


async def patient(playhead: Playhead, stream_id: str) -> list[Event]:
    """Follow a stream that may not exist yet."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                tail = playhead.tail(stream_id)
                await tail.open()
                break
            except StreamNotFound:
                await asyncio.sleep(0)
        got = [event async for event in tail]
        assert tail.outcome
        assert tail.outcome.kind is OutcomeKind.COMPLETED
        return got


@pytest.mark.proves("P2.3")
async def test_p2_readers_that_attach_at_the_start_get_everything(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    chance = random.Random(1)
    for trial in range(TRIALS):
        name, events = f"s{trial}", chance.randrange(1, 30)

        async def source(events: int = events, pauses: bool = trial % 2 == 0):
            for number in range(1, events + 1):
                yield str(number)
                if pauses:
                    await asyncio.sleep(0)

        async def start(name: str = name, source: Any = source) -> None:
            await both[0].start(source, stream_id=name)

        readers = [lambda at=at, name=name: patient(at, name) for at in [*both, *both]]
        _, *got = await at_once(start, *readers)
        for events_got in got:
            assert not isinstance(events_got, BaseException), events_got
            assert [event.text for event in events_got] == [str(n) for n in range(1, events + 1)]


@pytest.mark.proves("P2.3")
async def test_p2_readers_that_attach_at_the_end_get_everything(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    chance = random.Random(2)
    for trial in range(TRIALS):
        name = f"s{trial}"
        source = Scripted("first", then=("last words",) * (trial % 3))
        await both[0].start(source, stream_id=name)
        await source.said.wait()

        turns_before_the_end = chance.randrange(6)

        async def end(source: Scripted = source, turns: int = turns_before_the_end) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            source.go_on.set()

        async def attach(at: Playhead, turns: int, name: str = name) -> list[Event]:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await patient(at, name)

        readers = [partial(attach, at, chance.randrange(30)) for at in both * 2]
        _, *got = await at_once(end, *readers)
        for events_got in got:
            assert not isinstance(events_got, BaseException), events_got
            assert [event.text for event in events_got] == ["first"] + ["last words"] * (trial % 3)


@pytest.mark.proves("P2.3")
async def test_p2_readers_that_attach_while_events_flow(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    chance = random.Random(3)
    events = 2000

    async def source():
        for number in range(1, events + 1):
            yield str(number)
            if number % 7 == 0:
                await asyncio.sleep(0.0005)

    await both[0].start(source, stream_id="s")
    cursors: list[str | None] = [None]

    async def scout() -> None:
        tail = both[0].tail("s")
        while await anext(tail, None):
            cursors.append(tail.cursor)

    async def come_and_go(number: int) -> None:
        at = both[number % 2]
        while not scouting.done():
            cursor = chance.choice(cursors)
            tail = at.tail("s", after=cursor)
            has = cursors.index(cursor)
            for _ in range(chance.randrange(1, 200)):
                event = await anext(tail, None)
                if event is None:
                    break
                has += 1
                assert (event.offset, event.text) == (has, str(has))
            await tail.aclose()
            await asyncio.sleep(0.003)
        assert [event.offset for event in await follow(at, "s", after=cursors[has])] == list(range(has + 1, events + 1))

    scouting = asyncio.create_task(scout())
    await asyncio.wait_for(asyncio.gather(*[come_and_go(number) for number in range(10)]), 60)
    await scouting


async def test_deleting_races_reading(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    for trial in range(30):
        name = f"s{trial}"
        source = Scripted(*["x" * 1000] * 50)
        await both[0].start(source, stream_id=name)
        await source.said.wait()

        async def read(at: Playhead, name: str = name) -> list[str]:
            return await follow_texts(at, name)

        readers = [lambda at=at, read=read: read(at) for at in both * 3]
        results = await at_once(lambda at=both[trial % 2], name=name: at.delete(name), *readers)
        assert results[0] is None
        assert all(isinstance(result, StreamNotFound) for result in results[1:]), results
        await asyncio.wait_for(source.ended.wait(), 15)


async def test_two_instances_race_for_one_name(open_playhead: OpenPlayhead) -> None:
    both = [await open_playhead(), await open_playhead()]
    for trial in range(40):
        sources = [Scripted(f"by {number}") for number in range(4)]
        starts = [
            lambda at=both[n % 2], source=source, trial=trial: at.start(source, stream_id=f"s{trial}")
            for n, source in enumerate(sources)
        ]
        await at_once(*starts)
        await until(lambda sources=sources: sum(source.runs for source in sources) == 1)
        (winner,) = [n for n, source in enumerate(sources) if source.runs]
        sources[winner].go_on.set()
        for at in both:
            assert await follow_texts(at, f"s{trial}") == [f"by {winner}"]
        assert (await finished(both[1], f"s{trial}")).kind is OutcomeKind.COMPLETED


@pytest.mark.proves("P8.1", "P8.2")
@pytest.mark.parametrize(("store", "growth_max_mib"), [("sqlite", 60), ("memory", 120)])
async def test_p8_readers_that_stop_reading_cost_the_log_at_most_once(
    tmp_path: Path, store: str, growth_max_mib: int
) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/streams.db"
    server = await asyncio.create_subprocess_exec(
        *[sys.executable, str(Path(__file__).with_name("crash_programs.py")), "server", url],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout
    assert server.stdin
    try:

        async def told() -> dict[str, Any]:
            return json.loads(await asyncio.wait_for(server.stdout.readline(), 60))

        port = (await told())["port"]
        memory = psutil.Process(server.pid).memory_info
        stalled = [await Client.get(port, "s") for _ in range(20)]
        quick = await Client.get(port, "s")
        for client in [*stalled, quick]:
            assert await client.event()
        before = memory().rss
        server.stdin.write(b"go\n")
        growth = size = 0
        while event := await quick.event():
            size += len(event.data)
            if size % (100 * 4096) < 4096:
                growth = max(growth, memory().rss - before)
        growth = max(growth, memory().rss - before)
        assert size > 60 * MIB
        assert (await told())["outcome"] == "completed"
        assert growth < growth_max_mib * MIB
        for client in stalled:
            client.leave()
    finally:
        server.kill()
        await server.wait()
