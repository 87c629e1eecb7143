"""The one read loop: replay what is stored, wait, follow live. The same code for every door.

A reader is a cursor and a waiter, never a queue: however slow it is, it holds back nobody and costs no memory.
What it missed it takes from its feed's cache (see ``feed``) or else from the store. A wake-up only tells that there
is something to look at; what is read, and in which order, always comes from the log (P2, P8, P9).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from types import TracebackType
from typing import Self

from playhead.errors import CursorAhead, Diverged, PlayheadError, StoreUnavailable
from playhead.feed import Feed, Readers
from playhead.log import check_cursor, check_readable
from playhead.model import Batch, Cursor, Event, Outcome, Page, StreamInfo
from playhead.outage import Outage
from playhead.store import PAGE_MAX_BYTES

Check = Callable[[StreamInfo], Awaitable[None]]
"""Raises unless the reader may read this stream."""


class Tail:
    """One reader of one stream: an async iterator of its events, from a cursor to the close and no further.

        async for event in playhead.tail(stream_id, after=cursor):
            ...

    After the loop ``outcome`` tells how the stream ended. Leaving the loop early never stops the stream; use
    ``async with``, or ``aclose()``, to be counted out at once (else it happens when the object goes). A tail is for
    one task at a time. While the store is away iterating waits, for ``Options.store_patience_s`` at most.

    Attributes:
        outcome: None until the close has been read.
        info: the newest known state, once opened.
    Raises (from opening or iterating): StreamNotFound, StreamExpired, CursorInvalid, CursorOfAnotherStream,
        CursorAhead, Diverged, TooManyReaders, Draining, StoreError.
    Cancel: safe at any await; nothing is lost, go on with ``cursor``.
    """

    __slots__ = (
        *(
            "_batches",
            "_check",
            "_closed",
            "_events",
            "_feed",
            "_follows",
            "_info",
            "_outage",
            "_position",
            "_principal",
            "_reading",
        ),
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
        self._reading = False
        self._outage: Outage | None = None
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

    @property
    def is_closed(self) -> bool:
        return self._closed

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

    async def ready(self, *, waits: bool = True) -> list[Batch]:
        """Everything that can be read now, as whole batches; waits while that is nothing, unless told not to.

        Shape: at least one batch, about 256 KiB at most; empty when the close has been reached (see ``outcome``)
            or ``nudge`` was called.
        Raises: what closes the tail; and StoreUnavailable, which does not: see ``ready_again``.
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
                known = feed.info
                if known is not None and known.outcome and self._position == known.tail:
                    # Before anything is asked: a stream that was deleted right after its close has ended all the same.
                    self.outcome, self.epoch = known.outcome, known.epoch
                    self._position = known.tail + 1
                elif feed.stale or feed.error or known is None:
                    check_readable(await feed.refresh())
                elif known.outcome and self._position > known.tail:
                    raise Diverged("the store lost events that this reader has seen", stream_id=self.stream_id)
                elif not waits or await self._nudged(feed):
                    return []
        except StoreUnavailable:
            raise
        except PlayheadError:
            await self.aclose()
            raise
        return []

    async def ready_again(self) -> list[Batch]:
        """``ready``, after it raised StoreUnavailable: after a pause, and without waiting for what is not there yet.

        Shape: as ``ready``; empty, too, when the store has answered and there is nothing new.
        Raises: StoreUnavailable, as long as the outage lasts; the last time, when patience is over, the tail is closed.
        """
        now = asyncio.get_running_loop().time
        outage = self._outage = self._outage or Outage(now(), self._readers.patience_s)
        await self._pause(outage.pause_s(now()))
        try:
            batches = await self.ready(waits=False)
        except StoreUnavailable:
            if outage.is_too_long(now()):
                await self.aclose()
            raise
        self._outage = None
        return batches

    async def outlive(self) -> list[Batch]:
        """``ready_again`` until the store answers. Raises: StoreUnavailable when it took too long."""
        while True:
            try:
                return await self.ready_again()
            except StoreUnavailable:
                if self.is_closed:
                    raise

    async def _pause(self, seconds: float) -> None:
        """Wait so long; less when nudged, or when this process drains."""
        feed = self._feed
        if feed is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                while not (self._readers.draining or await self._nudged(feed)):
                    pass  # news; but the store is not asked more often for it
        except TimeoutError:
            return

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
            if self._reading:
                raise RuntimeError("another task is reading this tail; give each task a tail of its own")
            self._reading = True
            try:
                self._batches = (await self.ready())[::-1]
            except StoreUnavailable:
                self._batches = (await self.outlive())[::-1]
            finally:
                self._reading = False
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
