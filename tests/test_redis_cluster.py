"""Playhead on a Redis Cluster: masters die and slots move in mid-stream, and nobody misses or repeats an event."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from process_clients import Reader, said
from redis_crowd import Crowd, crowd_on, patient
from redis_topology import Cluster, until
from running_server import ServerProcess

from playhead import Playhead
from playhead.errors import StoreError
from playhead.stores.redis import RedisStore
from playhead.stores.redis.router import slot_of
from playhead.testing import StoreSuite
from playhead.testing.suite.case import MakeStore

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(started: Cluster) -> Cluster:
    """Whole, and empty."""
    for node in started.nodes:
        if not node.is_up:
            node.start()
    started.wait()
    for node in started.masters:
        node.command("FLUSHALL")
    return started


class TestClusterStore(StoreSuite):
    @pytest.fixture
    def make_store(self, cluster: Cluster) -> MakeStore:
        return lambda clock, options: RedisStore(cluster.url, clock=clock, options=options)


def slot_of_stream(stream_id: str) -> int:
    return slot_of(f"{{s:{stream_id}}}".encode())


@pytest.mark.parametrize("replicas", [0, 1])
async def test_each_master_is_killed_in_turn(cluster: Cluster, replicas: int) -> None:
    """The ones that hold streams, the one that holds the leases, the one that is subscribed to."""
    url = f"{cluster.url}?replicas={replicas}"
    async with crowd_on(url) as crowd:
        for master in cluster.masters:
            slot = cluster.slots_of(master)[0]
            master.kill()
            await asyncio.to_thread(until, lambda s=slot, m=master: cluster.master_of(s) is not m, "a new master")
            if not replicas:  # else nothing is acknowledged until there is a replica again
                await crowd.more()
            master.start()
            await crowd.more()
            await asyncio.to_thread(cluster.wait)


async def test_slots_move_key_by_key(cluster: Cluster) -> None:
    async with crowd_on(cluster.url) as crowd:
        for name in crowd.names:
            slot = slot_of_stream(name)
            source = cluster.master_of(slot)
            target = next(master for master in cluster.masters if master is not source)
            with cluster.moving(slot, target) as move_one:
                await asyncio.sleep(0.05)  # asked for keys that are still here, and that may not be made here
                for _ in range(2):
                    assert await asyncio.to_thread(move_one)
                    await asyncio.sleep(0.1)  # one key is here and one there
                await crowd.more(5)  # all of them there, and nobody has been told for good
            assert cluster.master_of(slot) is target
            await crowd.more(5)


async def test_everything_at_once(cluster: Cluster) -> None:
    chance = random.Random(4)
    async with crowd_on(cluster.url) as crowd:
        said = (["SCRIPT", "FLUSH"], ["CLIENT", "KILL", "TYPE", "normal"], ["CLIENT", "KILL", "TYPE", "pubsub"])
        for _ in range(60):
            await asyncio.to_thread(chance.choice(cluster.masters).command, *chance.choice(said))
            await asyncio.sleep(chance.random() * 0.02)
        await crowd.more()
        cluster.master_of(slot_of_stream(crowd.names[0])).kill()
        await crowd.more()


async def test_a_cluster_is_refused_when_one_of_its_masters_may_evict_streams(cluster: Cluster) -> None:
    for master in cluster.masters:
        master.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StoreError, match="may throw streams away"):
                await RedisStore(cluster.url).open()
        finally:
            master.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_never_more_than_eight_connections(cluster: Cluster) -> None:
    """4, and 2 for each further master."""
    most = 0
    async with Playhead.open(cluster.url, options=patient()) as one:
        crowd = Crowd(one, streams=200, pause_s=0.05)
        try:
            await crowd.begin()
            for _ in range(20):
                names = [name for node in cluster.nodes for name in node.connections_of_playhead()]
                most = max(most, len(names))
                await crowd.more(1)
            await crowd.finish()
        finally:
            await crowd.leave()
    assert 6 <= most <= 8, names


async def test_a_server_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    with await asyncio.to_thread(lambda: ServerProcess(tmp_path, PLAYHEAD_STORE=cluster.url)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            started = await said(http, "/pace 1 /long 300")
            reader = Reader(http, started["stream_id"], events=5)
            async with asyncio.timeout(60):
                await reader.task
            assert reader.seen.frames[-1].json()["outcome"] == "completed"
            turns = (await http.get("/thread", params={"thread_id": started["thread_id"]})).json()
            assert turns[-1]["content"] == reader.text
