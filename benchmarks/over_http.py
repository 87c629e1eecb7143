"""Rows 3 to 5: catch-up, fan-out and cost per reader, over HTTP from one process, readers in another."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.load import Reader, call, connect, many_files
from benchmarks.report import REPETITIONS, Report


@asynccontextmanager
async def serving(store: str | None = None) -> AsyncIterator[int]:
    """A fresh server process, on a new SQLite file unless told otherwise; yields its port."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port = listener.getsockname()[1]
        url = store or f"sqlite:///{Path(folder) / 'bench.db'}"
        process = subprocess.Popen(  # noqa: ASYNC220 - short, and nothing else runs yet
            [sys.executable, "-m", "benchmarks.server", url],
            pass_fds=[listener.fileno()],
            env={**os.environ, "BENCH_FD": str(listener.fileno())},
        )
        try:
            await call(port, "GET", "/cost")
            yield port
        finally:
            process.kill()  # what it kept is thrown away with it
            process.wait(10)


async def catch_up(port: int) -> tuple[float, str]:
    events = 10_000
    stream = (await call(port, "POST", f"/start?events={events}"))["id"]
    await call(port, "POST", "/go")
    expected = zlib.crc32(await call(port, "GET", f"/expected/{stream}"))
    took: dict[str, list[float]] = {"stream": [], "plain": []}
    await (await connect(port, f"/stream/{stream}")).done
    for _ in range(REPETITIONS):
        for kind, times in took.items():
            got = await (await connect(port, f"/{kind}/{stream}")).done
            assert got.checksum == expected, kind
            times.append(got.took_s)
    ours, plain = median(took["stream"]), median(took["plain"])
    return plain / ours, f"{ours * 1e3:.1f} ms beside {plain * 1e3:.1f} ms for 10,000 events"


async def fan_out(port: int, readers: int, events: int, *, paced: bool, kind: str) -> tuple[float, float]:
    """Readers of one stream; returns events delivered per second, and CPU microseconds of the server per event."""
    stream = (await call(port, "POST", f"/start?events={events}&paced={int(paced)}"))["id"]
    expected = zlib.crc32(await call(port, "GET", f"/expected/{stream}"))
    path = f"/{kind}/{stream}?paced={int(paced)}"
    attached: list[Reader] = []
    for begin in range(0, readers, 50):
        attached += await asyncio.gather(*(connect(port, path) for _ in range(min(50, readers - begin))))
    await asyncio.gather(*(reader.begun for reader in attached))
    before = await call(port, "GET", "/cost")
    began = asyncio.get_running_loop().time()
    await call(port, "POST", f"/go?beats={events + 2 if paced and kind == 'plain' else 0}")
    got = await asyncio.gather(*(reader.done for reader in attached))
    took = asyncio.get_running_loop().time() - began
    after = await call(port, "GET", "/cost")
    assert all(each.checksum == expected for each in got), kind
    return readers * events / took, (after["cpu_s"] - before["cpu_s"]) / (readers * events) * 1e6


async def compare(port: int, readers: int, events: int, *, paced: bool) -> tuple[list[float], list[float]]:
    """Medians of (delivered/s, CPU us) for ours and for plain responses."""
    found: dict[str, list[tuple[float, float]]] = {"stream": [], "plain": []}
    for _ in range(REPETITIONS):
        for kind, results in found.items():
            results.append(await fan_out(port, readers, events, paced=paced, kind=kind))
    ours, plain = ([median(values) for values in zip(*found[kind], strict=True)] for kind in ("stream", "plain"))
    return ours, plain


async def cost(port: int) -> tuple[float, float, float]:
    """KiB per idle attached reader, KiB per idle live stream, tasks per reader."""
    streams, readers = 2_000, 1_000
    await call(port, "POST", "/idle?streams=100")
    first = await call(port, "GET", "/cost")
    await call(port, "POST", f"/idle?streams={streams}")
    second = await call(port, "GET", "/cost")
    stream = (await call(port, "POST", "/start?events=10"))["id"]
    warm = [await connect(port, f"/stream/{stream}") for _ in range(20)]
    third = await call(port, "GET", "/cost")
    attached = [await connect(port, f"/stream/{stream}") for _ in range(readers)]
    await asyncio.gather(*(reader.begun for reader in attached))
    fourth = await call(port, "GET", "/cost")
    for reader in [*warm, *attached]:
        reader.transport.abort()
        reader.done.exception() if reader.done.done() else reader.done.cancel()
    per_reader = (fourth["rss"] - third["rss"]) / readers / 1024
    per_stream = (second["rss"] - first["rss"]) / streams / 1024
    return per_reader, per_stream, (fourth["tasks"] - third["tasks"]) / readers


async def rows(report: Report) -> None:
    async with serving() as port:
        ratio, detail = await catch_up(port)
        report.add("catch-up over HTTP / event by event", ratio, ">= 2 aim 5", detail)
        for readers, events, goal in ((1, 20_000, ">= 1.0"), (100, 1_000, ">= 2.5"), (1_000, 200, ">= 2.5")):
            ours, plain = await compare(port, readers, events, paced=False)
            detail = f"{ours[0] / 1e3:.0f} k/s beside {plain[0] / 1e3:.0f} k/s"
            report.add(f"fan-out flat out, {readers} readers, delivered/s", ours[0] / plain[0], goal, detail)
        ours, plain = await compare(port, 1_000, 150, paced=True)
        detail = f"{ours[1]:.1f} us beside {plain[1]:.1f} us"
        report.add("fan-out at 100/s, 1000 readers, CPU per event", ours[1] / plain[1], "<= 1.1 aim 0.8", detail)
    async with serving() as port:
        per_reader, per_stream, tasks = await cost(port)
        report.add("RSS per idle attached reader, KiB", per_reader, "<= 20")
        report.add("RSS per idle live stream, KiB", per_stream, "<= 10")
        report.add("tasks per reader", tasks, "<= 1")


def run(report: Report) -> None:
    with many_files():
        uvloop.run(rows(report))


if __name__ == "__main__":
    run(Report())
