"""Outages of Redis in mid-stream: nothing is lost, nothing comes twice, everybody reads to the end (P1, P2, P6)."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from cutting_proxy import PASS, Fate, cutting_proxy
from redis_crowd import busy_crowd, patient
from redis_server import RedisServer
from stalling_proxy import StallingProxy, stalling_proxy
from streaming import until

from playhead import Options, Playhead, Query
from playhead.errors import StoreUnavailable
from playhead.stores.redis import RedisStore
from playhead.stores.redis.wire import REPLY_MAX_S

LEASE_S = 1.0
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@asynccontextmanager
async def two(url: str, *, other: str | None = None, options: Options | None = None) -> AsyncIterator[list[Playhead]]:
    """Two processes' worth of Playheads that trust each other's leases."""
    options = options or patient(LEASE_S)
    async with Playhead.open(url, options=options) as one, Playhead.open(other or url, options=options) as another:
        yield [one, another]


async def trusting(lease_s: float = LEASE_S) -> None:
    """After connecting nobody's lease is doubted for the first ``lease_s``: the tests are about later."""
    await asyncio.sleep(lease_s)


@contextmanager
def quick_to_give_up(monkeypatch: pytest.MonkeyPatch, *, reply_max_s: float, connect_max_s: float) -> Iterator[None]:
    """Only while the fault lasts: nobody asks again for what a start or an ``info()`` did not get in time."""
    with monkeypatch.context() as quick:
        quick.setattr("playhead.stores.redis.wire.REPLY_MAX_S", reply_max_s)
        quick.setattr("playhead.stores.redis.wire.CONNECT_MAX_S", connect_max_s)
        yield


# ---- what an operator does -----------------------------------------------------------------------------


async def test_scripts_flushed_in_mid_stream(redis_url: str, redis_server: RedisServer) -> None:
    async with two(redis_url, options=patient(30)) as playheads, busy_crowd(*playheads) as busy:
        for _ in range(10):
            await asyncio.to_thread(redis_server.command, "SCRIPT", "FLUSH")
            await busy.more(10)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_connections_killed_in_mid_stream(redis_url: str, redis_server: RedisServer, kind: str) -> None:
    killed = 0
    async with two(redis_url, options=patient(30)) as playheads, busy_crowd(*playheads) as busy:
        for _ in range(10):
            killed += await asyncio.to_thread(redis_server.command, "CLIENT", "KILL", "TYPE", kind)
            await busy.more(10)
    assert killed >= 10


async def test_everything_at_once(redis_url: str, redis_server: RedisServer) -> None:
    chance = random.Random(4)
    said = (["SCRIPT", "FLUSH"], ["CLIENT", "KILL", "TYPE", "normal"], ["CLIENT", "KILL", "TYPE", "pubsub"])
    async with two(redis_url, options=patient(30)) as playheads, busy_crowd(*playheads) as busy:
        for _ in range(60):
            await asyncio.to_thread(redis_server.command, *chance.choice(said))
            await asyncio.sleep(chance.random() * 0.02)
        await busy.more()


# ---- Redis dies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("down_s", [0.5, 2.5 * LEASE_S], ids=["for a moment", "for longer than the lease"])
async def test_redis_is_killed_and_comes_back(make_redis: Callable[..., RedisServer], down_s: float) -> None:
    redis = make_redis(*DURABLE)
    async with two(redis.url) as playheads, busy_crowd(*playheads) as busy:
        await trusting()
        for _ in range(2):
            redis.kill()
            await asyncio.sleep(down_s)
            await asyncio.to_thread(redis.start)
            await busy.more()


