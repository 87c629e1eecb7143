"""From a yielded token to the store: one producer writes one stream under one lease.

    source ──push──► pending ──freeze──► batch in flight ──store.append──► stored
                        ▲                      │
                        └── collects while ────┘   (idle: sent at once; busy: batches grow by themselves)

A batch once sent is frozen: its retry is the same bytes at the same offsets, so an append whose answer was lost
is never stored twice. Nothing here runs inside a request (P3), and every way out ends in exactly one close (P7):
the source ended, raised, was cancelled, ignored its cancellation until the grace period was over, was taken over
(then the close is not ours any more), or the process drains.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any

from playhead.entry import TYPES_MAX
from playhead.errors import (
    AppendGap,
    AppendRepeat,
    EventsLost,
    EventTooLarge,
    Fenced,
    InvalidEvent,
    PlayheadError,
    StoreError,
    StreamClosed,
    StreamNotFound,
)
from playhead.log import Claim, Close, Release
from playhead.model import COMPLETED, TEXT, Batch, Lease, Outcome, OutcomeKind, StreamInfo, draft
from playhead.options import Options
from playhead.recent import Recent
from playhead.store import Store

Source = AsyncIterator[Any] | Callable[[], Any]
"""An async iterator of events, or a callable that returns one (also by way of an awaitable)."""

Closed = Callable[[StreamInfo], Awaitable[None]]

BATCH_MAX_EVENTS = 4_096
BATCH_MAX_BYTES = 256 * 1024
_PENDING_MAX_EVENTS = 2 * BATCH_MAX_EVENTS
_PENDING_MAX_BYTES = 4 * BATCH_MAX_BYTES
_ERROR_MAX_CHARACTERS = 2_000
_RETRY_FIRST_S, _RETRY_MAX_S = 0.05, 1.0

SHUTDOWN = Outcome(OutcomeKind.INTERRUPTED, reason="shutdown")
_SELF_CANCELLED = Outcome(OutcomeKind.FAILED, error="CancelledError: the source was cancelled from inside")
_OVER = (Fenced, StreamClosed, StreamNotFound)

_DRIVEN_BY: ContextVar["Producer"] = ContextVar("playhead_producer")

logger = logging.getLogger("playhead")


def stopping() -> Outcome | None:
    """For the code of a source that is being stopped, where it cleans up: how its stream is to end.

    ``cancelled`` when somebody cancelled it; ``interrupted`` when this process shuts down; ``failed`` when its stream
    can be written here no more: it was taken over, or the store does not take it. None while it runs undisturbed,
    when it ends or raises by itself, and outside of a source.
    """
    producer = _DRIVEN_BY.get(None)
    return None if producer is None else producer.stopping


class Producer:
    """The engine's writer of one stream. Users hold a Writer, or nothing when a source is driven.

    Slots, because there may be ten thousand of them.
    """

    __slots__ = (
        *("cancelled", "closed", "is_crowded", "lease", "outcome", "stored", "unwatched_after_s"),
        *("_broken", "_closing_late", "_context", "_created_at", "_datas", "_event_max_bytes", "_failing_since"),
        *("_finishing", "_frozen", "_grace", "_in_flight", "_kinds", "_looking", "_on_closed", "_options"),
        *("_pending_bytes", "_progress", "_recent", "_redo", "_retry_s", "_source", "_stale", "_stop", "_store"),
        *("_task", "_unwatch"),
    )

    def __init__(self, store: Store, info: StreamInfo, options: Options, on_closed: Closed) -> None:
        self.lease = Lease(info.stream_id, info.epoch)
        self.cancelled: asyncio.Event | None = None  # a Writer's, to be set
        self.closed: asyncio.Future[StreamInfo | None] = asyncio.get_running_loop().create_future()
        self.unwatched_after_s = info.unwatched_after_s
        self.stored = info.tail
        self.outcome = SHUTDOWN
        self._created_at = info.created_at
        self._store = store
        self._options = options
        self._on_closed = on_closed
        self._event_max_bytes = options.event_max_bytes
        self._frozen = info.tail
        self.is_crowded = False  # so much waits for the store that the source must wait too
        self._kinds: list[str] = []
        self._datas: list[bytes] = []
        self._pending_bytes = 0
        self._in_flight: Batch | None = None
        self._recent = Recent(store.replay_s) if store.replay_s else None
        self._redo: list[Batch] = []
        self._retry_s = 0.0
        self._failing_since: float | None = None
        self._broken: PlayheadError | None = None
        self._progress: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._source: object = None
        self._context: Context | None = None  # the source's, from its first step to its last
        self._closing_late: asyncio.Task[None] | None = None
        self._stop: Outcome | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._stale = False
        self._looking: asyncio.Task[None] | None = None
        self._unwatch = store.watch(info.stream_id, self._wake)
        # Watch first, then look: a cancel may have been stored since ``info`` was.
        self._wake(None, None)

    # ---- writing -----------------------------------------------------------------------------------

    def push(self, item: object) -> None:
        """Take one event; it is sent at once, or with the next batch when one is under way.

        Raises: InvalidEvent, EventTooLarge, and what ended the stream for this producer.
        """
        if self._broken is not None:
            raise self._broken
        kind, data = (TEXT, item.encode("utf-8", "surrogatepass")) if isinstance(item, str) else draft(item)
        size_bytes = len(data)
        if size_bytes > self._event_max_bytes:
            limit = self._event_max_bytes
            raise EventTooLarge(f"an event may hold at most {limit:,} bytes; this one has {size_bytes:,}", limit=limit)
        self._kinds.append(kind)
        self._datas.append(data)
        self._pending_bytes += size_bytes
        if self._in_flight is None:
            self._send(self._freeze())
        elif self._pending_bytes >= _PENDING_MAX_BYTES or len(self._datas) >= _PENDING_MAX_EVENTS:
            self.is_crowded = True

    async def room(self) -> None:
        """Wait until the store has caught up enough to take more."""
        while self.is_crowded:
            await self._next_progress()

    async def flush(self) -> None:
        """Wait until everything pushed before is stored. Raises: what ended the stream for this producer."""
        until = self._frozen + len(self._datas)
        while self.stored < until:
            await self._next_progress()

    async def _next_progress(self) -> None:
        if self._broken is not None:
            raise self._broken
        waiter = asyncio.get_running_loop().create_future()
        self._progress.add(waiter)
        try:
            await waiter
        finally:
            self._progress.discard(waiter)
        if self._broken is not None:
            raise self._broken

    def _freeze(self) -> Batch:
        """Make a batch of what is pending, as much as one batch may hold."""
        kinds, datas = self._kinds, self._datas
        count = len(datas)
        if count > BATCH_MAX_EVENTS or self._pending_bytes > BATCH_MAX_BYTES:
            count = self._fitting()
        kind = kinds[0]
        types: str | list[str] = kind
        if count > 1 and kinds.count(kind) != len(kinds):
            if len(set(kinds[:count])) > TYPES_MAX:
                count = TYPES_MAX
            types = kinds[:count]
        first = self._frozen + 1
        batch = Batch(first, self.lease.epoch, types, datas[:count] if count < len(datas) else datas)
        self._kinds, self._datas = kinds[count:], datas[count:]
        self._frozen = batch.last
        self._pending_bytes -= batch.size_bytes
        self.is_crowded = self._pending_bytes >= _PENDING_MAX_BYTES or len(self._datas) >= _PENDING_MAX_EVENTS
        return batch

    def _fitting(self) -> int:
        size_bytes = 0
        for count, data in enumerate(self._datas[:BATCH_MAX_EVENTS]):
            size_bytes += len(data)
            if size_bytes > BATCH_MAX_BYTES:
                return max(count, 1)
        return min(len(self._datas), BATCH_MAX_EVENTS)

    def _send(self, batch: Batch) -> None:
        self._in_flight = batch
        try:
            answer = self._store.append(self.lease, batch)
        except Exception as error:  # noqa: BLE001 - a batch that no store takes must not leave the stream live
            self._break(StoreError(f"append failed: {error!r}"))
        else:
            answer.add_done_callback(self._answered)

    def _answered(self, answer: "asyncio.Future[None]") -> None:
        error = None if answer.cancelled() else answer.exception()
        batch = self._in_flight
        if batch is None or self._broken is not None:
            return
        if answer.cancelled() or (isinstance(error, StoreError) and error.retryable):
            self._retry(batch, error)
        elif error is None or (self._failing_since is not None and isinstance(error, AppendRepeat)):
            self._failing_since = None
            if batch.last > self.stored:
                self.stored = batch.last
                if self._recent is not None:
                    self._recent.add(batch)
            self._in_flight = None
            if self._redo:
                self._send(self._redo.pop())
            elif self._datas:
                self._send(self._freeze())
            self._tell_progress()
        elif isinstance(error, AppendGap):
            self._append_again(error.tail)
        else:
            self._break(error if isinstance(error, PlayheadError) else StoreError(f"append failed: {error!r}"))

    def _retry(self, batch: Batch, error: BaseException | None) -> None:
        """Hand the same batch in again, until the store answers or patience is over."""
        loop = asyncio.get_running_loop()
        if self._failing_since is None:
            self._failing_since, self._retry_s = loop.time(), _RETRY_FIRST_S
            logger.warning("stream %s: append failed, retrying: %s", self.lease.stream_id, error)
        if loop.time() - self._failing_since > self._options.store_patience_s and isinstance(error, PlayheadError):
            self._break(error)
            return
        loop.call_later(self._retry_s, self._resend, batch)
        self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S)

    def _resend(self, batch: Batch) -> None:
        if self._broken is None:
            self._send(batch)

    def _append_again(self, tail: int) -> None:
        """The store holds events up to ``tail`` only: it lost what it had acknowledged. The same, once more (P1)."""
        lost = self._recent.after(tail) if self._recent is not None else None
        if lost is None:
            said = f"the store lost events that it had acknowledged, from event {tail + 1} on"
            self._break(EventsLost(said, first=tail + 1))
            return
        logger.warning("stream %s: the store lost events from %d on; appending them again", self.lease[0], tail + 1)
        under_way = [self._in_flight] if self._in_flight is not None and self._in_flight.last > self.stored else []
        self._redo = [*lost, *under_way][::-1]
        self._send(self._redo.pop())

    async def _appended_again(self, tail: int) -> None:
        """As ``_append_again``; returns when it is done, or cannot be."""
        if self._in_flight is None and self._broken is None:
            self._append_again(tail)
        with suppress(PlayheadError):
            while self._in_flight is not None and self._broken is None:
                await self._next_progress()

    def _break(self, error: PlayheadError) -> None:
        """Nothing more can be written by this producer."""
        if self._broken is None:
            self._broken = error
            self._kinds, self._datas, self._pending_bytes, self.is_crowded = [], [], 0, False
            self._tell_progress()
            if self._task is not None:
                self._halt()
            elif isinstance(error, _OVER):
                self.finish(SHUTDOWN)

    def _tell_progress(self) -> None:
        for waiter in self._progress:
            if not waiter.done():
                waiter.set_result(None)

    # ---- driving a source --------------------------------------------------------------------------

    def drive(self, source: Source) -> None:
        """Run the source in a task of its own, then close."""
        self._source = source
        self._context = copy_context()
        self._context.run(_DRIVEN_BY.set, self)
        name = f"playhead {self.lease.stream_id}"
        self._task = asyncio.create_task(self._drive(source), name=name, context=self._context)
        self._task.add_done_callback(self._driven)
        if self._stop is not None:
            self._halt()

    async def _drive(self, source: Source) -> None:
        iterator: Any = source() if callable(source) and not isinstance(source, AsyncIterable) else source
        if inspect.isawaitable(iterator) and not isinstance(iterator, AsyncIterable):
            iterator = await iterator
        if not isinstance(iterator, AsyncIterable):
            raise InvalidEvent(f"a source must be an async iterator or return one, not {type(iterator).__name__}")
        self._source = iterator
        push = self.push
        async for item in iterator:
            if self._stop is not None:
                return
            push(item)
            if self.is_crowded:
                await self.room()

    def _driven(self, task: "asyncio.Task[None]") -> None:
        if self._finishing is None:
            self.finish(self._outcome_of(task))
        else:  # it had been abandoned
            if not task.cancelled() and task.exception() is not None:
                logger.warning("stream %s: source failed after its stream was closed", self.lease.stream_id)
            self._closing_late = asyncio.create_task(self._close_source())

    async def _close_source(self) -> None:
        await close_source(self._source, timeout_s=self._options.cancel_grace_s, context=self._context)

    def _outcome_of(self, task: "asyncio.Task[None]") -> Outcome:
        if self._stop is not None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.info("stream %s: source raised while stopping", self.lease.stream_id, exc_info=error)
            return self._stop
        if task.cancelled():
            if self._broken is not None:
                return failed(self._broken)
            return SHUTDOWN if task.cancelling() else _SELF_CANCELLED
        error = task.exception()
        if error is None:
            return COMPLETED
        if not isinstance(error, PlayheadError):
            logger.warning("stream %s: source failed", self.lease.stream_id, exc_info=error)
        return failed(error)

    # ---- ending ------------------------------------------------------------------------------------

    def _wake(self, batch: Batch | None, info: StreamInfo | None) -> None:
        if batch is not None or self._finishing is not None:
            return
        if info is None or not self._is_ours(info):
            self._stale = True
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name=f"playhead look {self.lease.stream_id}")
        elif info.cancel:
            self.stop(Outcome(OutcomeKind.CANCELLED, by=info.cancel.by, reason=info.cancel.reason))

    def _is_ours(self, info: StreamInfo) -> bool:
        return info.is_live and info.epoch == self.lease.epoch and info.created_at == self._created_at

    async def _look(self) -> None:
        """A state that is not ours any more, or unknown: ask, and stop when somebody took the stream away."""
        while self._stale and self._finishing is None:
            self._stale = False
            stored = self.stored
            try:
                info = await self._store.load(self.lease.stream_id)
            except StreamNotFound as error:
                self._break(error)
            except StoreError as error:
                logger.warning("stream %s: %s", self.lease.stream_id, error)
                self._stale = True  # a cancel must not be missed: ask again
                await asyncio.sleep(_RETRY_MAX_S)
            else:
                if self._is_ours(info):
                    if info.tail < stored and self._in_flight is None and self._broken is None:
                        self._append_again(info.tail)
                    self._wake(None, info)
                else:
                    self._break(Fenced("somebody took this stream over or closed it", epoch=self.lease.epoch))
        self._looking = None

    @property
    def stopping(self) -> Outcome | None:
        """What the source is told: see the function of this name."""
        return self._stop or (None if self._broken is None else failed(self._broken))

    def stop(self, outcome: Outcome) -> None:
        """Cancel the source and close with this outcome, after the grace period at the latest. First call wins."""
        if self._stop is not None or self._finishing is not None or (self._task and self._task.done()):
            return
        self._stop = outcome
        if outcome.kind is OutcomeKind.CANCELLED and self.cancelled is not None:
            self.cancelled.set()
        self._halt()

    def _halt(self) -> None:
        """Make the source stop; after the grace period go on without it."""
        if self._finishing is None:
            if self._task is not None:
                self._task.cancel()
            if self._grace is None:
                self._grace = asyncio.get_running_loop().call_later(self._options.cancel_grace_s, self._abandon)

    def _abandon(self) -> None:
        if self._finishing is None:
            logger.warning("stream %s: its source does not stop; abandoned and fenced", self.lease.stream_id)
            self.finish(self.stopping or SHUTDOWN)

    @property
    def is_ending(self) -> bool:
        return self._finishing is not None

    def finish(self, outcome: Outcome) -> None:
        """Begin the one end of this producer."""
        if self._finishing is None:
            self._finishing = asyncio.create_task(self._end(outcome), name=f"playhead end {self.lease.stream_id}")

    async def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        info: StreamInfo | None = None
        try:
            if self._task is None or self._task.done():
                await self._close_source()
            try:
                await self.flush()
            except PlayheadError as error:
                if outcome.kind is OutcomeKind.COMPLETED:
                    self.outcome = failed(error)
            info = await self._give_up(Close(self.lease.epoch, self.outcome, self.stored))
        finally:
            kind = self.outcome.kind
            await self._ended(info, StreamClosed("the stream is closed", stream_id=self.lease.stream_id, outcome=kind))

    def leave(self) -> None:
        """Drop everything where it is: the process goes, and its store says so to the others."""
        self._stop = self._stop or SHUTDOWN
        for task in (self._task, self._finishing):
            if task is not None:
                task.cancel()

    async def _give_up(self, command: Close | Release) -> StreamInfo | None:
        """Store that we are not the producer any more. None when we were not, or when it cannot be stored."""
        if isinstance(self._broken, _OVER):
            logger.info("stream %s: taken over or closed by somebody else", self.lease.stream_id)
            return None
        deadline = asyncio.get_running_loop().time() + self._options.store_patience_s
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                if isinstance(self._broken, EventsLost) and isinstance(command, Close):
                    # A new epoch: who has seen what is lost is told so, and not that his cursor is ahead.
                    claimed = await self._store.apply(
                        self.lease.stream_id, Claim(self._store.instance_id, take_over=True)
                    )
                    command = Close(claimed.info.epoch, command.outcome)
                return (await self._store.apply(self.lease.stream_id, command)).info
            except AppendGap as error:
                await self._appended_again(error.tail)
                if isinstance(self._broken, EventsLost):
                    self.outcome = failed(self._broken)
                    command = Close(self.lease.epoch, self.outcome)
            except StoreError as error:
                if not error.retryable or asyncio.get_running_loop().time() > deadline:
                    logger.error("stream %s: its end cannot be stored: %s", self.lease.stream_id, error)
                    self._break(error)
                    return None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MAX_S)
            except PlayheadError as error:
                logger.info("stream %s: not ours to end: %s", self.lease.stream_id, error)
                self._break(error)
                return None

    async def _ended(self, info: StreamInfo | None, error: PlayheadError) -> None:
        """Let go of everything; have a closed stream settled before the end is told."""
        self._break(error)
        self._unwatch()
        for waiting in (self._grace, self._looking):
            if waiting is not None:
                waiting.cancel()
        try:
            if info is not None and not info.is_live:
                await self._on_closed(info)
        finally:
            if not self.closed.done():
                self.closed.set_result(info)

    async def end(self, outcome: Outcome) -> StreamInfo | None:
        """Close from outside a source: flush, close, settle. Returns the state, None when it was not ours any more."""
        self.finish(outcome)
        return await asyncio.shield(self.closed)

    async def release(self) -> None:
        """Flush, then let go of the stream without closing it."""
        if self._finishing is None:
            self._finishing = asyncio.create_task(self._let_go())
            self._finishing.add_done_callback(_seen)
        await asyncio.shield(self._finishing)

    async def _let_go(self) -> None:
        info: StreamInfo | None = None
        try:
            await self.flush()
            info = await self._give_up(Release(self.lease.epoch))
            if info is None and self._broken is not None:
                raise self._broken
        except PlayheadError as error:
            self.outcome = failed(error)
            raise
        finally:
            await self._ended(info, StreamClosed("this writer has let the stream go", stream_id=self.lease.stream_id))


def _seen(task: "asyncio.Task[None]") -> None:
    """The caller gets the exception; one that was cancelled needs it no more."""
    if not task.cancelled():
        task.exception()


def failed(error: BaseException) -> Outcome:
    """The outcome of a stream that an error ended: the error in words, never a traceback."""
    text = str(error) if isinstance(error, PlayheadError) else f"{type(error).__name__}: {error}"
    return Outcome(OutcomeKind.FAILED, error=text[:_ERROR_MAX_CHARACTERS])


async def close_source(source: object, *, timeout_s: float, context: Context | None = None) -> None:
    """Run the source's ``finally``, also when it was never started; give up on one that does not end.

    ``context``: in which it ran; what it set there it may reset.
    """
    if inspect.iscoroutine(source):
        source.close()  # never awaited, and nobody will
    aclose = getattr(source, "aclose", None)
    if aclose is None:
        return
    closing = asyncio.create_task(_aclose(aclose), context=context)
    await asyncio.wait({closing}, timeout=timeout_s)
    if not closing.done():
        closing.cancel()
        logger.warning("a source does not end when it is closed; abandoned")
    elif not closing.cancelled() and closing.exception() is not None:
        logger.warning("a source failed while it was closed: %r", closing.exception())


async def _aclose(aclose: Callable[[], Any]) -> None:
    closing = aclose()
    if inspect.isawaitable(closing):
        await closing
