"""What the local servers of models have in common: they stand on real sockets, and count what they are asked.

Each runs its own event loop in a thread: a client that blocks or is cancelled cannot disturb it.
"""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

WAIT_LIMIT_S = 60.0


@dataclass
class Request:
    """A request as it came in, and what became of it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    chunks_sent: int = 0
    finished: bool = False
    """All of the answer was sent."""
    disconnected: bool = False
    """The client went away before that."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body.get("messages", [])
        return messages


class ModelServer:
    """A server; a context manager. ``root`` is where it listens, ``requests`` what has come in so far."""

    root: str
    requests: list[Request]

    def __enter__(self) -> Self:
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._started.wait(WAIT_LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_LIMIT_S)
        assert not self._thread.is_alive()

    def release(self) -> None:
        """Let what holds go on, those to come included."""
        self._loop.call_soon_threadsafe(self._released.set)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about the requests is true; fail after `WAIT_LIMIT_S`."""
        deadline_s = time.monotonic() + WAIT_LIMIT_S
        while not condition():
            assert time.monotonic() < deadline_s, f"never came true; requests: {self.requests}"
            await asyncio.sleep(0.005)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.root = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._stop.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away (noted where it matters, in the request), or the server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. Each has a connection of its own: clients keep no idle one that outlives a test."""
        raise NotImplementedError


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(head[0].split(" ")[1], headers, json.loads(body or b"{}"))


async def send_json(writer: asyncio.StreamWriter, status: int, data: dict[str, Any], extra: str = "") -> None:
    body = json.dumps(data).encode()
    head = f"HTTP/1.1 {status} Local\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}"
    writer.write(head.encode("latin-1") + b"Connection: close\r\n\r\n" + body)
    await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: to the client the connection breaks, it does not end."""
    linger_0 = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0)
    writer.transport.abort()
