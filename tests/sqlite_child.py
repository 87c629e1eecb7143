"""Other processes on the same database, for the tests of the SQLite store: real ones, told what to do by lines."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
# What every child begins with; the script that follows defines ``async def main(path, …)``
_PRELUDE = """
import asyncio, os, resource, signal, sqlite3, sys, time
from playhead.errors import PlayheadError
from playhead.log import Claim, Close, Create, Delete, RequestCancel
from playhead.model import COMPLETED, Batch, Lease
from playhead.stores.sqlite import SQLiteStore

def say(*words):
    print(*words, flush=True)

async def hear():
    return (await asyncio.to_thread(sys.stdin.readline)).strip()

async def create(store, stream_id):
    return Lease(stream_id, (await store.apply(stream_id, Create(store.instance_id))).info.epoch)

def batch(first, *datas):
    return Batch(first, 1, "text", list(datas))

async def opened(path, **settings):
    store = SQLiteStore(path, **settings)
    await store.open()
    return store
"""
_RUN = "\nasyncio.run(main(*sys.argv[1:]))\n"


class Child:
    """A process that says lines and hears lines. Each wait is bounded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE_S):
            return (await self._process.stdout.readline()).decode().strip()

    async def tell(self, line: str = "") -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def end(self) -> None:
        """It ends by itself, well."""
        async with asyncio.timeout(PATIENCE_S):
            assert await self._process.wait() == 0


@contextlib.asynccontextmanager
async def child(script: str, path: Path, *arguments: Any) -> AsyncIterator[Child]:
    """Runs ``main(path, *arguments)`` of the script in a Python process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PRELUDE + script + _RUN,
        str(path),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
