"""The one read loop: replay what is stored, wait, follow live. The same code for every door.

    store ──wake(batch)──► Feed ──wakes──► Tail ──► reader
                            │ one per stream and process, while it has readers
                            ▼
                        BatchCache: recent batches, shared, the oldest go first

A reader is a cursor and a waiter, never a queue: however slow it is, it holds back nobody and costs no memory.
What it missed it takes from the cache or else from the store. A wake-up only tells that there is something to
look at; what is read, and in which order, always comes from the log (P2, P8, P9).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from types import TracebackType
from typing import Self

from playhead.errors import CursorAhead, Diverged, Draining, PlayheadError, StreamNotFound, TooManyReaders
from playhead.log import check_cursor, check_readable
from playhead.model import Batch, Cursor, Event, Outcome, Page, StreamInfo
from playhead.store import PAGE_MAX_BYTES, Store

_EVENT_OVERHEAD_BYTES = 150


class BatchCache:
    """Recent batches of streams that have readers, by stream and first offset, within a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._batches: dict[tuple[Feed, int], Batch] = {}

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
    # Data, its encoded form and the event objects: about twice the data and a little per event.
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

    def __init__(self, store: Store, *, cache_max_bytes: int, per_owner_max: int | None) -> None:
        self.feeds: dict[str, Feed] = {}
        self.draining = False
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


Check = Callable[[StreamInfo], Awaitable[None]]
"""Raises unless the reader may read this stream."""


