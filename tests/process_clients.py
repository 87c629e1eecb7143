"""Clients of ``playhead serve`` in a process of its own, and starts that are expected to fail."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from running_server import WAIT_S, Frames, ServerProcess

COMMAND = Path(sys.executable).parent / "playhead"


@contextlib.asynccontextmanager
async def client(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    """For its address, or its Unix socket."""
    kind, _, path = server.url.partition(":")
    transport = httpx.AsyncHTTPTransport(uds=path) if kind == "unix" else None
    base_url = "http://localhost" if kind == "unix" else server.url
    async with httpx.AsyncClient(base_url=base_url, timeout=WAIT_S, transport=transport) as http:
        yield http


async def said(http: httpx.AsyncClient, message: str, **more: Any) -> dict[str, str]:
    answer = await http.post("/chat/message", json={"message": message, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


class Reader:
    """Follows a stream in the background; the response may end, or break, at any time."""

    def __init__(self, http: httpx.AsyncClient, stream_id: str, events: int) -> None:
        self.seen = Frames()
        self.has_some = asyncio.Event()
        self._events = events
        self.task = asyncio.create_task(self._read(http, f"/v1/streams/{stream_id}"))

    async def _read(self, http: httpx.AsyncClient, path: str) -> None:
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            async with http.stream("GET", path) as answer:
                async for line in answer.aiter_lines():
                    self.seen.feed_line(line)
                    if len(self.seen.frames) >= self._events:
                        self.has_some.set()

    @property
    def text(self) -> str:
        return "".join(frame.json()["data"] for frame in self.seen.frames if frame.event == "text")


def as_environment(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as a process is told them."""
    return {f"PLAYHEAD_{name.upper()}": str(value) for name, value in settings.items()}


def run(directory: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, "serve", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=120
    )
