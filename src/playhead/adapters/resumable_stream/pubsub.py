"""Publisher and Subscriber: what the original sends its chunks through, and what its users hand to a context.

A context of Playhead sends nothing through them: it only asks which Redis they stand for (see ``places``). They work
all the same, for apps that use them for something else besides.
"""

import asyncio
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

_LISTEN_S = 30.0

logger = logging.getLogger("playhead")


class Publisher(ABC):
    """What a context may be given to publish with: five commands of Redis, awaitable."""

    @abstractmethod
    def connect(self) -> Awaitable[Any]: ...

    @abstractmethod
    def publish(self, channel: str, message: str) -> Awaitable[int | Any]: ...

    @abstractmethod
    def set(
        self, key: str, value: str, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> Awaitable[str | Any]: ...

    @abstractmethod
    def get(self, key: str) -> Awaitable[str | int | None]: ...

    @abstractmethod
    def incr(self, key: str) -> Awaitable[int]: ...


class Subscriber(ABC):
    """What a context may be given to subscribe with: channels of Redis, awaitable."""

    @abstractmethod
    def connect(self) -> Awaitable[Any]: ...

    @abstractmethod
    def subscribe(self, channel: str, callback: Callable[[str], Any]) -> Awaitable[int | None]: ...

    @abstractmethod
    def unsubscribe(self, channel: str) -> Awaitable[Any]: ...


class _Connected:
    """A redis-py client of one URL, made by ``connect``."""

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        self._client: Redis | None = None

    async def connect(self) -> None:
        """Connect, and see that Redis answers. Idempotent. Raises: redis.RedisError; RuntimeError without redis-py."""
        if self._client is not None:
            return
        try:
            from redis.asyncio import Redis
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"{type(self).__name__}.connect wants redis-py (pip install redis); a context does without: give it"
                " redis_url="
            ) from error
        client = Redis.from_url(self.redis_url, decode_responses=True)
        try:
            await client.ping()
        except BaseException:
            await client.aclose()
            raise
        self._client = client

    @property
    def _redis(self) -> "Redis":
        if self._client is None:
            raise RuntimeError(f"this {type(self).__name__} is not connected; await its connect() first")
        return self._client

    async def close(self) -> None:
        """Give the connection back. Idempotent."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class RedisPublisher(_Connected, Publisher):
    """Five commands of the Redis at a URL. Raises (all of them): RuntimeError before ``connect``, redis.RedisError."""

    async def publish(self, channel: str, message: str) -> int:
        """How many subscribers got it."""
        return int(await self._redis.publish(channel, message))

    async def set(self, key: str, value: str, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Set a key; ``ex=`` (or ``{"ex": …}``) is its time to live in seconds."""
        return await self._redis.set(key, value, **{**kwargs, **(options or {})})

    async def get(self, key: str) -> str | None:
        value: Any = await self._redis.get(key)
        return None if value is None else str(value)

    async def incr(self, key: str) -> int:
        return int(await self._redis.incr(key))


class RedisSubscriber(_Connected, Subscriber):
    """Channels of the Redis at a URL. Each message is handed to its channel's callback, plain or async, in turn."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url)
        self._callbacks: dict[str, Callable[[str], Any]] = {}
        self._pubsub: PubSub | None = None
        self._listening: asyncio.Task[None] | None = None

    async def subscribe(self, channel: str, callback: Callable[[str], Any]) -> None:
        """Have ``callback`` called for each message. Raises: RuntimeError before ``connect``, redis.RedisError."""
        pubsub = self._pubsub = self._pubsub or self._redis.pubsub(ignore_subscribe_messages=True)
        self._callbacks[channel] = callback
        await pubsub.subscribe(channel)
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(pubsub), name="playhead redis subscriber")

    async def unsubscribe(self, channel: str) -> None:
        """Have nothing called any more for a channel; one that was never subscribed is fine."""
        known = self._callbacks.pop(channel, None)
        if known is not None and self._pubsub is not None:
            await self._pubsub.unsubscribe(channel)
        if not self._callbacks:
            await self._rest()

    async def close(self) -> None:
        self._callbacks.clear()
        await self._rest()
        await super().close()

    async def _rest(self) -> None:
        """Nothing to listen to: no task, no connection."""
        listening, self._listening = self._listening, None
        pubsub, self._pubsub = self._pubsub, None
        if listening is not None and listening is not asyncio.current_task():
            listening.cancel()
            await asyncio.wait([listening])
        if pubsub is not None:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _listen(self, pubsub: "PubSub") -> None:
        while self._pubsub is pubsub:
            try:
                message = await pubsub.get_message(timeout=_LISTEN_S)
            except Exception:  # what there is to hear from is gone; whoever publishes or subscribes next is told why
                logger.exception("a Redis subscriber has lost its connection")
                return
            callback = self._callbacks.get(message["channel"]) if message else None
            if message and callback is not None:
                await self._call(callback, message["data"])

    async def _call(self, callback: Callable[[str], Any], data: str) -> None:
        try:
            called = callback(data)
            if inspect.isawaitable(called):
                await called
        except Exception:  # one callback's trouble is not the other channels'
            logger.exception("the callback of a Redis subscriber failed")
