"""Streams that are written and read while somebody breaks things; afterwards nothing may be missing or twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from streaming import until

from playhead import Options, Playhead, StreamInfo
from playhead.model import Event, OutcomeKind

PATIENCE_S = 60.0


class Crowd:
    """``streams`` streams written by the first Playhead, each read by a reader of every Playhead.

    Attributes:
        said: how many events each source has yielded.
        got: what each reader has received so far.
        latest: the longest time between two events of any reader, seconds.
    """

    def __init__(self, *playheads: Playhead, streams: int = 6, pause_s: float = 0.004) -> None:
        self.playheads = playheads
        self.names = [f"stream-{number}" for number in range(streams)]
        self.said = dict.fromkeys(self.names, 0)
        self.got: dict[tuple[str, int], list[Event]] = {}
        self._enough = asyncio.Event()
        self._pause_s = pause_s
        self._readers: list[asyncio.Task[None]] = []

    async def _source(self, name: str) -> AsyncIterator[str]:
        while not self._enough.is_set():
            self.said[name] += 1
            yield f"{name} says {self.said[name]}"
            await asyncio.sleep(self._pause_s)

    async def _read(self, name: str, number: int) -> None:
        got = self.got[name, number]
        tail = self.playheads[number].tail(name)
        async for event in tail:
            got.append(event)
        assert tail.outcome is not None
        assert tail.outcome.kind is OutcomeKind.COMPLETED, (name, number, tail.outcome)

    async def begin(self) -> None:
        for name in self.names:
            await self.playheads[0].start(self._source(name), stream_id=name, thread_id=f"thread of {name}")
        for number in range(len(self.playheads)):
            self.got |= {(name, number): [] for name in self.names}
            self._readers += [asyncio.create_task(self._read(name, number)) for name in self.names]
        await self.more(5)

    async def more(self, events: int = 20) -> None:
        """Until every source has said and every reader has received so many more events."""
        goal = {name: said + events for name, said in self.said.items()}

        def enough() -> bool:
            for reader in self._readers:
                if reader.done():
                    reader.result()
            return all(len(got) >= goal[name] for (name, _), got in self.got.items())

        await until(enough, PATIENCE_S)

    async def finish(self) -> None:
        """End all sources; everybody has everything, once and in order, and it is stored so."""
        self._enough.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._readers)
        for name in self.names:
            right = [f"{name} says {number}" for number in range(1, self.said[name] + 1)]
            for number, playhead in enumerate(self.playheads):
                got = self.got[name, number]
                assert [event.text for event in got] == right, f"{name}: reader {number}"
                assert [event.offset for event in got] == list(range(1, len(right) + 1))
                assert [event.text async for event in playhead.events(name)] == right
            info = await self.playheads[-1].info(name)
            assert info.tail == len(right)

    async def leave(self) -> None:
        for reader in self._readers:
            reader.cancel()
        if self._readers:
            await asyncio.wait(self._readers)


@asynccontextmanager
async def busy_crowd(*playheads: Playhead, streams: int = 6) -> AsyncIterator[Crowd]:
    """A crowd for as long as the context lasts; in the end everybody has everything."""
    crowd = Crowd(*playheads, streams=streams)
    try:
        await crowd.begin()
        yield crowd
        await crowd.finish()
    finally:
        await crowd.leave()


@asynccontextmanager
async def crowd_on(url: str) -> AsyncIterator[Crowd]:
    """Written by one Playhead, read there and by another."""
    async with (
        Playhead.open(url, options=patient()) as one,
        Playhead.open(url, options=patient()) as another,
        busy_crowd(one, another) as crowd,
    ):
        yield crowd


def patient(lease_s: float = 1.0) -> Options:
    return Options(lease_s=lease_s, cancel_grace_s=0.5, store_patience_s=30.0)


async def closed(playhead: Playhead, stream_id: str, patience_s: float) -> StreamInfo:
    """The state of a stream once it is closed."""
    began = time.monotonic()
    while (info := await playhead.info(stream_id)).is_live:
        assert time.monotonic() - began < patience_s, f"{stream_id} is still live"
        await asyncio.sleep(0.01)
    return info
