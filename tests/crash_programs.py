"""The programs that the crash suite runs, stops and kills: ``python crash_programs.py <program> <arguments>``."""

import asyncio
import json
import random
import sys
from typing import Any

from playhead import Options, Playhead, PlayheadError, Query, Status


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def many(url: str, prefix: str, count: str, seed: str, pace_s: str) -> None:
    """Start so many streams, whose sources talk until the process ends, with a lease that outlasts it for long."""
    chance = random.Random(int(seed))

    async def words(name: str):
        number = 0
        while True:
            number += 1
            yield f"{name} {number} " + "x" * chance.randrange(200)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * float(pace_s))

    async with Playhead.open(url, options=Options(lease_s=30)) as playhead:
        for number in range(int(count)):
            name = f"{prefix}-{number}"
            await playhead.start(words(name), stream_id=name)
            tell(started=name)
        await asyncio.Event().wait()


async def reader(url: str) -> None:
    """Follow every stream there is, and tell each event that is shown; until stdin ends."""
    seen: set[str] = set()

    async def follow(playhead: Playhead, name: str) -> None:
        async for event in playhead.tail(name):
            tell(stream=name, offset=event.offset, text=event.text)

    async with Playhead.open(url) as playhead, asyncio.TaskGroup() as group:
        tell(ready=True)
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        while not ended.done():
            for info in await playhead.find(Query(status=Status.LIVE)):
                if info.stream_id not in seen:
                    seen.add(info.stream_id)
                    group.create_task(follow(playhead, info.stream_id))
            await asyncio.sleep(0.01)


async def writer(url: str, name: str, lease_s: str) -> None:
    """Write by hand until somebody says no; tell what that was."""
    async with Playhead.open(url, options=Options(lease_s=float(lease_s), cancel_grace_s=0.3)) as playhead:
        out = await playhead.produce(name)
        tell(epoch=out.epoch)
        number = 0
        try:
            while True:
                number += 1
                await out.append(f"old {number}")
                await out.flush()
                await asyncio.sleep(0.005)
        except PlayheadError as error:
            tell(refused=type(error).__name__, last_flushed=number - 1)


async def driven(url: str, name: str, lease_s: str) -> None:
    """Drive a source; tell when its ``finally`` runs."""
    ended = asyncio.Event()

    async def source():
        number = 0
        try:
            while True:
                number += 1
                yield f"old {number}"
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async with Playhead.open(url, options=Options(lease_s=float(lease_s), cancel_grace_s=0.3)) as playhead:
        await playhead.start(source, stream_id=name)
        tell(epoch=1)
        await ended.wait()
        tell(ended=True)


async def server(url: str) -> None:
    """Serve one stream of 60 MiB: its first event at once, the rest when stdin says so."""
    from serving import serving

    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_word() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(go_on.set)

    async def source():
        yield "first"
        await go_on.wait()
        for number in range(15 * 1024 + 10):
            yield f"{number:06}" + "x" * 4090

    async with Playhead.open(url) as playhead:
        await playhead.start(source, stream_id="s")
        async with serving(playhead) as port:
            tell(port=port)
            waiting = loop.run_in_executor(None, wait_for_word)
            info = await playhead.wait("s")
            await waiting
            tell(outcome=info.outcome.kind if info.outcome else None)
            await asyncio.Event().wait()


if __name__ == "__main__":
    program, *arguments = sys.argv[1:]
    programs = {"many": many, "reader": reader, "writer": writer, "driven": driven, "server": server}
    asyncio.run(programs[program](*arguments))
