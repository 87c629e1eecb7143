"""The one connection that listens, for all readers and writers of a process (P9).

Subscribe, confirm, look: when Redis confirms a subscription, whoever waits is told to look, so nothing that happened
before the confirmation is missed; and the same again whenever the connection had to be made anew.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from playhead.errors import StoreError
from playhead.stores.redis.wire import REPLY_MAX_S, Wire

_AGAIN_S, _AGAIN_MAX_S = 0.05, 1.0
_PING_S = 2.0
_AT_ONCE = 500

logger = logging.getLogger("playhead")


class Listener:
    """Subscriptions that outlive their connection. Listens from the moment it is made."""

    def __init__(
        self,
        open_wire: Callable[[], Awaitable[Wire]],
        heard: Callable[[bytes, bytes], None],
        confirmed: Callable[[bytes], None],
    ) -> None:
        self._open_wire = open_wire
        self._heard = heard
        self._confirmed = confirmed
        self._channels: set[bytes] = set()
        self._wire: Wire | None = None
        self._task = asyncio.create_task(self._run(), name="playhead redis listener")

    def add(self, channel: bytes) -> None:
        if channel not in self._channels:
            self._channels.add(channel)
            if self._wire is not None:
                self._wire.say(["SUBSCRIBE", channel])

    def discard(self, channel: bytes) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            if self._wire is not None:
                self._wire.say(["UNSUBSCRIBE", channel])

    async def _run(self) -> None:
        pause_s = _AGAIN_S
        while True:
            try:
                await self._listen(await self._open_wire())
                pause_s = _AGAIN_S
            except StoreError as error:
                logger.debug("listening: %s", error)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _AGAIN_MAX_S)

    async def _listen(self, wire: Wire) -> None:
        """Until the connection is lost."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        wire.pushed = self._pushed
        wire.lost = lambda _: None if over.done() else over.set_result(None)
        if not wire.is_open:
            return
        self._wire = wire
        channels = list(self._channels)
        for begin in range(0, len(channels), _AT_ONCE):
            wire.say(["SUBSCRIBE", *channels[begin : begin + _AT_ONCE]])
        try:
            while not over.done():
                await asyncio.wait([over], timeout=_PING_S)
                silent_s = loop.time() - wire.heard_at
                if silent_s > _PING_S + REPLY_MAX_S:
                    break
                if silent_s >= _PING_S / 2:
                    wire.say(["PING"])
        finally:
            self._wire = None
            wire.abort()

    def _pushed(self, message: Any) -> None:
        if not isinstance(message, list):
            return  # an error; the look that comes now and then makes up for it
        kind, channel = message[0], message[1]
        if channel in self._channels:
            if kind == b"message":
                self._heard(channel, message[2])
            elif kind == b"subscribe":
                self._confirmed(channel)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
