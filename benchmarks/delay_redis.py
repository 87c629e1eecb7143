"""Delay from yield to a reader in another process, 50 streams at 100 events/s, beside raw PUBLISH → receive.

Both sides are two processes on one Redis. The baseline writes and parses Redis's protocol by hand (hiredis, no library
around it), stores nothing, and publishes the same bytes at the same pace on 50 channels.
"""

import asyncio
import json
import struct
import sys
import time
from typing import Any, cast

import hiredis
import uvloop

from benchmarks.delay import EVENTS, PACE_S, STREAMS, source
from benchmarks.redis_process import role, running_redis
from benchmarks.report import Report, percentile, settle_down
from playhead import Playhead

ROUNDS = 5
WARM_UP = 10


def age_ms(data: bytes) -> float:
    return (time.perf_counter_ns() - struct.unpack_from("<Q", data)[0]) / 1e6


# ---- Playhead ----------------------------------------------------------------------------------------


async def read(url: str) -> list[float]:
    seen: list[float] = []

    async def follow(playhead: Playhead, stream_id: str) -> None:
        count = 0
        async for event in playhead.tail(stream_id):
            count += 1
            if count > WARM_UP:
                seen.append(age_ms(event.data))
        assert count == EVENTS, count

    async with Playhead.open(url) as playhead:
        ids = [f"s{n}" for n in range(STREAMS)]
        follows = [asyncio.create_task(follow(playhead, stream_id)) for stream_id in ids]
        await asyncio.sleep(0.3)
        print("ready", flush=True)
        await asyncio.gather(*follows)
    return seen


async def write(url: str, reader: Any) -> list[float]:
    async with Playhead.open(url) as playhead:
        go = asyncio.Event()

        async def waiting(n: int) -> Any:
            await go.wait()
            async for item in source(PACE_S * n / STREAMS):
                yield item

        for n in range(STREAMS):
            await playhead.start(waiting(n), stream_id=f"s{n}")
        reader.stdin.write("go\n")
        reader.stdin.flush()
        assert await asyncio.to_thread(reader.stdout.readline) == "ready\n"
        go.set()
        return cast(list[float], json.loads(await asyncio.to_thread(reader.stdout.readline)))


# ---- raw ---------------------------------------------------------------------------------------------


class Raw(asyncio.Protocol):
    def __init__(self, heard: Any = None) -> None:
        self.parser = hiredis.Reader()
        self.heard = heard

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed(data)
        while (reply := self.parser.gets()) is not False:
            if self.heard is not None:
                self.heard(reply)


async def raw_read(port: int) -> list[float]:
    seen: list[float] = []
    left = STREAMS * EVENTS
    over = asyncio.get_running_loop().create_future()

    def heard(message: Any) -> None:
        nonlocal left
        if message[0] == b"message":
            left -= 1
            if left < STREAMS * (EVENTS - WARM_UP):
                seen.append(age_ms(message[2]))
            if not left:
                over.set_result(None)

    _, raw = await asyncio.get_running_loop().create_connection(lambda: Raw(heard), "127.0.0.1", port)
    raw.transport.write(hiredis.pack_command(("SUBSCRIBE", *(f"raw{n}" for n in range(STREAMS)))))
    await asyncio.sleep(0.3)
    print("ready", flush=True)
    await over
    return seen


async def raw_write(port: int, reader: Any) -> list[float]:
    _, raw = await asyncio.get_running_loop().create_connection(Raw, "127.0.0.1", port)
    reader.stdin.write("go\n")
    reader.stdin.flush()
    assert await asyncio.to_thread(reader.stdout.readline) == "ready\n"

    async def publish(n: int) -> None:
        async for item in source(PACE_S * n / STREAMS):
            raw.transport.write(hiredis.pack_command(("PUBLISH", f"raw{n}", item)))

    await asyncio.gather(*map(publish, range(STREAMS)))
    return cast(list[float], json.loads(await asyncio.to_thread(reader.stdout.readline)))


def measure() -> tuple[list[float], list[float]]:
    settle_down()
    ours: list[float] = []
    raw: list[float] = []
    for _ in range(ROUNDS):
        with running_redis() as redis:
            with role("benchmarks.delay_redis", "read", redis.url) as reader:
                ours += uvloop.run(write(redis.url, reader))
            with role("benchmarks.delay_redis", "raw", str(redis.port)) as reader:
                raw += uvloop.run(raw_write(redis.port, reader))
    return ours, raw


def run(report: Report) -> None:
    ours, raw = measure()
    for share, name, goal in ((0.5, "p50", "<= 2.5 aim 1.5"), (0.99, "p99", "<= 4")):
        found, alone = percentile(ours, share), percentile(raw, share)
        detail = f"{found:.3f} ms / {alone:.3f} ms"
        report.add(f"delay to another process, Redis {name} / raw publish", found / alone, goal, detail)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        settle_down()
        sys.stdin.readline()
        side = read(sys.argv[2]) if sys.argv[1] == "read" else raw_read(int(sys.argv[2]))
        print(json.dumps(uvloop.run(side)), flush=True)
    else:
        run(Report())
