"""What only the Redis store must keep: few connections, one clock, cancels that arrive, replies to whom they belong."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis_server import RedisServer
from streaming import Scripted, follow, follow_texts, has_stored, until

from playhead import Options, Playhead, Query
from playhead.errors import PlayheadError, StreamNotFound
from playhead.log import Close, Create, Delete, Expire, RequestCancel, Watched
from playhead.model import COMPLETED, Batch, Lease, OutcomeKind, Status
from playhead.store import PAGE_MAX_BYTES, StoreOptions
from playhead.stores.redis import RedisStore
from playhead.stores.redis.scripts import COMMIT

HOUR_S = 3_600
LEASE_S = 1.0


@asynccontextmanager
async def two(url: str, **options: Any) -> AsyncIterator[tuple[Playhead, Playhead]]:
    chosen = Options(**{"lease_s": LEASE_S, "cancel_grace_s": 0.5, **options})
    async with Playhead.open(url, options=chosen) as one, Playhead.open(url, options=chosen) as another:
        yield one, another


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, options=StoreOptions(lease_s=60.0))  # nobody renews it
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def make(store: RedisStore, stream_id: str, **more: Any) -> Lease:
    made = await store.apply(stream_id, Create(producer=store.instance_id, **more))
    return Lease(stream_id, made.info.epoch)


# ---- connections (P9) ----------------------------------------------------------------------------------


class Census:
    """Counts the connections of a Playhead again and again, from a thread and a connection of its own."""

    def __init__(self, server: RedisServer) -> None:
        self.most = 0
        self.names: set[str] = set()
        self.looks = 0
        self._server = server
        self._stopped = asyncio.Event()

    async def __aenter__(self) -> "Census":
        self._task = asyncio.create_task(asyncio.to_thread(self._count))
        return self

    def _count(self) -> None:
        with redis.Redis(port=self._server.port) as client:
            while not self._stopped.is_set():
                names = [row["name"] for row in client.client_list() if row["name"].startswith("playhead")]
                self.most = max(self.most, len(names))
                self.names |= set(names)
                self.looks += 1
                time.sleep(0.003)

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await self._task


@pytest.mark.parametrize("readers", [1, 5_000])
@pytest.mark.proves("P9.1")
async def test_never_more_than_four_connections(redis_url: str, redis_server: RedisServer, readers: int) -> None:
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")  # of tests before this one, if there are any left
    async with Census(redis_server) as census:
        async with Playhead.open(redis_url, options=Options(lease_s=0.5)) as playhead:
            store = playhead.store
            assert isinstance(store, RedisStore)
            leases = await asyncio.gather(*(make(store, f"s{number}") for number in range(readers)))
            undo = [store.watch_thread(lease.stream_id, lambda: None) for lease in leases]
            tails = [playhead.tail(lease.stream_id) for lease in leases]
            reading = [asyncio.create_task(anext(tail)) for tail in tails]
            await until(lambda: all(tail.is_waiting for tail in tails), 30)
            await asyncio.gather(
                *(store.append(lease, Batch(1, lease.epoch, "text", [lease.stream_id.encode()])) for lease in leases)
            )
            async with asyncio.timeout(60):
                got = await asyncio.gather(*reading)
            assert [event.text for event in got] == [lease.stream_id for lease in leases]
            looks = census.looks
            await until(lambda: census.looks > looks + 20)  # with a heartbeat among them
            for tail in tails:
                await tail.aclose()
            for gone in undo:
                gone()
            await until(lambda: redis_server.command("PUBSUB", "CHANNELS", "playhead:*") == [])
        assert len(store._watchers) == len(store._thread_watchers) == 0
    assert 3 <= census.most <= 4, census.names


# ---- one connection, many callers (P10) ----------------------------------------------------------------


class Mixed:
    """Random calls on shared streams; whatever comes back must be about the stream that was asked about."""

    def __init__(self, store: RedisStore, leases: list[Lease], chance: random.Random) -> None:
        self.store, self.leases, self.chance = store, leases, chance
        self.tails = [0] * len(leases)
        self.made = 0

    def any(self) -> Callable[[], Awaitable[None]]:
        return self.chance.choice([self.load, self.read, self.find, self.apply, self.append, self.create])

    @property
    def number(self) -> int:
        return self.chance.randrange(len(self.leases))

    async def load(self) -> None:
        name = self.leases[self.number].stream_id
        info = await self.store.load(name)
        assert info.stream_id == name
        assert info.metadata == {"name": name}

    async def read(self) -> None:
        name = self.leases[self.number].stream_id
        page = await self.store.read(name, 0)
        assert page.info.stream_id == name
        for batch in page.batches:
            assert batch.datas == [f"{name} {batch.first}".encode()]

    async def find(self) -> None:
        name = self.leases[self.number].stream_id
        found = await self.store.find(Query(owner=name))
        assert [info.stream_id for info in found] == [name]

    async def apply(self) -> None:
        name = self.leases[self.number].stream_id
        applied = await self.store.apply(name, Watched())
        assert applied.info.stream_id == name
        assert applied.info.metadata == {"name": name}

    async def append(self) -> None:
        number = self.number
        lease, first = self.leases[number], self.tails[number] + 1
        self.tails[number] = first
        await self.store.append(lease, Batch(first, lease.epoch, "text", [f"{lease.stream_id} {first}".encode()]))

    async def create(self) -> None:
        self.made += 1
        name = f"extra {self.made}"
        made = Create(producer=self.store.instance_id, thread_id=f"t {name}", idempotency_key=name)
        info = (await self.store.apply(name, made)).info
        assert (info.stream_id, info.thread_id) == (name, f"t {name}")
        await self.store.apply(name, Delete())


@pytest.mark.proves("P10.1", "P10.2")
async def test_thousands_of_cancels_on_one_connection(redis_url: str) -> None:
    """Not one of 5,000 abandoned commands makes another caller get its reply, or wait."""
    chance = random.Random(10)
    cancelled = answered = 0
    longest_s = 0.0

    async with opened(redis_url) as store:
        assert store._parts is not None
        names = [f"stream {number}" for number in range(40)]
        leases = [await make(store, name, owner=name, metadata={"name": name}) for name in names]
        mixed = Mixed(store, leases, chance)
        tasks_before = asyncio.all_tasks()
        looking = True

        async def hurt() -> None:
            nonlocal cancelled, answered
            for _ in range(170):
                call = asyncio.ensure_future(mixed.any()())
                if chance.random() < 0.5:
                    for _ in range(chance.randrange(4)):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(chance.random() ** 2 * 0.004)
                call.cancel()
                try:
                    await call
                    answered += 1
                except asyncio.CancelledError:
                    cancelled += 1

        async def calm() -> None:
            """Somebody whom nobody cancels."""
            nonlocal longest_s
            while looking:
                began = time.monotonic()
                await mixed.load()
                await mixed.read()
                await mixed.find()
                longest_s = max(longest_s, time.monotonic() - began)

        calm_ones = [asyncio.create_task(calm()) for _ in range(3)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(hurt() for _ in range(40)))
        looking = False
        await asyncio.gather(*calm_ones)
        assert cancelled + answered == 6_800
        assert cancelled >= 3_000
        assert longest_s < 20.0  # a reply that went astray never comes

        # What was begun is carried out, in order, each on its own stream.
        await until(lambda: not store._appends_left)
        for lease, tail in zip(leases, mixed.tails, strict=True):
            page = await store.read(lease.stream_id, 0)
            assert page.info.tail == tail
            right = [f"{lease.stream_id} {number}".encode() for number in range(1, tail + 1)]
            assert [data for batch in page.batches for data in batch.datas] == right
        await until(lambda: asyncio.all_tasks() <= tasks_before)
        for node in store._parts.router._nodes.values():
            for link in node.lanes:
                assert link._wire is not None
                assert not link._wire._waiting
                assert not link._queue
        assert not store._held


# ---- clocks --------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, sys, time

shift_s, url, name = float(sys.argv[1]), sys.argv[2], sys.argv[3]
true_time = time.time
time.time = lambda: true_time() + shift_s

from playhead import Options, Playhead

async def source():
    while True:
        yield "x"
        await asyncio.sleep(0.02)

async def main():
    async with Playhead.open(url, options=Options(lease_s=3.0, cancel_grace_s=0.2)) as playhead:
        info = await playhead.start(source(), stream_id=name)
        print(info.created_at, flush=True)
        await playhead.wait(name)

asyncio.run(main())
"""


