"""Sentinel groups and clusters of real Redis servers, on free loopback ports, in directories of their own."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis_server import RedisServer, program

SETTLE_S = 60.0
SERVICE = "answers"
DURABLE = ("--appendonly", "yes", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SETTLE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Sentinel(RedisServer):
    """Watches one primary."""

    def __init__(self, directory: Path, primary_port: int) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 4000",
        ]
        (directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _words(self) -> list[str]:
        return [program("redis-server"), str(self.directory / "sentinel.conf"), "--sentinel"]


class SentinelGroup:
    """A primary, two replicas, three Sentinels."""

    def __init__(self, directory: Path) -> None:
        primary = RedisServer(directory / "0", args=DURABLE)
        follow = (*DURABLE, "--replicaof", "127.0.0.1", str(primary.port))
        self.servers = [primary, *(RedisServer(directory / str(number), args=follow) for number in (1, 2))]
        self.sentinels = [Sentinel(directory / f"sentinel{number}", primary.port) for number in range(3)]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> RedisServer:
        """As the first Sentinel sees it."""
        _, port = self.sentinels[0].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def replicas(self) -> list[RedisServer]:
        primary = self.primary
        return [server for server in self.servers if server is not primary]

    def start(self) -> None:
        for server in (*self.servers, *self.sentinels):
            server.start()
        self.wait()

    def wait(self) -> None:
        """Until it could bear the loss of its primary."""
        until(lambda: replicas_online(self.primary) == 2, "two replicas follow the primary")
        until(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), "Sentinels know of all")

    def _knows_all(self, sentinel: RedisServer) -> bool:
        about = sentinel.command("SENTINEL", "MASTER", SERVICE)
        return tuple(about[word] for word in (b"num-slaves", b"num-other-sentinels", b"flags")) == (
            b"2",
            b"2",
            b"master",
        )

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()


class Cluster:
    """Three masters, three replicas."""

    def __init__(self, directory: Path) -> None:
        words = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *DURABLE)
        self.nodes = [RedisServer(directory / str(number), args=words) for number in range(6)]

    @property
    def url(self) -> str:
        """Two of the nodes are enough."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[1:3])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        where = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = [program("redis-cli"), "--cluster", "create", *where, "--cluster-replicas", "1", "--cluster-yes"]
        made = subprocess.run(create, capture_output=True, text=True, timeout=SETTLE_S, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        self.wait()

    def wait(self) -> None:
        """Until every node sees the same three masters, and each of them could be lost."""

        def is_whole() -> bool:
            views = {str(sorted(node.command("CLUSTER", "SLOTS"))) for node in self.nodes}
            states = {node.command("CLUSTER", "INFO").split()[0] for node in self.nodes}
            return (
                len(views) == 1
                and states == {b"cluster_state:ok"}
                and [replicas_online(master) for master in self.masters] == [1, 1, 1]
            )

        until(is_whole, "the cluster is whole")

    @property
    def masters(self) -> list[RedisServer]:
        return [node for node in self.nodes if node.is_up and node.command("ROLE")[0] == b"master"]

    def slots_of(self, master: RedisServer) -> list[int]:
        """The first slot of each range that a master serves."""
        ranges = master.command("CLUSTER", "SLOTS")
        return [begin for begin, _, (_, port, *_), *_ in ranges if port == master.port]

    def master_of(self, slot: int) -> RedisServer:
        for node in self.nodes:
            if node.is_up:
                for begin, end, (_, port, *_), *_ in node.command("CLUSTER", "SLOTS"):
                    if begin <= slot <= end:
                        return next(one for one in self.nodes if one.port == port)
        raise AssertionError(f"nobody serves slot {slot}")

    @contextmanager
    def moving(self, slot: int, to: RedisServer) -> Iterator[Callable[[], bool]]:
        """Begins to move a slot; what is yielded moves one key (False: there is none left); the end hands it over."""
        source = self.master_of(slot)
        here, there = (node.command("CLUSTER", "MYID").decode() for node in (source, to))
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", there)

        def move_one() -> bool:
            keys: list[Any] = source.command("CLUSTER", "GETKEYSINSLOT", slot, 1)
            if keys:
                source.command("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", *keys)
            return bool(keys)

        yield move_one
        while move_one():
            pass
        for node in (to, source, *(master for master in self.masters if master not in (to, source))):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", there)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


def replicas_online(server: RedisServer) -> int:
    kind, _, following = server.command("ROLE")[:3]
    return len(following) if kind == b"master" else 0
