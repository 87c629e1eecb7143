"""Rows of many instances on one Redis: record, a peer, cancel from elsewhere, idle readers, many live streams.

A figure of a fixed bound (milliseconds, connections) has no baseline; all others are beside one, in the same run.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import AsyncIterator
from statistics import median
from typing import Any

import uvloop
from resumable_stream import RedisPublisher, RedisSubscriber, create_resumable_stream_context
from resumable_stream.types import CreateResumableStreamContextOptions

from benchmarks import record
from benchmarks.delay_redis import age_ms
from benchmarks.load import call, connect, many_files
from benchmarks.over_http import serving
from benchmarks.redis_process import RedisServer, role, running_redis
from benchmarks.report import REPETITIONS, Report, percentile
from playhead import Playhead

PEER_STREAMS, PEER_TOKENS = 20, 200  # with 100 streams the peer runs out of its 100 connections
CANCELS = 300
IDLE_READERS = 5_000
LIVE_STREAMS, LIVE_S = 10_000, 12


# ---- record ------------------------------------------------------------------------------------------


async def peer(url: str) -> float:
    """The same work with the package resumable-stream: record, and follow with a resumed reader."""
    publisher, subscriber = RedisPublisher(url), RedisSubscriber(url)
    await publisher.connect()
    await subscriber.connect()
    options = CreateResumableStreamContextOptions(publisher=publisher, subscriber=subscriber, key_prefix="peer")
    context = create_resumable_stream_context(options)
    words = record.WORDS[:PEER_TOKENS]

    async def one(number: int) -> None:
        attached = asyncio.Event()

        async def source() -> AsyncIterator[str]:
            await attached.wait()
            for word in words:
                yield word
                await asyncio.sleep(0)

        stream = await context.create_new_resumable_stream(f"s{number}", source)
        resumed = await context.resume_existing_stream(f"s{number}")
        attached.set()
        local = asyncio.create_task(_joined(stream))
        await _joined(resumed)
        assert await local == "".join(words)

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(PEER_STREAMS)))
    return time.perf_counter() - began


async def _joined(stream: Any) -> str:
    return "".join([chunk async for chunk in stream])


def record_rows(report: Report, redis: RedisServer) -> None:
    bare, ours, theirs = [], [], []
    for _ in range(REPETITIONS):
        bare.append(uvloop.run(record.bare()))
        redis.command("FLUSHALL")
        ours.append(uvloop.run(record.recorded(redis.url)))
        redis.command("FLUSHALL")
        theirs.append(uvloop.run(peer(redis.url)))
    tokens = record.STREAMS * record.TOKENS
    bare_rate, our_rate = tokens / median(bare), tokens / median(ours)
    detail = f"{our_rate / 1e3:.0f} k/s beside {bare_rate / 1e3:.0f} k/s"
    report.add("record, 100 streams + readers, Redis / bare loop", our_rate / bare_rate, ">= 0.25 aim 0.40", detail)
    their_rate = PEER_STREAMS * PEER_TOKENS / median(theirs)
    detail = f"{our_rate / 1e3:.0f} k/s beside {their_rate / 1e3:.1f} k/s"
    report.add("the same / resumable-stream 0.2.0, resumed readers", our_rate / their_rate, ">= 20", detail)


# ---- cancel ------------------------------------------------------------------------------------------


async def cancels(url: str) -> list[float]:
    """Milliseconds from ``cancel`` on one instance to the source's ``finally`` on another."""
    stopped: dict[str, float] = {}

    async def source(stream_id: str) -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            stopped[stream_id] = time.perf_counter()

    took: list[float] = []
    async with Playhead.open(url) as producer, Playhead.open(url) as other:
        for number in range(CANCELS):
            stream_id = f"c{number}"
            await producer.start(source(stream_id), stream_id=stream_id)
            asked = time.perf_counter()
            await other.cancel(stream_id)
            await other.wait(stream_id)
            took.append((stopped[stream_id] - asked) * 1e3)
    return took


# ---- idle readers ------------------------------------------------------------------------------------


