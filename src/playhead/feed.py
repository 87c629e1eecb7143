"""What one process knows of the streams that somebody here reads: one feed per stream, shared by all its readers.

    store ──wake(batch)──► Feed ──wakes──► readers (see ``reader``)
                            │ while it has readers
                            ▼
                        BatchCache: recent batches, the oldest go first

A wake-up may carry the batch just stored as a hint, which goes to the cache. Each question to the store (the state,
a page) is asked once, whoever of the readers comes first (P8, P9).
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Hashable

from playhead.errors import Draining, PlayheadError, StreamNotFound, TooManyReaders
from playhead.model import Batch, Page, StreamInfo
from playhead.store import Store

_EVENT_OVERHEAD_BYTES = 150


class BatchCache:
    """Recent batches of streams that have readers, by stream and first offset, within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        # Not a dict: finding the oldest of one that is always emptied at its front takes ever longer.
        self._batches: OrderedDict[tuple[Feed, int], Batch] = OrderedDict()

    def put(self, feed: "Feed", batch: Batch) -> None:
        key = (feed, batch.first)
        if key in self._batches:
            return
        self._batches[key] = batch
        feed.cached.add(batch.first)
        self._size_bytes += _cost(batch)
        while self._size_bytes > self._max_bytes:
            self._remove(next(iter(self._batches)))

    def get(self, feed: "Feed", first: int) -> Batch | None:
        return self._batches.get((feed, first))

    def drop(self, feed: "Feed") -> None:
        """Forget the batches of a stream that has no more readers here."""
        for first in list(feed.cached):
            self._remove((feed, first))

    def _remove(self, key: "tuple[Feed, int]") -> None:
        self._size_bytes -= _cost(self._batches.pop(key))
        key[0].cached.discard(key[1])


def _cost(batch: Batch) -> int:
    # Data and its encoded form, and what both and Python's objects add for each event.
    return 2 * batch.size_bytes + _EVENT_OVERHEAD_BYTES * len(batch.datas)


class Feed:
    """What this process knows of one stream that somebody here reads."""

    __slots__ = (
        *("_fetching", "_refreshing", "_store"),
        *("cache", "cached", "error", "info", "readers", "stale", "stream_id", "tail", "unwatch", "waiters"),
    )

    def __init__(self, stream_id: str, store: Store, cache: BatchCache) -> None:
        self.stream_id = stream_id
        self.cache = cache
        self.cached: set[int] = set()
        self.error: PlayheadError | None = None
        self.readers = 0
        self.tail = 0
        self.info: StreamInfo | None = None
        self.stale = True
        self.waiters: set[asyncio.Future[None]] = set()
        self._store = store
        self._refreshing: asyncio.Task[None] | None = None
        self._fetching: dict[int, asyncio.Task[Page]] = {}
        self.unwatch = store.watch(stream_id, self.wake)

    def wake(self, batch: Batch | None, info: StreamInfo | None) -> None:
        """The store has news (see ``playhead.store.Wake``)."""
        if batch is not None:
            if not self.stale and self.error is None:  # else it may belong to a later stream of the same id
                self.cache.put(self, batch)
                self.tail = max(self.tail, batch.last)
        elif info is not None:
            self._learn(info)
        else:
            self.stale = True
        self.wake_readers()

    def wake_readers(self) -> None:
        waiters, self.waiters = self.waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, waiter: "asyncio.Future[None]") -> None:
        self.waiters.add(waiter)
        try:
            await waiter
        finally:
            self.waiters.discard(waiter)

    async def refresh(self) -> StreamInfo:
        """The state, asked from the store when it may have changed unseen; one question for all readers.

        Raises: StreamNotFound, StoreError.
        """
        while self.info is None or self.stale:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self._refresh())
                self._refreshing.add_done_callback(_seen)
            await asyncio.shield(self._refreshing)
        if self.error is not None:
            raise self.error
        return self.info

    async def _refresh(self) -> None:
        try:
            # First not stale, then load: news that comes while we ask makes it stale again.
            self.stale = False
            self._learn(await self._store.load(self.stream_id))
        except BaseException:
            self.stale = True
            raise
        finally:
            self._refreshing = None

    def _learn(self, info: StreamInfo) -> None:
        known = self.info
        if known is not None and known.created_at != info.created_at:
            self.error = StreamNotFound("the stream was deleted", stream_id=self.stream_id)
            return
        self.tail = max(self.tail, info.tail)
        # Hints may come late: a state never goes back.
        if known is None or (info.epoch, not info.is_live, info.tail) >= (known.epoch, not known.is_live, known.tail):
            self.info = info

    async def fetch(self, after: int) -> Page:
        """The stored page after an offset, from the store; one read for all readers who are at that place."""
        task = self._fetching.get(after)
        if task is None:
            task = self._fetching[after] = asyncio.create_task(self._store.read(self.stream_id, after))
            task.add_done_callback(lambda done: self._fetched(after, done))
        page = await asyncio.shield(task)
        if self.error is not None:
            raise self.error
        return page

    def _fetched(self, after: int, task: "asyncio.Task[Page]") -> None:
        del self._fetching[after]
        if not task.cancelled() and task.exception() is None:
            for batch in task.result().batches:
                self.cache.put(self, batch)
            self._learn(task.result().info)


def _seen(task: "asyncio.Task[None]") -> None:
    """The askers get the exception; when they have all gone, nobody needs it."""
    if not task.cancelled():
        task.exception()


class Readers:
    """All readers of this process: their feeds, their number per owner, and their end when it drains."""

    def __init__(
        self, store: Store, *, cache_max_bytes: int, per_owner_max: int | None, patience_s: float = 30.0
    ) -> None:
        self.feeds: dict[str, Feed] = {}
        self.draining = False
        self.patience_s = patience_s
        self.counts: Counter[Hashable] = Counter()
        self._store = store
        self._cache = BatchCache(cache_max_bytes)
        self._per_owner_max = per_owner_max

    def attach(self, stream_id: str, principal: Hashable, *, limited: bool = True) -> Feed:
        """Count a reader in. Every attach needs its detach. Raises: TooManyReaders."""
        if limited and self._per_owner_max is not None and self.counts[principal] >= self._per_owner_max:
            raise TooManyReaders(
                f"at most {self._per_owner_max} readers may be attached at once for one owner",
                limit=self._per_owner_max,
            )
        feed = self.feeds.get(stream_id)
        if feed is None or feed.error is not None:
            feed = self.feeds[stream_id] = Feed(stream_id, self._store, self._cache)
        feed.readers += 1
        self.counts[principal] += 1
        return feed

    def detach(self, feed: Feed, principal: Hashable) -> None:
        feed.readers -= 1
        self.counts[principal] -= 1
        if not self.counts[principal]:
            del self.counts[principal]
        if feed.readers == 0:
            feed.unwatch()
            self._cache.drop(feed)
            if self.feeds.get(feed.stream_id) is feed:
                del self.feeds[feed.stream_id]

    def check_draining(self) -> None:
        if self.draining:
            raise Draining("this process is shutting down; reconnect with your cursor")

    def drain(self) -> None:
        """End all following with Draining, from now on; what is stored can still be read."""
        self.draining = True
        for feed in list(self.feeds.values()):
            feed.wake_readers()
