"""``python -m benchmarks.chaos``: exit code 0 when every reader got all of it once, and each end may be."""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.chaos import report
from benchmarks.chaos.faults import Faults
from benchmarks.chaos.processes import Instance, Life, Redis, now
from benchmarks.chaos.readers import Reader, World
from benchmarks.chaos.streams import Stream, Tally
from benchmarks.load import many_files

STREAMS_AT_ONCE, READERS_PER_STREAM = 60, 4
CANCELLED_SHARE = 0.1
ASK_WITHIN_S = 5.0
STUCK_AFTER_S = 60.0
RECONNECTS_PER_MINUTE = 10_000 / 3


class Chaos:
    def __init__(self, world: World, lives: dict[str, Life], seed: int, until: float) -> None:
        self._world = world
        self._lives = lives
        self._seed = seed
        self._until = until
        self._tally = world.tally
        self._dice = random.Random(f"{seed}/asking")
        self._reading: dict[asyncio.Task[None], Reader] = {}
        self._streams: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep streams coming until the time is over, then wait for every reader's end."""
        number = 0
        while (room_s := self._until - now()) > 0:
            self._forget()
            if len(self._streams) < STREAMS_AT_ONCE:
                number += 1
                stream = Stream.drawn(self._seed, number, room_s)
                self._streams.add(asyncio.create_task(self._follow(stream, random.Random(f"{self._seed}/r{number}"))))
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        """Wait for the ends of all; whoever has none then is stuck."""
        deadline = now() + STUCK_AFTER_S
        while self._streams and now() < deadline:
            await asyncio.wait(self._streams, timeout=max(0.1, deadline - now()))
            self._forget()
        stuck = [reader for task, reader in self._reading.items() if not task.done()]
        for reader in stuck:
            self._tally.breaks("readers stuck", f"{reader.stream!r}; at {reader.have}, cursor {reader.cursor!r}")
        for task in [*self._streams, *self._reading]:
            task.cancel()
        await asyncio.gather(*self._streams, *self._reading, return_exceptions=True)

    def _forget(self) -> None:
        """Memory is for what lives. Raises: what a task of the harness itself raised."""
        for task in [task for task in self._streams if task.done()]:
            self._streams.discard(task)
            task.result()
        for task in [task for task in self._reading if task.done()]:
            del self._reading[task]
            task.result()

    # ---- one stream --------------------------------------------------------------------------------

    async def _follow(self, stream: Stream, dice: random.Random) -> None:
        await self._start(stream)
        self._tally.streams += 1
        readers = [self._read(stream, 0.0, dice)]
        readers += [self._read(stream, dice.uniform(0.0, stream.lasts_s), dice) for _ in range(READERS_PER_STREAM - 1)]
        if dice.random() < CANCELLED_SHARE:
            await asyncio.sleep(dice.uniform(0.0, stream.lasts_s))
            await self._cancel(stream)
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([*readers, self._read(stream, dice.uniform(0.0, 2.0), dice)])

    def _read(self, stream: Stream, after_s: float, dice: random.Random) -> "asyncio.Task[None]":
        reader = Reader(self._world, stream, random.Random(dice.random()))

        async def read() -> None:
            await asyncio.sleep(after_s)
            await reader.run()

        task = asyncio.create_task(read())
        self._reading[task] = reader
        return task

    async def _start(self, stream: Stream) -> None:
        """Ask until an instance says that it is there: the same id is the same stream."""
        path = f"/start/{stream.stream_id}?events={stream.events}&pause_ms={stream.pause_ms}"
        while True:
            stream.begun_at = now()
            if (said := await self._ask(path)) is not None:
                stream.life = self._lives.get(said["producer"] or "")
                return
            stream.doubtful = True
            await asyncio.sleep(self._dice.uniform(0.1, 0.5))

    async def _cancel(self, stream: Stream) -> None:
        if stream.end is None:
            stream.cancel_asked = True
            said = await self._ask(f"/cancel/{stream.stream_id}")
            stream.cancel_stored = said is not None and said["stored"]

    async def _ask(self, path: str) -> dict[str, Any] | None:
        """POST to any instance; None when it was not carried out, as far as one can know."""
        instance = self._dice.choice(self._world.instances)
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                reading, writing = await asyncio.open_connection("127.0.0.1", instance.port)
                try:
                    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    writing.write(head.encode())
                    answer, _, body = (await reading.read()).decode().partition("\r\n\r\n")
                finally:
                    writing.transport.abort()
        except (OSError, TimeoutError):
            return None
        if answer[9:12] == "200":
            said: dict[str, Any] = json.loads(body)
            return said
        if answer[9:12] not in ("", "503"):
            self._tally.breaks("wrong", f"{path}: {body}")
        return None


async def chaos(asked: argparse.Namespace, directory: Path, tally: Tally) -> None:
    lives: dict[str, Life] = {}
    redis = Redis(directory / "redis") if asked.store == "redis" else None
    url = redis.url if redis is not None else f"sqlite:///{directory / 'streams.db'}"
    instances = [Instance(directory / name, url, asked.lease, lives) for name in "abc"]
    interrupted = asyncio.current_task()
    assert interrupted is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.cancel)
    try:
        if redis is not None:
            await redis.start()
        await asyncio.gather(*(instance.start() for instance in instances))
        until = now() + asked.minutes * 60
        run = Chaos(World(instances, redis.away if redis else [], asked.lease, tally), lives, asked.seed, until)
        faults = Faults(random.Random(f"{asked.seed}/faults"), instances, redis, asked.lease, tally)
        async with asyncio.TaskGroup() as group:
            group.create_task(run.run())
            group.create_task(faults.run(until))
        await run.end()
        for instance in instances:
            for line in instance.tracebacks():
                tally.breaks("tracebacks in the servers' logs", line)
    finally:
        for program in [*instances, *([redis] if redis is not None else [])]:
            await program.kill()  # what they kept is thrown away with them


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--lease", type=float, default=3.0, help="seconds")
    parser.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    parser.add_argument("--report", type=Path, help="write it as a page, too")
    parser.add_argument("--keep", type=Path, help="a new directory for data and logs, kept")
    return parser.parse_args()


def main() -> int:
    asked, tally, began = arguments(), Tally(), time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(many_files())
        directory = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            uvloop.run(chaos(asked, directory.resolve(), tally))
        except asyncio.CancelledError:
            print("interrupted", file=sys.stderr)
            return 130
    command = f"python -m benchmarks.chaos --seed {asked.seed} --minutes {asked.minutes:g}"
    run = report.Run(command, asked.store, asked.seed, time.monotonic() - began, asked.lease)
    report.show(run, tally)
    if asked.report is not None:
        report.write(asked.report, run, tally)
    few: bool = tally.reconnects < RECONNECTS_PER_MINUTE * asked.minutes
    if few:
        print("too few reconnects to tell anything", file=sys.stderr)
    return int(few or any(tally.broken.values()))


if __name__ == "__main__":
    sys.exit(main())
