"""The original and ours, used by the same code: ``library`` is the one import that a user changes."""

import asyncio
from typing import Any

import resumable_stream as original

from playhead.adapters import resumable_stream as ours

LIBRARIES = {"original": original, "playhead": ours}
PATIENCE_S = 30.0


async def chunks_of(stream: Any) -> list[Any]:
    """All chunks to the end."""
    async with asyncio.timeout(PATIENCE_S):
        return [chunk async for chunk in stream]


async def text_of(stream: Any) -> str:
    return "".join(await chunks_of(stream))


async def first_of(stream: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(stream)


class Broker:
    """What a user's own publisher and subscriber share in their tests: a Redis made of two dictionaries."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.callbacks: dict[str, Any] = {}


def in_memory_pair(library: Any) -> tuple[Any, Any]:
    """A publisher and a subscriber as a user writes them for tests, on the base classes that the library exports."""
    broker = Broker()

    class InMemoryPublisher(library.Publisher):  # type: ignore[misc, name-defined]
        async def connect(self) -> None:
            return None

        async def publish(self, channel: str, message: str) -> int:
            callback = broker.callbacks.get(channel)
            if callback is not None:
                await callback(message)
            return int(callback is not None)

        async def set(self, key: str, value: str, options: Any = None, **kwargs: Any) -> str:
            broker.values[key] = value
            return "OK"

        async def get(self, key: str) -> Any:
            return broker.values.get(key)

        async def incr(self, key: str) -> int:
            if broker.values.get(key) == "DONE":
                raise ValueError("value is not an integer or out of range")
            broker.values[key] = int(broker.values.get(key, 0)) + 1
            return int(broker.values[key])

    class InMemorySubscriber(library.Subscriber):  # type: ignore[misc, name-defined]
        async def connect(self) -> None:
            return None

        async def subscribe(self, channel: str, callback: Any) -> None:
            broker.callbacks[channel] = callback

        async def unsubscribe(self, channel: str) -> None:
            broker.callbacks.pop(channel, None)

    return InMemoryPublisher(), InMemorySubscriber()