class Tail:
    """One reader of one stream: an async iterator of its events, from a cursor to the close and no further.

        async for event in playhead.tail(stream_id, after=cursor):
            ...

    After the loop ``outcome`` tells how the stream ended. Leaving the loop early never stops the stream; use
    ``async with``, or ``aclose()``, to be counted out at once (else it happens when the object goes).

    Attributes:
        outcome: None until the close has been read.
        info: the newest known state, once opened.
    Raises (from opening or iterating): StreamNotFound, StreamExpired, CursorInvalid, CursorOfAnotherStream,
        CursorAhead, Diverged, TooManyReaders, Draining, StoreError.
    Cancel: safe at any await; nothing is lost, go on with ``cursor``.
    """

    __slots__ = (
        *("_batches", "_check", "_closed", "_events", "_feed", "_follows", "_info", "_position", "_principal"),
        *("_readers", "_start", "_waiter"),
        *("epoch", "offset", "outcome", "stream_id"),
    )

    def __init__(
        self,
        readers: Readers,
        stream_id: str,
        after: str | None,
        principal: Hashable,
        check: Check,
        *,
        follows: bool = True,
    ) -> None:
        self.stream_id = stream_id
        self.outcome: Outcome | None = None
        self.epoch = 0
        self.offset = 0
        self._start = Cursor.parse(after) if after else None
        self._readers = readers
        self._principal = principal
        self._check = check
        self._follows = follows
        self._feed: Feed | None = None
        self._info: StreamInfo | None = None
        self._closed = False
        self._position = 0
        self._waiter: asyncio.Future[None] | None = None
        self._batches: list[Batch] = []
        self._events: Iterator[Event] = iter(())

    @property
    def info(self) -> StreamInfo:
        """The newest state that this reader has seen. Only once opened."""
        if self._feed and self._feed.info:
            self._info = self._feed.info
        assert self._info is not None, "the tail is not open"
        return self._info

    @property
    def cursor(self) -> str:
        """Hand this to ``tail(after=…)``, now or in any process, to go on after what was read here."""
        return str(Cursor(self.info.mark, self.epoch, self.offset))

    @property
    def is_waiting(self) -> bool:
        return self._waiter is not None

    async def open(self) -> StreamInfo:
        """Attach: may this principal read, and does the stream hold what the cursor has? Idempotent."""
        if self._feed is not None or self._closed:
            return self.info
        self._check_draining()
        feed = self._feed = self._readers.attach(self.stream_id, self._principal)
        if not self._follows:
            feed.stale = True  # whoever asks for what is stored now will not hear of what a hint was late for
        try:
            info = self._info = await feed.refresh()
            await self._check(info)
            check_readable(info)
            self.epoch = info.epoch
            if self._start is not None:
                await self._resume(feed, self._start)
            return info
        except BaseException:
            self._detach()
            raise

    async def _resume(self, feed: Feed, start: Cursor) -> None:
        """Go to the cursor's place. The batch that holds its event tells under which epoch that was written."""
        page = await feed.fetch(max(start.offset - 1, 0))
        try:
            _check_cursor(page, start)
        except (CursorAhead, Diverged):
            # That read may have begun, for another reader, before what this cursor has was stored: ask once more.
            page = await feed.fetch(max(start.offset - 1, 0))
            _check_cursor(page, start)
        self.epoch, self.offset, self._position = start.epoch, start.offset, start.offset
        if start.offset > page.info.tail:
            self.outcome, self._info = page.info.outcome, page.info

    async def ready(self) -> list[Batch]:
        """Everything that can be read now, as whole batches; waits while that is nothing.

        Shape: at least one batch, about 256 KiB at most; empty when the close has been reached (see ``outcome``)
            or ``nudge`` was called.
        """
        if self._feed is None and not self._closed:
            await self.open()
        feed = self._feed
        try:
            while feed is not None and self.outcome is None:
                if self._follows and self._readers.draining:
                    self._readers.check_draining()
                if self._position < feed.tail:
                    batches = self._cached(feed) or await self._fetched(feed)
                    self._position = batches[-1].last
                    return batches
                if feed.stale or feed.error or feed.info is None:
                    check_readable(await feed.refresh())
                elif feed.info.outcome and self._position >= feed.info.tail:
                    self.outcome, self.epoch = feed.info.outcome, feed.info.epoch
                    self._position = feed.info.tail + 1
                elif await self._nudged(feed):
                    return []
        except PlayheadError:
            await self.aclose()
            raise
        return []

    async def stored(self) -> list[Batch]:
        """As ``ready``, but empty as soon as everything that is stored now has been read."""
        info = await self.open()
        if self.outcome or self._position >= max(info.tail, self._feed.tail if self._feed else 0):
            return []
        return await self.ready()

    def _cached(self, feed: Feed) -> list[Batch]:
        batches: list[Batch] = []
        size_bytes, position = 0, self._position
        while position < feed.tail and size_bytes < PAGE_MAX_BYTES:
            batch = feed.cache.get(feed, position + 1)
            if batch is None:
                break
            batches.append(batch)
            size_bytes += batch.size_bytes
            position = batch.last
        return batches

    async def _fetched(self, feed: Feed) -> list[Batch]:
        for _ in range(2):  # a read shared with others may have begun before the newest events were stored
            if batches := self._fresh((await feed.fetch(self._position)).batches):
                return batches
        raise Diverged("the store lost events that it had told of", stream_id=self.stream_id)

    def _fresh(self, batches: list[Batch]) -> list[Batch]:
        """Without what the reader has; a page shared by several readers may begin before this one's place."""
        if batches and batches[0].first <= self._position:
            batches = [batches[0].after(self._position), *batches[1:]]
        return batches

    def _check_draining(self) -> None:
        if self._follows:
            self._readers.check_draining()

    async def _nudged(self, feed: Feed) -> bool:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await feed.wait(waiter)
        finally:
            nudged, self._waiter = self._waiter is None, None
        return nudged

    def nudge(self) -> None:
        """Make a ``ready()`` that is waiting return empty-handed."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[Event]:
        # What has been fetched and not been given out stays with the tail: whoever leaves the loop may come back.
        while True:
            for event in self._events:
                self.offset = event[0]
                yield event
            if not await self._next_batch():
                return

    async def __anext__(self) -> Event:
        while True:
            for event in self._events:
                self.offset = event[0]
                return event
            if not await self._next_batch():
                raise StopAsyncIteration

    async def _next_batch(self) -> bool:
        """Make the next batch's events the ones to give out; False at the end."""
        while not self._batches:
            self._batches = (await self.ready())[::-1]
            if not self._batches and (self.outcome is not None or self._closed):
                self.offset = self._position
                await self.aclose()
                return False
        batch = self._batches.pop()
        self.epoch = batch.epoch
        self._events = iter(batch)
        return True

    async def aclose(self) -> None:
        """Detach; the iteration is over, the stream goes on. Idempotent."""
        self._closed = True
        self._detach()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _detach(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None:
            self._info = feed.info or self._info
            self._readers.detach(feed, self._principal)

    def __del__(self) -> None:
        if getattr(self, "_feed", None) is not None:
            self._detach()


def _check_cursor(page: Page, start: Cursor) -> None:
    there = page.batches[0].epoch if page.batches and page.batches[0].first <= start.offset else None
    check_cursor(page.info, start, there)