class Shifted:
    """A process whose machine's clock is wrong, with a stream that is named like it."""

    def __init__(self, url: str, shift_s: float) -> None:
        self.name = f"shifted {shift_s}"
        words = [sys.executable, "-c", _CHILD, str(shift_s), url, self.name]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parent)

    def created_at(self) -> float:
        assert self.process.stdout is not None
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()


async def test_leases_go_by_the_clock_of_redis_alone(redis_url: str, redis_server: RedisServer) -> None:
    lease_s = 3.0  # as the children's: all of them sweep, and nobody may be as late as two thirds of it
    children = [Shifted(redis_url, shift_s) for shift_s in (HOUR_S, -HOUR_S)]
    try:
        async with two(redis_url, lease_s=lease_s) as (playhead, _):
            await playhead.start(Scripted("a"), stream_id="right")
            for child in children:
                created_at = await asyncio.to_thread(child.created_at)
                seconds, _ = await asyncio.to_thread(redis_server.command, "TIME")
                assert abs(created_at - seconds) < 10
            names = ["right", *(child.name for child in children)]

            # Everybody is alive in everybody's eyes, for much longer than a lease.
            async with asyncio.timeout(60):
                for _ in range(int(2 * lease_s / 0.1)):
                    await asyncio.sleep(0.1)
                    assert all([(await playhead.info(name)).is_live for name in names])

            # One that stops renewing is not, neither at once nor an hour later.
            for child in children:
                words = ["ZSCORE", "playhead:1:instances", (await playhead.info(child.name)).producer]
                os.kill(child.process.pid, signal.SIGSTOP)
                lease_until = float(await asyncio.to_thread(redis_server.command, *words))
                info = await asyncio.wait_for(playhead.wait(child.name), 60)
                assert info.outcome is not None
                assert info.outcome.kind is OutcomeKind.INTERRUPTED
                assert info.closed_at is not None
                assert info.closed_at > lease_until - 1  # who closes knows Redis's clock to half a round trip
            assert (await playhead.info("right")).is_live
            await playhead.cancel("right")
    finally:
        for child in children:
            child.end()


