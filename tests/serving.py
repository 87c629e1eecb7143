"""A Playhead behind a real uvicorn on a real socket, and clients that speak to it byte by byte."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import uvicorn
from streaming import PATIENCE_S

from playhead import Playhead, PlayheadError
from playhead.asgi import EventStream, Problem
from playhead.testing.sse_parser import ServerSentEvent, ServerSentEvents


def application(playhead: Playhead) -> Any:
    """The barest door: ``GET /<stream id>?after=<cursor>``, or with Last-Event-ID."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        after = (
            headers.get(b"last-event-id", b"").decode()
            or parse_qs(scope["query_string"].decode()).get("after", [""])[0]
        )
        tail = None
        try:
            tail = playhead.tail(unquote(scope["path"][1:]), after=after or None)
            await tail.open()
        except PlayheadError as error:
            await Problem(error)(scope, receive, send)
        else:
            await EventStream(tail)(scope, receive, send)

    return app


class Server(uvicorn.Server):
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(playhead: Playhead, wrap: Callable[[Any], Any] = lambda app: app) -> AsyncIterator[int]:
    """The port, while the server runs; ``wrap`` puts middleware around the application."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        wrap(application(playhead)),
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    running = asyncio.create_task(server.serve([listener]))
    async with asyncio.timeout(PATIENCE_S):
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running
        listener.close()


class Client:
    """One request for a stream; events as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.parser = ServerSentEvents()
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self._events: list[ServerSentEvent] = []

    @classmethod
    async def get(cls, port: int, stream_id: str, *, cursor: str | None = None, method: str = "GET") -> "Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        client = cls(reader, writer)
        lines = [f"{method} /{quote(stream_id)} HTTP/1.1", "host: test", "connection: close"]
        if cursor:
            lines.append(f"last-event-id: {cursor}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        client.status = int(head[0].split()[1])
        client.headers = [tuple(line.split(": ", 1)) for line in head[1:] if line]  # type: ignore[misc]
        return client

    async def more(self) -> bytes:
        """The next chunk of the body; empty at its proper end. Raises: IncompleteReadError when it was torn."""
        headers = dict(self.headers)
        if headers.get("transfer-encoding") != "chunked":
            chunk = await self.reader.read(65_536)
        else:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = (await self.reader.readexactly(size + 2))[:-2]
        self.body += chunk
        return chunk

    async def event(self) -> ServerSentEvent | None:
        """The next event; None at the end of the response."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._events:
                chunk = await self.more()
                if not chunk:
                    self.leave()
                    return None
                self._events = self.parser.feed(chunk)
        return self._events.pop(0)

    async def rest(self) -> list[ServerSentEvent]:
        events = []
        while (event := await self.event()) is not None:
            events.append(event)
        return events

    def leave(self) -> None:
        """Without a word: what a closed tab does."""
        self.writer.transport.abort()
