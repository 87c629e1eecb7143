"""Real processes on one SQLite file, ended with ``kill -9``, frozen with SIGSTOP."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from streaming import finished, follow_texts, until

from playhead import Options, OutcomeKind, Playhead, ProducerActive, Query, Status

PROGRAMS = Path(__file__).with_name("crash_programs.py")
pytestmark = pytest.mark.crash
KILLS = 50
AT_A_TIME = 5
STREAMS = 4
PROVEN_WITHIN_S = 15.0
"""Longer than a busy machine takes, and much shorter than the lease of the program ``many``: that told nobody."""


class Program:
    """One process, and what it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            if line.endswith(b"\n"):
                self.told.append(json.loads(line))

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def _has_stopped(self) -> bool:
        """Every thread of it; one that was in the middle of a system call stops later than the others."""
        stats = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread has just ended
            return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
        return False

    async def freeze(self, file: Path) -> None:
        """Stop it, but not in the middle of a commit: nobody else could write to the file then."""
        async with asyncio.timeout(60):
            while True:
                self.signal(signal.SIGSTOP)
                await until(self._has_stopped)
                with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as connection:
                    try:
                        connection.execute("BEGIN IMMEDIATE")
                    except sqlite3.OperationalError:
                        self.signal(signal.SIGCONT)
                    else:
                        return
                await asyncio.sleep(0.01)

    async def killed(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(60):
            await self._listening
            return await self.process.wait()


def lease_end(file: Path, instance_id: str) -> float:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        ((expires_at,),) = connection.execute("SELECT expires_at FROM instances WHERE id = ?", (instance_id,))
    return float(expires_at)


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(PROGRAMS), *arguments],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    running = Program(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                running.signal(signal.SIGCONT)
        await running.killed()


@pytest.mark.proves("P1.1", "P1.2", "P5.2", "P7.1")
async def test_p5_p1_kill_9_at_random_moments(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    chance = random.Random(20)
    shown: dict[str, list[str]] = {}
    seen_dead_after_s: list[float] = []
    async with Playhead.open(url) as playhead, program("reader", url) as other_reader:
        await until(lambda: bool(other_reader.told))

        async def follow(name: str) -> None:
            mine = shown[name] = []
            async for event in playhead.tail(name):
                mine.append(event.text)
                assert event.offset == len(mine)

        async def one_life(prefix: str) -> None:
            names = [f"{prefix}-{number}" for number in range(STREAMS)]
            async with program("many", url, prefix, str(STREAMS), prefix, "0.004") as producer:
                await until(lambda: len(producer.told) >= 1)
                following = []
                moment_s = chance.random() * 0.4
                killed_at = time.monotonic() + moment_s
                while time.monotonic() < killed_at:
                    started = len(producer.told)
                    following += [asyncio.create_task(follow(name)) for name in names[len(following) : started]]
                    await asyncio.sleep(0.005)
                producer.signal(signal.SIGKILL)
                killed_at = time.monotonic()
                await asyncio.gather(*following)
                for info in await playhead.find(Query(status=Status.LIVE, limit=1000)):
                    if info.stream_id in names:  # created, though its creator could not tell us any more
                        await finished(playhead, info.stream_id)
                seen_dead_after_s.append(time.monotonic() - killed_at)

        for life in range(0, KILLS, AT_A_TIME):
            await asyncio.gather(*[one_life(str(number)) for number in range(life, life + AT_A_TIME)])

        assert len(seen_dead_after_s) == KILLS
        assert max(seen_dead_after_s) < PROVEN_WITHIN_S
        assert other_reader.process.stdin
        other_reader.process.stdin.close()
        assert await other_reader.ended() == 0
        for line in other_reader.told[1:]:
            mine = shown.setdefault(f"elsewhere {line['stream']}", [])
            mine.append(line["text"])
            assert line["offset"] == len(mine)

        assert await playhead.find(Query(status=Status.LIVE)) == []
    events = 0
    async with Playhead.open(url) as playhead:  # what a new process finds
        for name, texts in shown.items():
            stream_id = name.removeprefix("elsewhere ")
            stored = [event async for event in playhead.events(stream_id)]
            assert [event.text for event in stored[: len(texts)]] == texts
            assert [event.offset for event in stored] == list(range(1, len(stored) + 1))
            assert [event.text.split()[1] for event in stored] == [str(n) for n in range(1, len(stored) + 1)]
            outcome = (await playhead.info(stream_id)).outcome
            assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")
            events += len(texts)
    assert len(shown) >= KILLS
    assert events > 1000


@pytest.mark.proves("P5.2")
async def test_p5_kill_9_with_many_streams_and_readers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    async with Playhead.open(url) as playhead, program("many", url, "s", "300", "1", "2") as producer:
        await until(lambda: len(producer.told) == 300, 30)
        readings = [asyncio.create_task(follow_texts(playhead, f"s-{n % 300}")) for n in range(600)]
        await until(lambda: playhead._readers.counts.total() == 600)
        producer.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        got = await asyncio.gather(*readings)
        assert time.monotonic() - killed_at < PROVEN_WITHIN_S
        for n, texts in enumerate(got):
            assert texts == got[n % 300]
        for n in range(300):
            assert (await playhead.info(f"s-{n}")).outcome.reason == "producer-lost"


@pytest.mark.proves("P6.1", "P6.2")
async def test_p6_a_frozen_producer_that_was_taken_over_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    async with (
        program("writer", url, "s", "3") as frozen,
        Playhead.open(url, options=Options(lease_s=30)) as playhead,
    ):
        await until(lambda: bool(frozen.told))

        async def has_some() -> bool:
            return (await playhead.info("s")).tail > 5

        await until(has_some)
        await frozen.freeze(tmp_path / "streams.db")
        with pytest.raises(ProducerActive):  # its lease has not run out yet
            await playhead.produce("s")

        async def taken() -> bool:
            try:
                writers.append(await playhead.produce("s"))
            except ProducerActive:
                return False
            return True

        writers: list[Any] = []
        await until(taken)
        out = writers[0]
        assert out.epoch > frozen.told[0]["epoch"]
        await out.append("new 1")
        await out.flush()
        before = await playhead.info("s")
        frozen.signal(signal.SIGCONT)
        assert await frozen.ended() == 0
        assert frozen.told[-1]["refused"] == "Fenced"
        assert (await playhead.info("s")) == before
        await out.append("new 2")
        await out.close()
        texts = await follow_texts(playhead, "s")
        old = before.tail - 1
        assert texts == [f"old {n}" for n in range(1, old + 1)] + ["new 1", "new 2"]
        assert frozen.told[-1]["last_flushed"] <= old


@pytest.mark.proves("P6.1", "P5.1")
@pytest.mark.parametrize("kind", ["writer", "driven"])
async def test_p6_a_frozen_producer_that_was_swept_is_refused(tmp_path: Path, kind: str) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    async with Playhead.open(url, options=Options(lease_s=0.6)) as playhead:
        await asyncio.sleep(0.7)  # this sweeper's own first lease
        async with program(kind, url, "s", "3") as frozen:
            await until(lambda: bool(frozen.told))
            reading = asyncio.create_task(follow_texts(playhead, "s"))
            await until(lambda: playhead._readers.counts.total() == 1)
            await asyncio.sleep(0.1)
            await frozen.freeze(tmp_path / "streams.db")
            lease_until = lease_end(tmp_path / "streams.db", (await playhead.info("s")).producer)
            texts = await reading
            swept = await playhead.info("s")
            assert swept.outcome.reason == "producer-lost"
            # Not before its lease was over, and soon after: a second, and what a busy machine adds.
            assert lease_until <= swept.closed_at < lease_until + 1 + 10
            frozen.signal(signal.SIGCONT)
            assert await frozen.ended() == 0
            assert frozen.told[-1].get("refused", "Fenced") == "Fenced"
            assert len(frozen.told) == 2
            assert await playhead.info("s") == swept
            assert await follow_texts(playhead, "s") == texts == [f"old {n}" for n in range(1, len(texts) + 1)]


@pytest.mark.proves("P6.2")
async def test_p6_a_frozen_producer_that_nobody_missed_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    async with program("writer", url, "s", "0.4") as frozen:
        await until(lambda: bool(frozen.told))
        await asyncio.sleep(0.1)
        await frozen.freeze(tmp_path / "streams.db")
        await asyncio.sleep(1.0)
        frozen.signal(signal.SIGCONT)
        async with Playhead.open(url, options=Options(lease_s=30)) as playhead:
            before = await playhead.info("s")

            async def has_more() -> bool:
                return (await playhead.info("s")).tail > before.tail + 5

            await until(has_more)
            assert (await playhead.info("s")).epoch == frozen.told[0]["epoch"]
            await playhead.cancel("s")
            assert (await finished(playhead, "s")).kind is OutcomeKind.CANCELLED
        assert len(frozen.told) == 1 or frozen.told[-1]["refused"] in {"StreamClosed", "Fenced"}