async def test_a_clock_that_is_set_while_we_run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true_time = time.time
    async with two(redis_url) as (playhead, other):
        await playhead.start(Scripted("a"), stream_id="s")
        for shift_s in (HOUR_S, -HOUR_S, 0):
            monkeypatch.setattr(time, "time", lambda shift_s=shift_s: true_time() + shift_s)
            assert abs(playhead.store.now() - true_time()) < 5
            await asyncio.sleep(1.2 * LEASE_S)
            assert (await other.info("s")).is_live
        await other.cancel("s")
        assert (await follow(playhead, "s"))[0].text == "a"


# ---- cancel --------------------------------------------------------------------------------------------


async def deaf(playhead: Playhead) -> None:
    """It hears of nothing any more, and does not listen anew."""
    store = playhead.store
    assert isinstance(store, RedisStore)
    assert store._parts is not None
    await store._parts.listener.close()


async def cancel_takes_s(here: Playhead, there: Playhead, name: str = "s", source: Any = None) -> float:
    """From the cancel on one instance to the end of the source on another."""
    source = source or Scripted("a")
    await here.start(source, stream_id=name)
    await has_stored(here, name, 1)
    began = time.monotonic()
    await there.cancel(name, reason="enough")
    assert (await there.info(name)).cancel is not None  # stored
    async with asyncio.timeout(60):
        await source.ended.wait()
    took_s = time.monotonic() - began
    await here.wait(name)
    info = await there.info(name)
    assert info.outcome is not None
    assert (info.outcome.kind, info.outcome.reason) == (OutcomeKind.CANCELLED, "enough")
    return took_s


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.stores.redis.store.LOOK_EVERY_S", 60.0)


