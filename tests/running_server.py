"""The real server for tests: in the test's own loop, or as a process of its own that may be killed.

Readers of events come over real sockets too; ``Frames`` parses them the way the WHATWG spec says.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from playhead.server.app import create_app
from playhead.server.chat import Chat
from playhead.server.opening import open_chat
from playhead.server.serve import DrainingServer, listen, make_server
from playhead.server.settings import Settings
from playhead.streams import Playhead

WAIT_S = 60.0
START_S = 120.0


def settings(**given: Any) -> Settings:
    """Settings that no environment and no ``.env`` of the machine touches."""
    quiet = {"openai_api_key": None, "openai_base_url": None, "openai_model": None, "port": 0, "store": "memory://"}
    return Settings(_env_file=None, **{**quiet, **given})  # type: ignore[call-arg]


@dataclass
class Server:
    """A server in this loop: its parts, and a client for its address."""

    url: str
    port: int
    chat: Chat
    http: httpx.AsyncClient
    server: DrainingServer
    running: "asyncio.Task[None]"

    @property
    def playhead(self) -> Playhead:
        return self.chat.playhead


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, wrap: Callable[[Any], Any] = lambda app: app, **given: Any) -> AsyncIterator[Server]:
    """``wrap`` puts middleware around the application."""
    mine = settings(data_dir=tmp_path / "var", **given)
    async with open_chat(mine) as chat:
        listening = listen(mine)
        port = listening.getsockname()[1]
        server = make_server(mine, wrap(create_app(mine, chat)), chat.playhead)
        running = asyncio.create_task(server.serve([listening]))
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=WAIT_S) as http:
                yield Server(url, port, chat, http, server, running)
        finally:
            server.should_exit = True
            await asyncio.wait_for(running, WAIT_S)


async def eventually(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait, within bounds, until a condition (plain or async) holds; returns its value."""
    until = time.monotonic() + WAIT_S
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < until, f"{what} did not come true within {WAIT_S} s"
        await asyncio.sleep(0.01)


@dataclass
class Frame:
    event: str = "message"
    data: str = ""
    id: str | None = None

    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Frames:
    """A parser of server-sent events (WHATWG HTML, 9.2.6); ``retry_ms`` and ``comments`` are kept as well."""

    frames: list[Frame] = field(default_factory=list)
    retry_ms: int | None = None
    comments: list[str] = field(default_factory=list)
    _event: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None

    def feed_line(self, line: str) -> Frame | None:
        if not line:
            frame = Frame(self._event or "message", "\n".join(self._data), self._id) if self._data else None
            self._event, self._data, self._id = "", [], None
            if frame:
                self.frames.append(frame)
            return frame
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments.append(value)
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
            case "retry":
                self.retry_ms = int(value)
        return None

    @classmethod
    def of(cls, body: str) -> Self:
        frames = cls()
        for line in re.split(r"\r\n|\r|\n", body):
            frames.feed_line(line)
        return frames


async def frames_of(http: httpx.AsyncClient, path: str, **options: Any) -> list[Frame]:
    """All frames of a response that ends, which must be an event stream."""
    answer = await asyncio.wait_for(http.get(path, **options), WAIT_S)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return Frames.of(answer.text).frames


class ServerProcess:
    """``playhead serve`` in a process of its own, in a directory of its own."""

    def __init__(
        self, directory: Path, *arguments: str, port: int = 0, kill_at: str | None = None, **environment: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        command = [Path(sys.executable).parent / "playhead"]
        if kill_at is not None:
            command = [Path(sys.executable), Path(__file__).with_name("kill_at.py"), Path(kill_at)]
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PLAYHEAD_", "OPENAI_"))}
        self.process = subprocess.Popen(
            [*command, "serve", "--port", str(port), *arguments],
            cwd=directory,
            env={**keep, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        told = self._told.wait(START_S)
        found = re.search(r"Playhead is at (http://\S+|unix:\S+)", self.output)
        if not told or found is None:
            self.__exit__()
            raise AssertionError(f"the server did not start:\n{self.output}")
        self.url = found[1]
        self.port = int(self.url.rpartition(":")[2]) if self.url.startswith("http") else 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if "access" in line:
                self._told.set()
        self._told.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, within_s: float = WAIT_S) -> int:
        code = self.process.wait(within_s)
        self._reader.join(WAIT_S)
        return code

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self.process.kill()
        self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout:
            self.process.stdout.close()


@contextlib.contextmanager
def in_thread(directory: Path, **given: Any) -> Iterator[str]:
    """A server in a thread of its own, for tests without a loop; gives its URL."""
    told: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with serving(directory, **given) as server:
            told.append(server.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(WAIT_S)
        yield told[0]
    finally:
        stop.set()
        thread.join(WAIT_S)
