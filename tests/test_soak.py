"""Readers connect and leave at random; tasks, threads, files and memory end where they began."""

import asyncio
import gc
import random
import threading
from pathlib import Path

import psutil
import pytest
from serving import Client, serving
from streaming import PATIENCE_S, tidied, until

from playhead import OutcomeKind, Playhead

MIB = 1024 * 1024
WORDS = 199  # in each stream that is not cancelled before


async def soak(playhead: Playhead, readers: int, at_once: int, seed: int) -> int:
    """So many readers, over HTTP and in process, of streams that come and go. Returns how many events they saw."""
    chance = random.Random(seed)
    seen = 0
    started: list[str] = []
    over = asyncio.Event()

    async def words():
        for number in range(1, WORDS + 1):
            yield f"{number}"
            await asyncio.sleep(chance.random() * 0.01)

    async def keep_streams_coming() -> None:
        while not over.is_set():
            live = await playhead.live([f"t{n}" for n in range(8)])
            for thread in {f"t{n}" for n in range(8)} - {info.thread_id for info in live}:
                info = await playhead.start(words, thread_id=thread, retention_s=5.0)
                started.append(info.stream_id)
            if chance.random() < 0.3 and live:
                await playhead.cancel(chance.choice(live).stream_id)
            await asyncio.sleep(0.02)

    async def one_in_process(stream_id: str) -> None:
        nonlocal seen
        expected = 0
        tail = playhead.tail(stream_id)
        stay = chance.choice([0, 1, 5, 50, 10_000])
        async for event in tail:
            expected += 1
            assert (event.offset, event.text) == (expected, str(expected))
            if expected > stay:
                break
        else:
            assert tail.outcome
        seen += expected
        if chance.random() < 0.5:
            await tail.aclose()

    async def one_over_http(port: int, stream_id: str) -> None:
        nonlocal seen
        expected = 0
        client = await Client.get(port, stream_id)
        try:
            assert client.status == 200
            for _ in range(chance.choice([0, 1, 5, 50, 10_000])):
                event = await client.event()
                if event is None:
                    break
                expected += 1
                assert event.id.endswith(f".{expected}")
        finally:
            client.leave()
        seen += expected

    async def reader(number: int, port: int) -> None:
        async with turns:
            await asyncio.sleep(chance.random() * 0.05)
            stream_id = chance.choice(started[-8:])
            await (one_over_http(port, stream_id) if number % 2 else one_in_process(stream_id))

    turns = asyncio.Semaphore(at_once)
    async with serving(playhead) as port:
        coming = asyncio.create_task(keep_streams_coming())
        await until(lambda: len(started) >= 8)
        await asyncio.gather(*[reader(number, port) for number in range(readers)])
        over.set()
        await coming
        for info in await playhead.live([f"t{n}" for n in range(8)]):
            await playhead.cancel(info.stream_id)
            ended = await playhead.wait(info.stream_id)
            assert ended.cancel or ended.tail == WORDS  # else it had come to its end before it was cancelled
            assert ended.outcome.kind is (OutcomeKind.CANCELLED if ended.cancel else OutcomeKind.COMPLETED)
        await tidied(playhead)
    return seen


async def check(url: str, rounds: int, readers: int, growth_max_mib: int) -> None:
    process = psutil.Process()
    async with Playhead.open(url) as playhead:
        await soak(playhead, 100, 50, seed=0)  # what is made once is made here

        def state() -> tuple[int, int, int]:
            # Without the threads that asyncio keeps for calls that block: how many there are is its own affair.
            own = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
            return len(asyncio.all_tasks()), len(own), process.num_fds()

        gc.collect()
        before, memory_before = state(), process.memory_info().rss
        for number in range(1, rounds + 1):
            seen = await soak(playhead, readers, 200, seed=number)
            assert seen > readers
            assert not playhead.store._wakes if hasattr(playhead.store, "_wakes") else True
        gc.collect()
        await until(lambda: state() == before, PATIENCE_S)
        assert process.memory_info().rss - memory_before < growth_max_mib * MIB


@pytest.mark.proves("P10.1")
async def test_p10_a_thousand_readers_come_and_go(tmp_path: Path) -> None:
    await check(f"sqlite:///{tmp_path}/streams.db", rounds=1, readers=1000, growth_max_mib=40)


@pytest.mark.soak
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_p10_many_thousand_readers_come_and_go(tmp_path: Path, store: str) -> None:
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/streams.db"
    await check(url, rounds=15, readers=2000, growth_max_mib=60)