async def test_a_cancel_is_signalled_within_50_ms(redis_url: str, no_looks: None) -> None:
    async with two(redis_url, lease_s=120.0) as (here, there):
        took_s = [await cancel_takes_s(here, there, f"s{number}") for number in range(21)]
    assert sorted(took_s)[5] < 0.05, took_s  # the machine may be busy at times
    assert max(took_s) < 10, took_s  # the heartbeat comes every 40 s, a look every 48 s


async def test_the_heartbeat_alone_sees_a_cancel(redis_url: str, no_looks: None) -> None:
    async with two(redis_url) as (here, there):
        await deaf(here)
        for number in range(3):
            assert await cancel_takes_s(here, there, f"s{number}") < 20  # a look comes after 48 s


async def test_a_look_now_and_then_alone_sees_a_cancel(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.stores.redis.store.LOOK_EVERY_S", 0.1)
    async with two(redis_url, lease_s=120.0) as (here, there):
        await deaf(here)
        source = Scripted("a")
        await here.start(source, stream_id="s")
        await asyncio.sleep(0.5)
        await there.cancel("s")
        async with asyncio.timeout(15):  # the heartbeat comes every 40 s
            await source.ended.wait()


class Talking(Scripted):
    """Never stops by itself."""

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            while True:
                yield "word "
                await asyncio.sleep(0.02)
        finally:
            self.ended.set()


async def test_an_append_alone_sees_a_cancel(redis_url: str, no_looks: None) -> None:
    async with two(redis_url, lease_s=120.0) as (here, there):
        await deaf(here)
        assert await cancel_takes_s(here, there, source=Talking()) < 10  # the heartbeat comes every 40 s


async def test_a_cancel_just_after_all_listeners_were_cut_off(
    redis_url: str, redis_server: RedisServer, no_looks: None
) -> None:
    async with two(redis_url) as (here, there):
        for number in range(5):
            source = Scripted("a")
            await here.start(source, stream_id=f"s{number}")
            await has_stored(there, f"s{number}", 1)
            redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await there.cancel(f"s{number}")
            async with asyncio.timeout(20):  # a look comes after 48 s
                await source.ended.wait()


async def test_a_cancel_before_the_first_event_and_without_a_producer(redis_url: str) -> None:
    async with two(redis_url) as (here, there):
        writer = await here.produce("s", keep_open=True)
        await writer.release()
        await there.cancel("s", reason="nobody is there")
        info = await here.info("s")
        assert info.outcome is not None
        assert info.outcome.kind is OutcomeKind.CANCELLED


async def test_cancels_that_a_dead_letterbox_held_are_not_lost(redis_url: str) -> None:
    """More of them than one heartbeat fetches."""
    async with opened(redis_url) as store, opened(redis_url) as other:
        leases = await asyncio.gather(*(make(store, f"s{number}") for number in range(1_500)))
        told: set[str] = set()
        undo = [
            store.watch(lease.stream_id, lambda _, info, name=lease.stream_id: told.add(name) if not info else None)
            for lease in leases
        ]
        assert store._parts is not None
        await store._parts.listener.close()
        told.clear()
        await asyncio.gather(*(other.apply(lease.stream_id, RequestCancel()) for lease in leases))
        for _ in range(2):
            await asyncio.to_thread(store.renew)
        await until(lambda: len(told) == len(leases))
        for undone in undo:
            undone()


# ---- memory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pause_s", "most"),
    [
        pytest.param(0.0, 0.8, id="as fast as it can be stored"),
        # Each token is an entry of its own then, with a head of its own: there is nothing to save.
        pytest.param(0.0005, 1.7, id="slower than it can be stored"),
    ],
)
async def test_memory_of_an_answer_against_one_xadd_for_each_token(
    redis_url: str, redis_server: RedisServer, capsys: pytest.CaptureFixture[str], pause_s: float, most: float
) -> None:
    words = (Path(__file__).parent / "answer.md").read_text().split(" ")
    tokens = [words[number % len(words)] + " " for number in range(2_000)]

    async def answer() -> AsyncIterator[str]:
        for token in tokens:
            yield token
            await asyncio.sleep(pause_s)

    async with Playhead.open(redis_url) as playhead:
        await playhead.start(answer(), stream_id="s")
        assert await follow_texts(playhead, "s") == tokens
        with redis.Redis(port=redis_server.port) as client:
            for token in tokens:
                client.xadd("bare", {"type": "text", "data": token})
            ours, bare = (client.memory_usage(key, samples=0) for key in ("playhead:1:{s:s}:log", "bare"))
            entries = client.xlen("playhead:1:{s:s}:log")
    with capsys.disabled():
        print(
            f"\nbytes in Redis per event: {ours / 2_000:.1f} in {entries} entries, against {bare / 2_000:.1f}"
            f" with one XADD each: {ours / bare:.2f} ×"
        )
    assert ours < most * bare


