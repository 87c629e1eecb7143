"""Readers for the HTTP rows, in the benchmark's own process: many raw connections, a checksum each."""

import asyncio
import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import httptools


@dataclass
class Got:
    """What one reader received."""

    checksum: int
    size_bytes: int
    took_s: float


class Reader(asyncio.Protocol):
    """One GET; counts and checks the body as it comes."""

    def __init__(self, path: str) -> None:
        self.done: asyncio.Future[Got] = asyncio.get_running_loop().create_future()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._path = path
        self._parser = httptools.HttpResponseParser(self)
        self._got = Got(0, 0, 0.0)
        self._began = time.perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def on_body(self, data: bytes) -> None:
        self._got.checksum = zlib.crc32(data, self._got.checksum)
        self._got.size_bytes += len(data)

    def on_message_complete(self) -> None:
        self._got.took_s = time.perf_counter() - self._began
        if not self.done.done():
            self.done.set_result(self._got)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed before the end"))


async def connect(port: int, path: str) -> Reader:
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(lambda: Reader(path), "127.0.0.1", port)
    return reader


async def call(port: int, method: str, path: str) -> Any:
    """A small request of the benchmark's own; returns JSON, or bytes when it is not."""
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    writing.write(
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
    )
    answer = await reading.read()
    writing.close()
    _, _, body = answer.partition(b"\r\n\r\n")
    return json.loads(body) if body[:1] == b"{" else body


@contextmanager
def many_files() -> Iterator[None]:
    """Room for some thousand sockets."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
