"""A TCP proxy whose network stops for a while: nothing is lost and nothing is told, then everything arrives late.

What a client sent before it gave up still arrives, as packets do that were on their way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class StallingProxy:
    """
    Attributes:
        flows: cleared, both directions of all connections wait, those made meanwhile too.
        deaf: no new connection gets through, though the handshake succeeds (half-open).
        connections: how many were accepted.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there: asyncio.StreamWriter | None = None
        try:
            await self.flows.wait()
            back, there = await asyncio.open_connection("127.0.0.1", self.target_port)
            answering = asyncio.create_task(self._copy(back, writer))
            await self._copy(reader, there)
            answering.cancel()
            await asyncio.wait([answering])
        except (OSError, asyncio.CancelledError):
            pass  # the end of the connection, or of the test
        finally:
            writer.close()
            if there is not None:
                there.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def stalling_proxy(target_port: int) -> AsyncIterator[StallingProxy]:
    proxy = StallingProxy(target_port)
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
