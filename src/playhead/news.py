"""Which streams begin on which threads: one look for all who wait for that in a process, not one for each.

Streams that begin in this process are told of at once. When a stream begins elsewhere the store wakes us, and one look
at all threads that were woken finds what is new. A wake-up may get lost: so now and then, and only while somebody
waits, all threads are looked at.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from functools import partial

from playhead.errors import PlayheadError
from playhead.model import StreamInfo
from playhead.store import Query, Store

LOOK_EVERY_S = 2.0
LOOK_BACK_S = 10.0
"""A stream is found some time after it was created: its commit takes time, and clocks are set."""

_NEWEST_STREAMS, _LOOK_STREAMS = 100, 10

logger = logging.getLogger("playhead")

Tell = Callable[[StreamInfo | None], None]
"""Is told of a stream; or of None: this process drains, go elsewhere."""


class ThreadNews:
    """Tells of every stream that begins on a thread after somebody asked to be told; a stream is told of many times."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: dict[str, set[Tell]] = {}
        self._watches: dict[str, Callable[[], None]] = {}
        self._woken: set[str] = set()
        self._is_woken = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._since = 0.0

    async def watch(self, thread_id: str, tell: Tell) -> list[StreamInfo]:
        """Have ``tell`` called for new streams of a thread; returns the newest ones so far, newest first.

        Undo it with ``unwatch``. Raises: StoreError; then nothing is watched.
        """
        self._told.setdefault(thread_id, set()).add(tell)
        if self._looking is None or self._looking.done():
            # The clock is the store's, as are the times of creation; what began meanwhile is told of too.
            self._since = self._store.now()
            self._is_woken = asyncio.Event()
            self._looking = asyncio.create_task(self._look(), name="playhead thread news")
        if thread_id not in self._watches:
            self._watches[thread_id] = self._store.watch_thread(thread_id, partial(self._wake, thread_id))
        try:
            return await self._store.find(Query(thread_ids=(thread_id,), limit=_NEWEST_STREAMS))
        except BaseException:
            self.unwatch(thread_id, tell)
            raise

    def unwatch(self, thread_id: str, tell: Tell) -> None:
        tellers = self._told.get(thread_id, set())
        tellers.discard(tell)
        if not tellers and self._told.pop(thread_id, None) is not None:
            self._watches.pop(thread_id)()
            self._woken.discard(thread_id)
        if not self._told and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def began(self, info: StreamInfo) -> None:
        """A stream began in this process."""
        for tell in list(self._told.get(info.thread_id or "", ())):
            tell(info)

    def drain(self) -> None:
        for tell in [one for tellers in self._told.values() for one in tellers]:
            tell(None)

    def _wake(self, thread_id: str) -> None:
        self._woken.add(thread_id)
        self._is_woken.set()

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            look_at = loop.time() + LOOK_EVERY_S * random.uniform(0.75, 1.25)
            while loop.time() < look_at and await self._woken_before(look_at):
                woken, self._woken = self._woken, set()
                await self._tell_of(woken)
            now = self._store.now()
            if await self._tell_of(tuple(self._told)):
                self._since = now

    async def _woken_before(self, time: float) -> bool:
        try:
            async with asyncio.timeout_at(time):
                await self._is_woken.wait()
        except TimeoutError:
            return False
        self._is_woken.clear()
        return True

    async def _tell_of(self, thread_ids: Collection[str]) -> bool:
        """All that began since the look at all threads before, and a while before that: those are told of again.

        Whether that could be found; else the next look at all threads finds it.
        """
        before = None
        while thread_ids:
            query = Query(thread_ids=tuple(thread_ids), before=before, limit=_LOOK_STREAMS)
            try:
                found = await self._store.find(query)
            except PlayheadError as error:
                logger.warning("looking for new streams: %s", error)
                return False
            fresh = [info for info in found if info.created_at >= self._since - LOOK_BACK_S]
            for info in reversed(fresh):
                self.began(info)
            if len(fresh) < _LOOK_STREAMS:
                break
            before = fresh[-1].stream_id
        return True
