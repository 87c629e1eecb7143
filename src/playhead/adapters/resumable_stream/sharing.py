"""One Playhead per place and event loop, shared by all contexts: opened at first use, closed with its loop.

    context ──┐
    context ──┴─► Shared (a place) ──► Life (a loop) ──► Playhead

Contexts are made anywhere, one per request too, and nobody has to close them. So a life is kept by this module, not by
its contexts, and ends in one of two ways: its contexts are closed, or its loop is. The loop tells by closing the async
generators it has seen (``asyncio.run``, uvicorn and every ``asyncio.Runner`` do that); each life waits in one.
"""

import asyncio
from collections.abc import AsyncGenerator
from weakref import WeakSet, WeakValueDictionary

from playhead.adapters.resumable_stream.places import MEMORY, Place
from playhead.errors import Conflict
from playhead.options import Options
from playhead.streams import Playhead

_OPTIONS = Options(event_max_bytes=16 * 1024 * 1024)  # the original has no limit; images in a chunk are common


class Shared:
    """What all contexts of one place use. It goes when the last context and the last life have gone."""

    def __init__(self, place: Place) -> None:
        """Raises: InvalidSetting when the URL is not one of a store."""
        self.place = place
        self.lives: dict[asyncio.AbstractEventLoop, Life] = {}
        self._free: Playhead | None = Playhead.open(place.url, options=_OPTIONS)

    async def use(self, user: object) -> Playhead:
        """The Playhead of the running loop, open. Raises: StoreError; Conflict (memory that another loop uses)."""
        loop = asyncio.get_running_loop()
        while True:
            life = self.lives.get(loop) or self._begin(loop)
            if life.closing is None:
                life.users.add(user)
                return await life.opened()
            await asyncio.wait([life.closing])

    def _begin(self, loop: asyncio.AbstractEventLoop) -> "Life":
        for life in list(self.lives.values()):
            if life.loop.is_closed():  # by somebody who let nothing end before
                self.lives.pop(life.loop, None)
                _alive.discard(life)
        if self.lives and self.place.url == MEMORY:
            raise Conflict(
                "streams in memory belong to one event loop, and another one has these; give store_url=, SQLite will do"
            )
        playhead, self._free = self._free or Playhead.open(self.place.url, options=_OPTIONS), None
        life = self.lives[loop] = Life(self, playhead)
        _alive.add(life)
        return life

    def ended(self, life: "Life") -> None:
        self.lives.pop(life.loop, None)
        _alive.discard(life)
        self._free = life.playhead  # what is in memory is there for the next loop, too

    async def leave(self, user: object, grace_s: float) -> None:
        """This user needs it no more; the last one closes it."""
        life = self.lives.get(asyncio.get_running_loop())
        if life is not None and user in life.users:
            life.users.discard(user)
            if not life.users:
                await life.close(grace_s)


class Life:
    """A Playhead from its opening to its closing on one event loop.

    Attributes:
        users: the contexts that use it and are not closed; one that is dropped counts no more.
        closing: set when it must not be used any more.
    """

    def __init__(self, shared: Shared, playhead: Playhead) -> None:
        self.shared = shared
        self.playhead = playhead
        self.loop = asyncio.get_running_loop()
        self.users: WeakSet[object] = WeakSet()
        self.closing: asyncio.Task[None] | None = None
        self._grace_s = 0.0
        self._lifeline = self._live()
        self._opening = self.loop.create_task(self._open(), name="playhead resumable-stream open")
        self._opening.add_done_callback(_seen)

    async def opened(self) -> Playhead:
        """Raises: what ``Playhead.connect`` raises, to all who wait for it."""
        await asyncio.shield(self._opening)
        return self.playhead

    async def _open(self) -> None:
        try:
            await anext(self._lifeline)
            await self.playhead.connect()
        except BaseException:
            await self._lifeline.aclose()
            raise

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            try:
                await self.playhead.drain(self._grace_s)
                await self.playhead.close()
            finally:
                self.shared.ended(self)

    async def close(self, grace_s: float) -> None:
        """Give sources ``grace_s`` to end by themselves, then close. Idempotent."""
        if self.closing is None:
            self._grace_s = grace_s
            self.closing = asyncio.create_task(self._close(), name="playhead resumable-stream close")
        await asyncio.shield(self.closing)

    async def _close(self) -> None:
        await asyncio.wait([self._opening])
        await self._lifeline.aclose()


def _seen(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # who waited for it got it, or has gone


_shared: WeakValueDictionary[tuple[str, int], Shared] = WeakValueDictionary()
_alive: set[Life] = set()


def shared(place: Place) -> Shared:
    """The one of this place. Raises: InvalidSetting."""
    key = (place.url, id(place.whose))  # no other object has that id, as the place holds this one
    found = _shared.get(key)
    if found is None:
        found = _shared[key] = Shared(place)
    return found