# ---- big things ----------------------------------------------------------------------------------------


async def test_events_of_a_mebibyte(redis_url: str) -> None:
    datas = [bytes([65 + number]) * 1024 * 1024 for number in range(6)]
    async with two(redis_url) as (here, there):
        source = Scripted(*datas[:3], then=tuple(datas[3:]))
        await here.start(source, stream_id="s")
        reading = asyncio.create_task(follow(there, "s"))
        await source.said.wait()
        source.go_on.set()
        assert [event.data for event in await reading] == datas
        assert [event.data for event in await follow(here, "s")] == datas


async def test_a_long_stream_comes_in_pages(redis_url: str) -> None:
    """10,000 entries of different sizes, some larger than a page, from anywhere."""
    chance = random.Random(3)
    count = 10_000

    def data(number: int) -> bytes:
        return f"{number} ".encode() * (60_000 if number % 2_500 == 0 else number % 40)

    async with opened(redis_url) as store, opened(redis_url) as other:
        lease = await make(store, "s")
        appended = [store.append(lease, Batch(n, lease.epoch, "text", [data(n)])) for n in range(1, count + 1)]
        await asyncio.gather(*appended)
        await store.apply("s", Close(lease.epoch, COMPLETED))
        for after in (0, count - 1, count, *(chance.randrange(count) for _ in range(5))):
            position, pages = after, 0
            while True:
                page = await other.read("s", position)
                if not page.batches:
                    break
                assert len(page.batches) == 1 or sum(batch.size_bytes for batch in page.batches) < 2 * PAGE_MAX_BYTES
                for batch in page.batches:
                    assert (batch.first, batch.datas) == (position + 1, [data(position + 1)])
                    position = batch.last
                pages += 1
            assert position == count
            assert pages <= 2 + sum(len(data(n)) + 40 for n in range(after + 1, count + 1)) / (PAGE_MAX_BYTES / 2)


async def test_an_abandoned_append_is_refused_by_name(redis_url: str) -> None:
    """Each kind of refusal of the script becomes its own error."""
    async with opened(redis_url) as store:
        lease = await make(store, "s")
        batch = Batch(1, lease.epoch, "text", [b"a"])
        await store.append(lease, batch)
        refused: dict[str, Any] = {
            "AppendRepeat": (lease, batch),
            "AppendGap": (lease, Batch(3, lease.epoch, "text", [b"c"])),
            "Fenced": (Lease("s", lease.epoch + 1), Batch(2, lease.epoch + 1, "text", [b"b"])),
            "StreamNotFound": (Lease("unknown", 1), batch),
        }
        for name, (with_lease, what) in refused.items():
            with pytest.raises(PlayheadError) as error:
                await store.append(with_lease, what)
            assert type(error.value).__name__ == name


# ---- what goes ---------------------------------------------------------------------------------------------


