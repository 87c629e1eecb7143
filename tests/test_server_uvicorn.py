"""``uvicorn playhead.server:app``: other people's way to run the server, with their supervisors."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from process_clients import Reader, said
from running_server import WAIT_S, eventually, settings

from playhead import Playhead

CHEAP = """
import sys
import playhead.server
assert not {"fastapi", "langchain_core", "sqlalchemy", "uvicorn"} & sys.modules.keys()
from playhead.server import Settings, create_app
assert Settings().store_url == "sqlite:///var/playhead.db"
import playhead.server.app
from playhead.server import app
assert callable(app) and app is playhead.server.app, "the application, not the module of that name"
from playhead.server.app import create_app as same
assert same is create_app
"""


def test_importing_the_package_is_cheap_and_app_is_the_application(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHEAP], cwd=tmp_path, env={}, check=True, timeout=120)


class Uvicorn:
    """A process of uvicorn with the entry; what it says is read all the time."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PLAYHEAD_", "OPENAI_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "playhead.server:app", "--port", "0", *arguments],
            cwd=directory,
            env={**keep, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(line.rstrip() for line in self.process.stderr)

    async def url(self, workers: int = 1) -> str:
        """Once all of them serve: until then its supervisor may be busy for seconds, and hears no signals."""
        found = await eventually(lambda: re.search(r"running on (http://[0-9.:]+)", "\n".join(self.lines)))
        await eventually(lambda: self.started >= workers, f"{workers} workers have started")
        return str(found[1])

    @property
    def started(self) -> int:
        return sum("startup complete" in line for line in self.lines)

    async def ended(self) -> int:
        code = await asyncio.to_thread(self.process.wait, WAIT_S)
        self._reader.join(WAIT_S)
        return code


@contextlib.contextmanager
def uvicorn(directory: Path, *arguments: str, **environment: str) -> Iterator[Uvicorn]:
    server = Uvicorn(directory, *arguments, **environment)
    try:
        yield server
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(server.process.pid).children(recursive=True):
                process.kill()
        server.process.kill()
        server.process.wait()
        assert server.process.stderr is not None
        server.process.stderr.close()


async def outcome_of(directory: Path, stream_id: str) -> Any:
    async with Playhead.open(settings(data_dir=directory / "var", store=None).store_url) as playhead:
        return (await playhead.info(stream_id, principal="local")).outcome


@pytest.mark.parametrize("workers", [1, 2], ids=["alone", "two workers"])
@pytest.mark.proves("P11.1", "P11.2")
async def test_sigterm_with_readers_and_a_running_answer(tmp_path: Path, workers: int) -> None:
    arguments = ["--workers", str(workers)] if workers > 1 else []
    with uvicorn(tmp_path, *arguments, PLAYHEAD_SHUTDOWN_GRACE_S="1") as server:
        url = await server.url(workers)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=WAIT_S)) for _ in "1234"]
            started = await said(clients[0], "/pace 20 /long 10000")
            readers = [Reader(http, started["stream_id"], events=3) for http in clients[1:]]
            async with asyncio.timeout(WAIT_S):
                for reader in readers:
                    await reader.has_some.wait()
            told = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                for reader in readers:
                    await reader.task
            assert {reader.seen.frames[-1].event for reader in readers} == {"text"}
        assert await server.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - told < 30, "the answer would last for 200 s"
    outcome = await outcome_of(tmp_path, started["stream_id"])
    assert (outcome.kind, outcome.reason) == ("interrupted", "shutdown")


async def test_its_reload_does_not_hang_on_open_streams(tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "changing.py").touch()
    with uvicorn(tmp_path, "--reload", "--reload-dir", str(watched), PLAYHEAD_SHUTDOWN_GRACE_S="0.5") as server:
        async with httpx.AsyncClient(base_url=await server.url(), timeout=WAIT_S) as http:
            started = await said(http, "/slow 600 hello")
            reader = Reader(http, started["stream_id"], events=1)
            await eventually(lambda: reader.seen.retry_ms is not None, "the reader is attached")
            touched = 0.0

            def is_noticed() -> bool:
                """Touched again now and then: the supervisor takes it for unchanged as it is at the first look."""
                nonlocal touched
                if any("detected changes" in line for line in server.lines):
                    return True
                if time.time() - touched >= 2:
                    touched = time.time()
                    os.utime(watched / "changing.py", (1, 1 + touched))
                return False

            await eventually(is_noticed)
            await asyncio.wait_for(reader.task, WAIT_S)
            await eventually(lambda: server.started >= 2)
            state = (await http.get(f"/v1/streams/{started['stream_id']}/info")).json()
            assert (state["outcome"]["kind"], state["outcome"]["reason"]) == ("interrupted", "shutdown")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() in (0, -signal.SIGTERM)
