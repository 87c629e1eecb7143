"""What one event costs each process, and what that comes to: the figures of docs/scaling.md.

CPU seconds, not delays: 50 streams at 100 events/s, written by one process, read by another, each event an append of
its own (the dearest case; a busy process packs several into one). Redis's own CPU and memory are asked from Redis.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any, cast

import uvloop

from benchmarks.delay import EVENTS, PACE_S, STREAMS, source
from benchmarks.redis_process import RedisServer, role, running_redis
from benchmarks.report import Report
from playhead import Playhead

ROUNDS = 3
TOTAL = STREAMS * EVENTS
SHARE = 0.7
"""Of a core, or of Redis: what is planned for; the rest is for bursts."""


async def read(url: str) -> float:
    async def follow(playhead: Playhead, stream_id: str) -> None:
        assert len([event async for event in playhead.tail(stream_id)]) == EVENTS

    async with Playhead.open(url) as playhead:
        follows = [asyncio.create_task(follow(playhead, f"s{n}")) for n in range(STREAMS)]
        await asyncio.sleep(0.3)
        print("ready", flush=True)
        began = time.process_time()
        await asyncio.gather(*follows)
        return time.process_time() - began


async def write(redis: RedisServer, reader: Any) -> tuple[float, float, float]:
    """CPU seconds of writer, reader and Redis."""
    async with Playhead.open(redis.url) as playhead:
        go = asyncio.Event()

        async def waiting(n: int) -> AsyncIterator[bytes]:
            await go.wait()
            async for item in source(PACE_S * n / STREAMS):
                yield item

        for n in range(STREAMS):
            await playhead.start(waiting(n), stream_id=f"s{n}")
        reader.stdin.write("go\n")
        reader.stdin.flush()
        assert await asyncio.to_thread(reader.stdout.readline) == "ready\n"
        cpu, own = redis_cpu(redis), time.process_time()
        go.set()
        reading = cast(float, json.loads(await asyncio.to_thread(reader.stdout.readline)))
        return time.process_time() - own, reading, redis_cpu(redis) - cpu


def redis_cpu(redis: RedisServer) -> float:
    facts = redis.command("INFO", "CPU")
    return float(facts["used_cpu_user"] + facts["used_cpu_sys"])


def bytes_per_event(redis: RedisServer) -> tuple[float, float]:
    """In Redis: recorded by Playhead, and as one XADD per event with three fields, as chat templates write them."""
    ours = redis.command("MEMORY", "USAGE", "playhead:1:{s:s0}:log", "SAMPLES", 0)
    for number in range(EVENTS):
        redis.command("XADD", "plain", "*", "type", "token", "data", "." * 50, "seq", number)
    return ours / EVENTS, redis.command("MEMORY", "USAGE", "plain", "SAMPLES", 0) / EVENTS


def run(report: Report) -> None:
    found: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        with running_redis() as redis, role("benchmarks.capacity", "read", redis.url) as reader:
            found.append(uvloop.run(write(redis, reader)))
            size, plain = bytes_per_event(redis)
    writer, reading, server = (median(each) / TOTAL * 1e6 for each in zip(*found, strict=True))
    report.add(
        "bytes per event in Redis / one XADD per token", size / plain, "<= 1", f"{size:.0f} B beside {plain:.0f} B"
    )
    report.add("CPU of the writing process per event, us", writer, "<= 200")
    report.add("CPU of the reading process per event, us", reading, "<= 200")
    report.add("CPU of Redis per event, us", server, "<= 100")
    print(f"\n  events/s of one writing process  = {SHARE} / {writer:.0f} us = {SHARE / writer * 1e6:,.0f}")
    print(f"  events/s of one reading process  = {SHARE} / {reading:.0f} us = {SHARE / reading * 1e6:,.0f}")
    print(f"  events/s of one Redis            = {SHARE} / {server:.0f} us = {SHARE / server * 1e6:,.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        sys.stdin.readline()
        print(json.dumps(uvloop.run(read(sys.argv[2]))), flush=True)
    else:
        run(Report())
