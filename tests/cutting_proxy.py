"""A TCP proxy that cuts connections on command, and remembers the heads of the requests that went through."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class CuttingProxy:
    def __init__(self) -> None:
        self.target_port = 0
        self.heads: list[str] = []
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Break every connection that is open now, as a lost network does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._writers |= {writer, back}
        for source, sink, remember in ((reader, back, True), (there, writer, False)):
            task = asyncio.create_task(self._copy(source, sink, remember))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, remember: bool) -> None:
        try:
            while data := await source.read(65_536):
                if remember:
                    self.heads.append(data.decode("latin-1"))
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            return
        finally:
            sink.close()


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
