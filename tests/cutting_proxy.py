"""A TCP proxy that does to connections what networks do, and remembers the heads of the requests that went through."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fate:
    """What happens to one connection.

    Attributes:
        how: "pass"; "cut" (a clean end), "reset" (RST) or "stall" (open, without a word) once so much was answered.
        after_bytes: of the answer. 0 and "stall": half-open, accepted and never answered.
        delay_s: before each piece of the answer.
    """

    how: Literal["pass", "cut", "reset", "stall"] = "pass"
    after_bytes: int = 0
    delay_s: float = 0.0


PASS = Fate()
HALF_OPEN = Fate("stall")


class CuttingProxy:
    """
    Attributes:
        fate: asked for each new connection.
        met: how many connections met which fate ("refused": nobody listened behind the proxy).
        open_now: connections of clients that are open.
    """

    def __init__(self) -> None:
        self.target_port = 0
        self.heads: list[str] = []
        self.port = 0
        self.fate: Callable[[], Fate] = lambda: PASS
        self.met: Counter[str] = Counter()
        self.open_now = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection that is open now, as a lost network does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = self.fate()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            self.met["refused"] += 1
            writer.transport.abort()
            return
        self.open_now += 1
        self._writers |= {writer, back}
        asked = asyncio.create_task(self._ask(reader, back))
        answered = asyncio.create_task(self._answer(there, writer, fate))
        both = asyncio.create_task(self._closed({asked, answered}, {writer, back}))
        self._tasks.add(both)
        both.add_done_callback(self._tasks.discard)

    async def _closed(self, copying: set[asyncio.Task[None]], writers: set[asyncio.StreamWriter]) -> None:
        """Whichever side ends first, that is the end of both."""
        await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
        for task in copying:
            task.cancel()
        await asyncio.wait(copying)
        for writer in writers:
            writer.close()
        self._writers -= writers
        self.open_now -= 1

    async def _ask(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                self.heads.append(data.decode("latin-1"))
                sink.write(data)
                await sink.drain()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, fate: Fate) -> None:
        left = fate.after_bytes
        with contextlib.suppress(ConnectionError):
            while fate.how == "pass" or left > 0:
                data = await source.read(65_536 if fate.how == "pass" else left)
                if not data:
                    return
                if fate.delay_s:
                    await asyncio.sleep(fate.delay_s)
                left -= len(data)
                sink.write(data)
                await sink.drain()
            self.met[fate.how] += 1
            if fate.how == "stall":
                await asyncio.Event().wait()  # until the client leaves
            if fate.how == "reset":
                sink.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                sink.transport.abort()


@contextlib.asynccontextmanager
async def cutting_proxy() -> AsyncIterator[CuttingProxy]:
    """A proxy on a free port; set its ``target_port`` before it is used."""
    proxy = CuttingProxy()
    server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        if proxy._tasks:
            await asyncio.wait(proxy._tasks)
