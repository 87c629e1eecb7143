"""Row 2: delay from yield to a second reader, 50 streams at 100 events/s, beside one commit of one row.

The commit is SQLite's own, in the same run: one row inserted with synchronous FULL; for NORMAL one row plus one
round trip loop → thread → loop, which any store that keeps the loop free must pay.
"""

import asyncio
import sqlite3
import struct
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from queue import SimpleQueue

import uvloop

from benchmarks.report import Report, percentile, settle_down
from playhead import Playhead

STREAMS, EVENTS, PACE_S = 50, 150, 0.01
ROUNDS = 5


async def source(delay_s: float) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    at = loop.time() + delay_s
    for _ in range(EVENTS):
        await asyncio.sleep(max(0.0, at - loop.time()))
        yield struct.pack("<Q", time.perf_counter_ns()) + b"." * 42
        at += PACE_S


async def delays(url: str) -> list[float]:
    seen: list[float] = []

    async def follow(playhead: Playhead, stream_id: str, *, note: bool) -> None:
        count = 0
        async for event in playhead.tail(stream_id):
            count += 1
            if note:
                seen.append((time.perf_counter_ns() - struct.unpack_from("<Q", event.data)[0]) / 1e6)
        assert count == EVENTS

    async with Playhead.open(url) as playhead:
        infos = [await playhead.start(source(PACE_S * n / STREAMS)) for n in range(STREAMS)]
        follows = [follow(playhead, info.stream_id, note=note) for info in infos for note in (False, True)]
        await asyncio.gather(*follows)
    return seen[len(seen) // 10 :]  # the first tenth is warm-up: attaching readers, filling caches


def commits(path: Path, synchronous: str) -> list[float]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("CREATE TABLE row (key INTEGER PRIMARY KEY, data BLOB)")
    took = []
    for key in range(600):
        began = time.perf_counter()
        connection.execute("INSERT INTO row VALUES (?, ?)", (key, b"." * 50))
        took.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.0005)
    connection.close()
    return took


async def hops() -> list[float]:
    """Round trips of a value from the loop to a thread and back, in ms."""
    loop = asyncio.get_running_loop()
    queue: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

    def serve() -> None:
        while (future := queue.get()) is not None:
            loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=serve)
    thread.start()
    took = []
    for _ in range(600):
        began = time.perf_counter()
        future = loop.create_future()
        queue.put(future)
        await future
        took.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0.0005)
    queue.put(None)
    thread.join()
    return took


def run(report: Report) -> None:
    settle_down()
    ours: dict[str, list[float]] = {"normal": [], "full": []}
    alone: dict[str, list[float]] = {"normal": [], "full": [], "hop": []}
    for _ in range(ROUNDS):
        for mode, found in ours.items():
            with tempfile.TemporaryDirectory() as folder:
                alone[mode] += commits(Path(folder) / "rows.db", mode)
                found += uvloop.run(delays(f"sqlite:///{Path(folder) / 'bench.db'}?synchronous={mode}"))
        alone["hop"] += uvloop.run(hops())
    for share, name, goal in ((0.5, "p50", "<= 3"), (0.99, "p99", "<= 5")):
        one, found_ms = percentile(alone["full"], share), percentile(ours["full"], share)
        report.add(f"delay FULL {name} / one FULL commit", found_ms / one, goal, f"{found_ms:.3f} ms / {one:.3f} ms")
    one = percentile(alone["normal"], 0.5) + percentile(alone["hop"], 0.5)
    found_ms = percentile(ours["normal"], 0.5)
    report.add("delay NORMAL p50 / one commit + one hop", found_ms / one, "<= 4", f"{found_ms:.3f} ms / {one:.3f} ms")


if __name__ == "__main__":
    run(Report())
