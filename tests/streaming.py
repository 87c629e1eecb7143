"""What the tests of the engines share: sources, readers, bounded waits."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from playhead import Event, Playhead, Tail

PATIENCE_S = 30.0
T = TypeVar("T")


async def say(*items: Any) -> AsyncIterator[Any]:
    """Yields these, as fast as it can."""
    for item in items:
        yield item


async def count(to: int) -> AsyncIterator[str]:
    """Yields "1" to ``to``, leaving the loop some room in between."""
    for number in range(1, to + 1):
        yield str(number)
        await asyncio.sleep(0)


class Scripted:
    """A source that says its words, then waits until it is told to go on; it knows how it ended.

    Attributes:
        runs: how often it was started.
        said: set when its first words are out.
        ended: set when its ``finally`` ran.
    """

    def __init__(self, *items: Any, then: tuple[Any, ...] = ()) -> None:
        self.items, self.then = items, then
        self.runs = 0
        self.said = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Any]:
        self.runs += 1
        try:
            for item in self.items:
                yield item
            self.said.set()
            await self.go_on.wait()
            for item in self.then:
                yield item
        finally:
            self.ended.set()


class Stubborn:
    """A source that ignores its cancellation until it is let go; then it goes on yielding."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.said = asyncio.Event()
        self.cancels = 0
        self.let_go = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                yield item
            self.said.set()
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    self.cancels += 1
            yield "after the end"
        finally:
            self.ended.set()


async def follow(playhead: Playhead, stream_id: str, **how: Any) -> list[Event]:
    """Everything from the cursor to the close."""
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in playhead.tail(stream_id, **how)]


async def follow_texts(playhead: Playhead, stream_id: str, **how: Any) -> list[str]:
    return [event.text for event in await follow(playhead, stream_id, **how)]


async def rest(tail: Tail) -> list[Event]:
    """What a reader has not read yet, to the close."""
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in tail]


async def stored_texts(playhead: Playhead, stream_id: str, **how: Any) -> list[str]:
    return [event.text async for event in playhead.events(stream_id, **how)]


async def finished(playhead: Playhead, stream_id: str, **how: Any) -> Any:
    """The outcome, once there is one."""
    async with asyncio.timeout(PATIENCE_S):
        return (await playhead.wait(stream_id, **how)).outcome


async def has_stored(playhead: Playhead, stream_id: str, events: int, **how: Any) -> None:
    """Wait until so many events are stored."""

    async def has_them() -> bool:
        return (await playhead.info(stream_id, **how)).tail >= events

    await until(has_them)


async def until(condition: Callable[[], bool | Awaitable[bool]], patience_s: float = PATIENCE_S) -> None:
    """A bounded wait on a condition. Raises: TimeoutError."""
    async with asyncio.timeout(patience_s):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(0.002)


async def at_once(*calls: Callable[[], Awaitable[T]]) -> list[T | BaseException]:
    """Start all at the same moment; what each returned or raised."""
    barrier = asyncio.Barrier(len(calls))

    async def run(call: Callable[[], Awaitable[T]]) -> T:
        await barrier.wait()
        return await call()

    return await asyncio.gather(*map(run, calls), return_exceptions=True)


async def tidied(*playheads: Playhead, patience_s: float = PATIENCE_S) -> None:
    """Wait until no reader, feed, producer or work under way is left behind. Raises: AssertionError, which names it."""
    now = asyncio.get_running_loop().time
    until_s, collect_at_s = now() + patience_s, now()
    while left := [what for playhead in playheads for what in _left_behind(playhead)]:
        assert now() < until_s, f"left behind after {patience_s} s: {left}"
        if now() >= collect_at_s:  # seldom: it holds up the very work that is waited for
            gc.collect()
            collect_at_s = now() + 0.5
        await asyncio.sleep(0.002)


def _left_behind(playhead: Playhead) -> list[object]:
    readers = playhead._readers
    parts = (readers.counts, readers.feeds, playhead._producers, playhead._background, playhead._settling.under_way)
    return [one for part in parts for one in part]
