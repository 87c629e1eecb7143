"""Which streams begin on which threads: one look for all who wait for that in a process, not one for each.

Streams that begin in this process are told of at once; those of other processes are found by one question about all
followed threads together, a few times a second, and only while there are any.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from playhead.errors import PlayheadError
from playhead.model import StreamInfo
from playhead.store import Query, Store

LOOK_EVERY_S = 0.25
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
        self._looking: asyncio.Task[None] | None = None
        self._since = 0.0

    async def watch(self, thread_id: str, tell: Tell) -> list[StreamInfo]:
        """Have ``tell`` called for new streams of a thread; returns the newest ones so far, newest first.

        Undo it with ``unwatch``. Raises: StoreError; then nothing is watched.
        """
        self._told.setdefault(thread_id, set()).add(tell)
        try:
            found = await self._store.find(Query(thread_ids=(thread_id,), limit=_NEWEST_STREAMS))
        except BaseException:
            self.unwatch(thread_id, tell)
            raise
        if self._looking is None or self._looking.done():
            # The clock is the store's, as are the times of creation; what began meanwhile is told of too.
            self._since = self._store.now()
            self._looking = asyncio.create_task(self._look(), name="playhead thread news")
        return found

    def unwatch(self, thread_id: str, tell: Tell) -> None:
        tellers = self._told.get(thread_id, set())
        tellers.discard(tell)
        if not tellers:
            self._told.pop(thread_id, None)
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

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._tell_of(tuple(self._told))
            except PlayheadError as error:  # the next look finds what this one missed
                logger.warning("looking for new streams: %s", error)

    async def _tell_of(self, thread_ids: Iterable[str]) -> None:
        """All that began since the look before, and a while before that: those are told of again."""
        now, before = self._store.now(), None
        while True:
            query = Query(thread_ids=tuple(thread_ids), before=before, limit=_LOOK_STREAMS)
            found = await self._store.find(query)
            fresh = [info for info in found if info.created_at >= self._since - LOOK_BACK_S]
            for info in reversed(fresh):
                self.began(info)
            if len(fresh) < _LOOK_STREAMS:
                break
            before = fresh[-1].stream_id
        self._since = now