@pytest.mark.proves("P6.3")
async def test_who_comes_back_first_does_not_judge_the_others(
    make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leases have run out while Redis was away. One sweeps before the other could renew its own."""
    redis = make_redis(*DURABLE)
    lease_s = 3.0  # so long after Redis is back the quick one may judge: both sweeps must be over by then
    async with two(redis.url, options=patient(lease_s)) as playheads, busy_crowd(*playheads) as busy:
        await trusting(lease_s)
        redis.kill()
        slow, quick = playheads[0].store, playheads[1].store
        renew = slow.renew

        def not_yet() -> None:
            raise StoreUnavailable("the network comes back here a little later")

        monkeypatch.setattr(slow, "renew", not_yet)
        await asyncio.sleep(1.5 * lease_s)
        await asyncio.to_thread(redis.start)
        swept = 0
        orphans = quick.orphans

        async def counted(*, proven: bool) -> list[str]:
            nonlocal swept
            found = await orphans(proven=proven)
            swept += 1
            return found

        monkeypatch.setattr(quick, "orphans", counted)
        await until(lambda: swept >= 2)
        monkeypatch.setattr(slow, "renew", renew)
        await busy.more()


@pytest.mark.soak
async def test_redis_is_killed_again_and_again(make_redis: Callable[..., RedisServer]) -> None:
    redis, chance = make_redis(*DURABLE), random.Random(6)
    async with two(redis.url) as playheads, busy_crowd(*playheads, streams=20) as busy:
        await trusting()
        for _ in range(30):
            redis.kill()
            await asyncio.sleep(chance.random() * 3 * LEASE_S)
            await asyncio.to_thread(redis.start)
            await busy.more()


async def test_what_was_acknowledged_survives_a_kill(make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis(*DURABLE)
    acknowledged: list[str] = []

    async with Playhead.open(redis.url, options=patient(LEASE_S)) as playhead:
        writer = await playhead.produce("s", keep_open=True)
        for round_ in range(3):
            for number in range(50):
                text = f"{round_}.{number}"
                await writer.append(text)
                await writer.flush()
                acknowledged.append(text)
            redis.kill()
            await asyncio.to_thread(redis.start)
            # Somebody who knows nothing of what was written here.
            async with Playhead.open(redis.url, options=patient(LEASE_S)) as other:
                assert [event.text async for event in other.events("s")] == acknowledged
        await writer.release()


async def test_a_frozen_redis(make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected, and silent: for longer than anybody waits for a reply, and longer than the lease."""
    redis = make_redis()
    async with two(redis.url) as playheads, busy_crowd(*playheads) as busy:
        await trusting()
        with quick_to_give_up(monkeypatch, reply_max_s=0.6, connect_max_s=0.4):
            redis.freeze()
            await asyncio.sleep(2 * LEASE_S)
            redis.thaw()
            await busy.more()


async def test_an_outage_that_outlasts_the_patience_ends_the_stream(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis(*DURABLE)
    options = Options(lease_s=LEASE_S, cancel_grace_s=0.2, store_patience_s=0.5)
    stopped = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            while True:
                yield "word "
                await asyncio.sleep(0.01)
        finally:
            stopped.set()

    async with Playhead.open(redis.url, options=options) as playhead:
        await playhead.start(source(), stream_id="s")
        async with playhead.tail("s") as tail:
            await anext(tail)
        redis.kill()
        async with asyncio.timeout(60):
            await stopped.wait()
        await until(lambda: not playhead._producers)
        await asyncio.to_thread(redis.start)

        async def is_closed() -> bool:  # by the housekeeper: nobody here writes it any more
            with suppress(StoreUnavailable):
                return not (await playhead.info("s")).is_live
            return False

        await until(is_closed)
        outcome = (await playhead.info("s")).outcome
        assert outcome is not None
        assert outcome.kind == "failed"
        assert "Redis at" in (outcome.error or "")


# ---- the network ---------------------------------------------------------------------------------------


async def test_cut_in_the_middle_of_replies(redis_url: str, redis_server: RedisServer) -> None:
    chance = random.Random(11)
    async with cutting_proxy() as proxy:
        proxy.target_port = redis_server.port
        through = f"redis://127.0.0.1:{proxy.port}/0"
        async with two(through, other=redis_url, options=patient(30)) as playheads, busy_crowd(*playheads) as busy:
            proxy.fate = lambda: Fate(chance.choice(["cut", "reset"]), chance.randrange(1, 3_000))
            proxy.cut()
            await until(lambda: proxy.met["cut"] + proxy.met["reset"] >= 60, 120)
            proxy.fate = lambda: PASS
            proxy.cut()
            await busy.more()


async def test_half_open(redis_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are accepted and never answered, others that fall silent in mid-reply."""
    chance = random.Random(12)
    async with cutting_proxy() as proxy:
        proxy.target_port = redis_server.port
        through = f"redis://127.0.0.1:{proxy.port}/0"
        async with two(through, other=redis_url, options=patient(30)) as playheads, busy_crowd(*playheads) as busy:
            with quick_to_give_up(monkeypatch, reply_max_s=0.3, connect_max_s=0.2):
                proxy.fate = lambda: Fate("stall", chance.choice([0, chance.randrange(2_000)]))
                proxy.cut()
                await until(lambda: proxy.met["stall"] >= 15, 60)
                proxy.fate = lambda: PASS
                await busy.more()


@asynccontextmanager
async def late_network(redis: RedisServer) -> AsyncIterator[tuple[StallingProxy, str]]:
    async with stalling_proxy(redis.port) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}/0"


async def test_the_network_stalls_for_ten_seconds(
    redis_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between everybody and Redis, so no lease is renewed; what was on its way arrives late, after its repetition."""
    async with late_network(redis_server) as (proxy, url), two(url) as playheads, busy_crowd(*playheads) as busy:
        await trusting()
        before = proxy.connections
        with quick_to_give_up(monkeypatch, reply_max_s=REPLY_MAX_S, connect_max_s=2.0):
            proxy.flows.clear()
            await asyncio.sleep(10)
            proxy.flows.set()
            await busy.more()
        assert proxy.connections > before + 2  # nobody waited for ever for a reply


async def test_one_instance_is_cut_off_for_longer_than_its_lease(redis_url: str, redis_server: RedisServer) -> None:
    """The other may then close its streams; the one that comes back is refused, and what was read stays true."""
    async with late_network(redis_server) as (proxy, url), two(url, other=redis_url) as (far, near):
        said = 0

        async def source() -> AsyncIterator[str]:
            nonlocal said
            while True:
                said += 1
                yield f"{said} "
                await asyncio.sleep(0.005)

        await far.start(source(), stream_id="s")
        tail = near.tail("s")
        got = [await anext(tail) for _ in range(20)]
        await trusting()
        proxy.flows.clear()
        async with asyncio.timeout(60):
            got += [event async for event in tail]
        assert tail.outcome is not None
        assert tail.outcome.kind == "interrupted"
        proxy.flows.set()
        await until(lambda: not far._producers, 20)
        after = [event async for event in near.events("s")]
        assert after == got
        assert [event.offset for event in got] == list(range(1, len(got) + 1))


async def test_a_store_that_is_closed_during_an_outage_does_not_hang(
    make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = make_redis()
    store = RedisStore(redis.url)
    await store.open()
    monkeypatch.setattr("playhead.stores.redis.wire.REPLY_MAX_S", 0.5)
    redis.freeze()
    reading = asyncio.create_task(store.find(Query()))
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(60):
            await store.close()
            with pytest.raises(StoreUnavailable):
                await reading
    finally:
        redis.thaw()