async def test_many_short_logs_are_freed_in_few_rounds(redis_url: str, redis_server: RedisServer) -> None:
    """Also when streams that had expired before are forgotten meanwhile."""
    async with opened(redis_url) as store:
        leases = await asyncio.gather(*(make(store, f"s{number}") for number in range(300)))
        for number in range(1, 6):
            batch = [store.append(lease, Batch(number, lease.epoch, "text", [b"x"])) for lease in leases]
            await asyncio.gather(*batch)
        for lease in leases:
            await store.apply(lease.stream_id, Close(lease.epoch, COMPLETED))
            await store.apply(lease.stream_id, Delete())
        rounds = 0
        while await store.purge(200):
            rounds += 1
        assert rounds <= 300 * 5 / 200 + 1
        assert redis_server.command("EXISTS", "playhead:1:garbage") == 0
        assert [key for key in redis_server.command("KEYS", "playhead:1:*") if b":gone:" in key] == []


async def test_an_expired_stream_leaves_nothing_to_be_freed_when_it_is_forgotten(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with opened(redis_url) as store:
        lease = await make(store, "s", retention_s=0.0)
        await store.append(lease, Batch(1, lease.epoch, "text", [b"x"]))
        await store.apply("s", Close(lease.epoch, COMPLETED))
        await asyncio.sleep(0.01)
        assert (await store.apply("s", Expire(0.0, 0.0))).info.status is Status.EXPIRED
        assert await store.purge(200) == 1
        await asyncio.sleep(0.01)
        await store.apply("s", Expire(0.0, 0.0))
        with pytest.raises(StreamNotFound):
            await store.load("s")
        assert redis_server.command("EXISTS", "playhead:1:garbage") == 0


async def test_databases_of_one_redis_do_not_hear_of_each_other(redis_url: str) -> None:
    async with two(redis_url) as (here, _), two(redis_url.removesuffix("/0") + "/1") as (there, _):
        source = Scripted("a")
        await there.start(source, stream_id="s")
        reading = asyncio.create_task(follow(there, "s"))
        await has_stored(there, "s", 1)
        await here.start(Scripted("b"), stream_id="s")
        await has_stored(here, "s", 1)
        await here.delete("s")
        source.go_on.set()
        assert [event.text for event in await reading] == ["a"]


async def test_databases_of_one_redis_do_not_hear_of_each_others_threads(redis_url: str) -> None:
    async with opened(redis_url) as here, opened(redis_url.removesuffix("/0") + "/1") as there:
        woken: list[str] = []
        here.watch_thread("t", lambda: woken.append("here"))
        there.watch_thread("t", lambda: woken.append("there"))
        await until(lambda: len(woken) == 2)  # confirmed
        await make(there, "s", thread_id="t")
        await until(lambda: len(woken) == 3)
        await make(here, "s", thread_id="t")
        await until(lambda: len(woken) == 4)
        assert woken[2:] == ["there", "here"]


async def test_who_waits_for_a_stream_is_woken_when_the_connection_is_back(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with opened(redis_url) as here, opened(redis_url) as there:
        woken: dict[str, int] = {"t": 0, "u": 0}
        for thread_id in woken:
            here.watch_thread(thread_id, lambda name=thread_id: woken.update({name: woken[name] + 1}))
        for times in (1, 2, 3):
            await until(lambda times=times: set(woken.values()) == {times})
            redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await make(there, "s", thread_id="t")
        await until(lambda: min(woken.values()) >= 4)


async def test_a_stream_is_made_and_told_of_in_one_step(redis_url: str) -> None:
    """So whoever is woken finds it, and no death in between leaves it untold."""
    async with opened(redis_url) as store:
        router, said = store._opened().router, list[Sequence[Any]]()
        call = router.call

        def heard(lane: int, key: bytes, words: list[Any], *answer: Any, **more: Any) -> None:
            said.append(words)
            call(lane, key, words, *answer, **more)

        router.call = heard  # type: ignore[method-assign]
        await make(store, "s", thread_id="t")
        assert [words[1] for words in said if store._keys.begun("t") in words] == [COMMIT.sha]
