"""Row 1: record 100 streams with one reader each, source as fast as it can, beside a bare loop over the sources.

A source suspends once per token, as one that reads a socket does. Both sides take a checksum of what they get.
"""

import asyncio
import sys
import tempfile
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from benchmarks.report import Report, alternate
from playhead import Playhead

STREAMS, TOKENS = 100, 2_000
WORDS = [f"token {i:05d} of an answer, about fifty bytes long." for i in range(TOKENS)]
EXPECTED = zlib.crc32("".join(WORDS).encode())


async def source() -> AsyncIterator[str]:
    for word in WORDS:
        yield word
        await asyncio.sleep(0)


async def bare() -> float:
    async def one() -> None:
        checksum = 0
        async for word in source():
            checksum = zlib.crc32(word.encode(), checksum)
        assert checksum == EXPECTED

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(STREAMS)))
    return time.perf_counter() - began


async def recorded(url: str) -> float:
    async with Playhead.open(url) as playhead:

        async def one(stream_id: str) -> None:
            checksum = 0
            tail = playhead.tail(stream_id)
            async for event in tail:
                checksum = zlib.crc32(event.data, checksum)
            assert tail.outcome
            assert checksum == EXPECTED

        began = time.perf_counter()
        infos = [await playhead.start(source()) for _ in range(STREAMS)]
        await asyncio.gather(*(one(info.stream_id) for info in infos))
        return time.perf_counter() - began


def on_disk(synchronous: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}?synchronous={synchronous}"
        return uvloop.run(recorded(url))


def run(report: Report) -> None:
    plain, normal, full = alternate(lambda: uvloop.run(bare()), lambda: on_disk("normal"), lambda: on_disk("full"))
    million = STREAMS * TOKENS / 1e6
    for name, took in (("NORMAL", normal), ("FULL", full)):
        detail = f"{million / took * 1e3:.0f} k/s beside {million / plain * 1e3:.0f} k/s"
        report.add(
            f"record, 100 streams + readers, SQLite {name} / bare loop", plain / took, ">= 0.25 aim 0.40", detail
        )


if __name__ == "__main__":
    run(Report())
    sys.exit()
