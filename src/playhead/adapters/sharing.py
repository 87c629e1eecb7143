"""One Playhead per place and event loop, shared by all who use it: opened at first use, closed with its loop.

    user ──┐
    user ──┴─► Shared (a place) ──► Life (a loop) ──► Playhead

Users, such as the contexts of resumable-stream, are made anywhere, one per request too, and nobody has to close them.
So a life is kept by this module, not by its users, and ends in one of two ways: its users have left, or its loop is
closed. The loop tells by closing the async generators it has seen (``asyncio.run``, uvicorn and every
``asyncio.Runner`` do that); each life waits in one.
"""

import asyncio
from collections.abc import AsyncGenerator
from weakref import WeakSet, WeakValueDictionary

from playhead.errors import Conflict
from playhead.options import Options
from playhead.streams import Playhead

_MEMORY = "memory://"


class Shared:
    """What all users of one place use. It goes when the last user and the last life have gone."""

    def __init__(self, url: str, options: Options, whose: object) -> None:
        """Raises: InvalidSetting when the URL is not one of a store."""
        self.url = url
        self.options = options
        self.whose = whose
        self.lives: dict[asyncio.AbstractEventLoop, Life] = {}
        self._free: Playhead | None = Playhead.open(url, options=options)

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
        if self.lives and self.url == _MEMORY:
            raise Conflict(
                "streams in memory belong to one event loop, and another one has these; give store_url=, SQLite will do"
            )
        playhead, self._free = self._free or Playhead.open(self.url, options=self.options), None
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
        users: who uses it and has not left; one that is dropped counts no more.
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
        self._opening = self.loop.create_task(self._open(), name="playhead shared open")
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
            self.closing = asyncio.create_task(self._close(), name="playhead shared close")
        await asyncio.shield(self.closing)

    async def _close(self) -> None:
        await asyncio.wait([self._opening])
        await self._lifeline.aclose()


def _seen(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()  # who waited for it got it, or has gone


_shared: WeakValueDictionary[tuple[str, Options, int], Shared] = WeakValueDictionary()
_alive: set[Life] = set()


def shared(url: str, options: Options, whose: object = None) -> Shared:
    """The one of this place; streams in memory may be somebody's. Raises: InvalidSetting."""
    key = (url, options, id(whose))  # no other object has that id, as the one of this place holds it
    found = _shared.get(key)
    if found is None:
        found = _shared[key] = Shared(url, options, whose)
    return found
