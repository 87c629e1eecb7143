"""Real Redis servers of the tests' own, on free loopback ports, in directories of their own.

``conftest.py`` brings the fixtures to all tests.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis

START_S = 60.0
FIND = Path(__file__).parent.parent / "scripts" / "redis"


@cache
def program(name: str) -> str:
    """``redis-server`` or ``redis-cli``. Raises when there is none: these tests are not skipped."""
    found = subprocess.run([FIND], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return str(Path(found.stdout.strip()) / name)


def free_port() -> int:
    """Below the ports that the system gives to outgoing connections, so that it is still free after a restart.

    Else a client that keeps asking for a server that is away is sooner or later connected to itself. A cluster's node
    listens 10,000 above its port too.
    """
    while True:
        port = random.randrange(10_000, 20_000)
        with contextlib.suppress(OSError):
            for taken in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", taken))
            return port


class RedisServer:
    """One server. It may be killed, stopped, frozen, and started again with what it had stored."""

    def __init__(self, directory: Path, *, port: int | None = None, args: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.args = args
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_up(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._words(), stdout=log, stderr=log, cwd=self.directory)
        until = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "redis.log").read_text()
            assert time.monotonic() < until, "Redis does not answer"
            time.sleep(0.02)

    def _words(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [program("redis-server"), *where, "--save", "", *self.args]

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True
        except redis.RedisError:
            return False

    def command(self, *words: Any) -> Any:
        """One command on a connection of its own. Raises: redis.RedisError."""
        with redis.Redis(port=self.port, socket_timeout=30, retry=None) as client:
            return client.execute_command(*words)

    def connections_of_playhead(self) -> list[str]:
        """Their names."""
        with redis.Redis(port=self.port, socket_timeout=30, retry=None) as client:
            return [row["name"] for row in client.client_list() if row["name"].startswith("playhead")]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait(20)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests of this worker that leave it as it is."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def connect_patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is opened asks once, so a machine that holds everything up for two seconds would fail any test."""
    monkeypatch.setattr("playhead.stores.redis.wire.CONNECT_MAX_S", 20.0)


@pytest.fixture
def redis_url(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty Redis."""
    connect_patiently(monkeypatch)
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture
def make_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RedisServer]]:
    """Makes servers that a test may do to what it likes; they are started, and ended with the test."""
    connect_patiently(monkeypatch)
    made: list[RedisServer] = []

    def make(*args: str) -> RedisServer:
        server = RedisServer(tmp_path / f"redis{len(made)}", args=args)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()
