"""A primary that Sentinels watch over fails over in mid-stream, and nobody misses or repeats an event."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from redis_crowd import Crowd, crowd_on, patient
from redis_topology import SentinelGroup, until

from playhead import Playhead
from playhead.errors import AppendRepeat, StoreUnavailable
from playhead.log import Create
from playhead.model import Batch, Lease
from playhead.store import StoreOptions
from playhead.stores.redis import RedisStore
from playhead.testing import StoreSuite
from playhead.testing.suite.case import MakeStore

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    group = SentinelGroup(tmp_path_factory.mktemp("sentinel"))
    try:
        group.start()
        yield group
    finally:
        group.stop()


@pytest.fixture
def group(started: SentinelGroup) -> SentinelGroup:
    """Whole, and empty."""
    for server in started.servers:
        if server.is_up:
            server.thaw()
        else:
            server.start()
    started.wait()
    started.primary.command("FLUSHALL")
    return started


class TestSentinelStore(StoreSuite):
    @pytest.fixture
    def make_store(self, group: SentinelGroup) -> MakeStore:
        return lambda clock, options: RedisStore(group.url, clock=clock, options=options)


async def failed_over(group: SentinelGroup, old: object) -> None:
    await asyncio.to_thread(until, lambda: group.primary is not old, "there is a new primary")


@pytest.mark.parametrize("replicas", [0, 1])
async def test_the_primary_is_killed(group: SentinelGroup, replicas: int) -> None:
    url = f"{group.url}?replicas={replicas}"
    async with crowd_on(url) as crowd:
        old = group.primary
        old.kill()
        await failed_over(group, old)
        await crowd.more()


async def test_the_primary_freezes_and_comes_back_as_a_replica(group: SentinelGroup) -> None:
    async with crowd_on(group.url) as crowd:
        old = group.primary
        old.freeze()
        await failed_over(group, old)
        await crowd.more()
        old.thaw()
        await asyncio.to_thread(group.wait)
        await crowd.more()


@pytest.mark.proves("P1.6")
async def test_what_only_the_lost_primary_had_is_appended_again(group: SentinelGroup) -> None:
    """Its replicas were down, and have no more than they had before, so that everything acknowledged since is lost."""
    async with crowd_on(group.url) as crowd:
        old, replicas = group.primary, group.replicas
        for replica in replicas:
            replica.kill()
        await crowd.more(50)
        shown = len(crowd.got["stream-0", 1])
        old.kill()
        for replica in replicas:
            replica.start()
        tails = [int(replica.command("HGET", "playhead:1:{s:stream-0}:state", "tail")) for replica in replicas]
        assert max(tails) <= shown - 50
        await failed_over(group, old)
        await crowd.more()


async def test_replicas_1_acknowledges_nothing_that_no_replica_has(group: SentinelGroup) -> None:
    store = RedisStore(f"{group.url}?replicas=1", options=StoreOptions(lease_s=60.0))
    await store.open()
    try:
        made = await store.apply("s", Create(producer=store.instance_id))
        lease = Lease("s", made.info.epoch)
        replicas = group.replicas
        for replica in replicas:
            replica.freeze()
        first = Batch(1, lease.epoch, "text", [b"a"])
        with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
            await store.append(lease, first)
        with pytest.raises(StoreUnavailable, match="only 0 of 1 replicas"):
            await store.append(lease, first)  # it is there, but on the primary only
        for replica in replicas:
            replica.thaw()
        with pytest.raises(AppendRepeat):
            await store.append(lease, first)
        acknowledged = 1
        old = group.primary
        asyncio.get_running_loop().call_later(0.3, old.kill)
        with suppress(StoreUnavailable):
            while old.is_up:
                batch = Batch(acknowledged + 1, lease.epoch, "text", [b"b"])
                await store.append(lease, batch)
                acknowledged += 1
        assert acknowledged > 10
        await failed_over(group, old)
        with redis.Redis(port=group.primary.port) as client:
            assert int(client.hget("playhead:1:{s:s}:state", "tail") or 0) >= acknowledged
    finally:
        await store.close()


async def test_never_more_than_four_connections(group: SentinelGroup) -> None:
    async with Playhead.open(group.url, options=patient()) as one:
        crowd = Crowd(one, streams=200, pause_s=0.05)
        try:
            await crowd.begin()
            for server in group.servers:
                names = server.connections_of_playhead()
                assert len(names) == (4 if server is group.primary else 0), names
            await crowd.finish()
        finally:
            await crowd.leave()