async def idle(report: Report, redis: RedisServer) -> None:
    async with serving(redis.url) as port:
        stream = (await call(port, "POST", "/start?events=10"))["id"]
        before = await call(port, "GET", "/cost")
        attached = []
        for _ in range(IDLE_READERS // 100):
            attached += await asyncio.gather(*(connect(port, f"/stream/{stream}") for _ in range(100)))
        await asyncio.gather(*(reader.begun for reader in attached))
        after = await call(port, "GET", "/cost")
        connections = redis.command("CLIENT", "LIST").count(b"name=playhead")
        report.add("connections to Redis with 5,000 idle HTTP readers", connections, "<= 4")
        await asyncio.sleep(5)
        busy = (await call(port, "GET", "/cost"))["cpu_s"] - after["cpu_s"]
        report.add("CPU of these readers, percent of a core", busy / 5 * 100, "<= 20")
        report.add("RSS per reader of these, KiB", (after["rss"] - before["rss"]) / IDLE_READERS / 1024, "<= 20")
        await call(port, "POST", "/go")
        got = await asyncio.gather(*(reader.done for reader in attached))
        assert len({each.checksum for each in got}) == 1


# ---- many live streams -------------------------------------------------------------------------------


async def write_many(url: str) -> None:
    go = asyncio.Event()

    async def source(number: int) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        await go.wait()
        at = loop.time() + number / LIVE_STREAMS
        for _ in range(LIVE_S):
            await asyncio.sleep(max(0.0, at - loop.time()))
            yield struct.pack("<Q", time.perf_counter_ns()) + b"." * 42
            at += 1

    async with Playhead.open(url) as playhead:
        for number in range(LIVE_STREAMS // 2):
            await playhead.start(source(number), stream_id=f"{sys.argv[3]}{number}")
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        go.set()
        began = time.process_time()
        await asyncio.gather(*(playhead.wait(f"{sys.argv[3]}{number}") for number in range(LIVE_STREAMS // 2)))
        print(json.dumps(time.process_time() - began), flush=True)


async def live(redis: RedisServer) -> list[float]:
    """Delays in ms at readers in a third process, one of ten streams each of two writing processes."""
    seen: list[float] = []

    async def follow(playhead: Playhead, stream_id: str) -> None:
        async for event in playhead.tail(stream_id):
            if event.offset > 2:
                seen.append(age_ms(event.data))  # noqa: PERF401 - the moment counts

    with (
        role("benchmarks.instances", "write", redis.url, "a") as first,
        role("benchmarks.instances", "write", redis.url, "b") as second,
    ):
        async with Playhead.open(redis.url) as playhead:
            for process in (first, second):
                assert process.stdout is not None
                assert await asyncio.to_thread(process.stdout.readline) == "started\n"
            ids = [f"{name}{number}" for name in "ab" for number in range(0, LIVE_STREAMS // 2, 10)]
            following = [asyncio.create_task(follow(playhead, stream_id)) for stream_id in ids]
            await asyncio.sleep(2)
            for process in (first, second):
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            async with asyncio.timeout(60 + 4 * LIVE_S):
                await asyncio.gather(*following)
    return seen


def run(report: Report) -> None:
    with running_redis() as redis:
        record_rows(report, redis)
    with running_redis() as redis:
        took = uvloop.run(cancels(redis.url))
        detail = f"p50 {percentile(took, 0.5):.1f} ms over {CANCELS}"
        report.add("cancel on another instance to source stopped, p99 ms", percentile(took, 0.99), "<= 50", detail)
    with many_files(), running_redis() as redis:
        uvloop.run(idle(report, redis))
    with running_redis() as redis:
        seen = uvloop.run(live(redis))
        detail = f"p50 {percentile(seen, 0.5):.1f} ms, {len(seen):,} events seen"
        report.add("10,000 live streams at 1/s, 2 processes, p99 ms", percentile(seen, 0.99), "<= 1000", detail)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write"]:
        uvloop.run(write_many(sys.argv[2]))
    else:
        run(Report())
