"""The processes of the fault run. Each has a directory of its own, and is ended by its process id."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT = Path(__file__).parent.parent.parent
STARTS_WITHIN_S = 60.0
_ASK_EVERY_S = 0.02
_TRACEBACK = "Traceback (most recent call last):"


@dataclass
class Span:
    """Something that lasts from one moment of the loop's clock to another, or still goes on."""

    begin: float
    end: float = float("inf")

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


def now() -> float:
    return asyncio.get_running_loop().time()


def quiet_port() -> int:
    """A free port below those that the system gives to outgoing connections: it is still free after a restart.

    Else a client that keeps asking for a server that is away is sooner or later connected to itself.
    """
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(below * 3 // 4, below)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


class _Program:
    """A process that may be frozen, thawed and killed."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.process: Process | None = None

    async def _spawn(self, *words: str, answers: bool = False) -> Process:
        path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))).rstrip(os.pathsep)
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if answers else log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # an interrupt from the keyboard is for the harness alone
            )
        return self.process

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            os.kill(self.process.pid, number)

    async def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            await self.process.wait()


@dataclass
class Life:
    """One process of an instance, from its start to its kill.

    Attributes:
        killed_at: when it was killed.
        frozen: when it stood still.
        lost_at: the moments from which its streams are lost to it: killed, or frozen for longer than its lease.
    """

    began_at: float
    killed_at: float | None = None
    frozen: list[Span] = field(default_factory=list)
    lost_at: list[float] = field(default_factory=list)


class Instance(_Program):
    """A server and its successors."""

    def __init__(self, directory: Path, store: str, lease_s: float, lives: dict[str, Life]) -> None:
        super().__init__(directory)
        self.port = 0
        self.life: Life | None = None
        self._lives = lives
        self._words = (sys.executable, "-m", "benchmarks.chaos.server", store, str(lease_s))

    async def start(self) -> None:
        """Start it until it serves: while its store is away it ends again. Raises: TimeoutError."""
        async with asyncio.timeout(STARTS_WITHIN_S):
            while True:
                if await self._serves():
                    return
                await asyncio.sleep(0.3)

    async def _serves(self) -> bool:
        process = await self._spawn(*self._words, answers=True)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            return False
        said = json.loads(line)
        self.port, self.life = said["port"], Life(now())
        self._lives[said["id"]] = self.life
        return True

    async def kill(self) -> None:
        life, self.life = self.life, None
        if life is not None:
            life.killed_at = now()
            life.lost_at.append(life.killed_at)
        await super().kill()

    def freeze(self, *, past_lease: bool) -> None:
        assert self.life is not None
        self.life.frozen.append(Span(now()))
        if past_lease:
            self.life.lost_at.append(now())
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        if self.life is not None:
            self.life.frozen[-1].end = now()

    def tracebacks(self) -> list[str]:
        """What it stumbled over, as its log says: the last line of each traceback."""
        ends = (part.split("\n") for part in (self.directory / "log").read_text(errors="replace").split(_TRACEBACK)[1:])
        return [next((line for line in lines[1:] if line and not line.startswith(" ")), "") for lines in ends]

    @property
    def is_frozen(self) -> bool:
        return self.life is not None and any(span.end == float("inf") for span in self.life.frozen)


class Redis(_Program):
    """A redis-server that answers a write only when it is on disk.

    Attributes:
        away: when it did not answer.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = quiet_port()
        self.away: list[Span] = []
        found = subprocess.run([ROOT / "scripts" / "redis"], capture_output=True, text=True, check=True)
        self._program = str(Path(found.stdout.strip()) / "redis-server")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start it with what it had stored. Raises: TimeoutError."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        await self._spawn(self._program, *words, "--appendonly", "yes", "--appendfsync", "always")
        await self._answers()

    async def _answers(self) -> None:
        async with asyncio.timeout(STARTS_WITHIN_S):
            while True:
                try:
                    await self.command("PING")
                except redis.RedisError:
                    await asyncio.sleep(_ASK_EVERY_S)
                else:
                    break
        if self.away and self.away[-1].end == float("inf"):
            self.away[-1].end = now()

    async def command(self, *words: str) -> object:
        """Raises: redis.RedisError."""

        def ask() -> object:
            with redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
                return client.execute_command(*words)

        return await asyncio.to_thread(ask)

    async def kill(self) -> None:
        self.away.append(Span(now()))
        await super().kill()

    def freeze(self) -> None:
        self.away.append(Span(now()))
        self.signal(signal.SIGSTOP)

    async def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        await self._answers()
