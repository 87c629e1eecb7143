"""Playhead: the one object users hold.

    async with Playhead.open("sqlite:///answers.db") as playhead:
        info = await playhead.start(answer(question), thread_id="t1", owner="ann")
        async for event in playhead.tail(info.stream_id, principal="ann"):
            print(event.text, end="")

``start`` and ``produce`` are called by the app itself and take the ``owner``; everything else takes the
``principal`` who asks, and ``authorize(principal, verb, stream)`` decides (P12). Strangers are told that the
stream does not exist.
"""

import asyncio
import inspect
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from playhead.errors import BadRequest, Conflict, Draining, StoreError, StreamNotFound, ThreadBusy
from playhead.feed import Readers
from playhead.heartbeat import Heartbeat
from playhead.log import Claim, Create, Delete, RequestCancel, check_readable
from playhead.model import Event, Status, StreamInfo, check_seconds, check_stream_id, check_text
from playhead.news import ThreadNews
from playhead.options import Options
from playhead.producer import SHUTDOWN, Producer, Source, close_source
from playhead.reader import Tail
from playhead.retention import Adrift, Housekeeper
from playhead.settling import SettleHook, Settler
from playhead.store import PAGE_MAX_BYTES, Applied, Query, Store
from playhead.stores import open_store
from playhead.writer import WRITER_LOST, Writer

Authorize = Callable[[str | None, str, StreamInfo], bool | Awaitable[bool]]
"""``authorize(principal, verb, stream)``; verbs: start, read, list, cancel, delete, produce."""

DEFAULT_STORE = "memory://"
_LAST_WORDS_S = 5.0
T = TypeVar("T")
logger = logging.getLogger("playhead")


def owner_only(principal: str | None, verb: str, stream: StreamInfo) -> bool:  # noqa: ARG001
    """The default: only the owner may do anything with a stream."""
    return principal == stream.owner


def _check_stream(thread_id: object, owner: object, metadata: Mapping[str, Any] | None, retention_s: object) -> None:
    """Raises: BadRequest for what a store could not keep."""
    check_text("thread_id", thread_id)
    check_text("owner", owner)
    check_seconds("retention_s", retention_s)
    try:
        json.dumps(dict(metadata or {}))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"metadata must be a JSON-able mapping: {error}", argument="metadata") from error


class Stored(NamedTuple):
    """What ``Playhead.read`` found, and the cursor to go on with."""

    events: list[Event]
    cursor: str


class Playhead:
    """Durable, resumable, cancellable streams on one store, for one event loop.

    Use ``async with Playhead.open(url) as playhead``, or ``await playhead.connect()`` and ``await
    playhead.close()``. All methods may be cancelled at any await; what was begun is finished behind the scenes.
    """

    def __init__(
        self,
        store: Store,
        *,
        options: Options | None = None,
        authorize: Authorize = owner_only,
        settle: SettleHook | None = None,
    ) -> None:
        self.options = options or Options()
        self._store = store
        self._authorize = authorize
        self._producers: dict[str, Producer] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._settling = Settler(store, settle, self._spawn)
        self._news = ThreadNews(store)
        self._adrift: dict[str, Adrift] = {}
        self._closing: asyncio.Task[None] | None = None
        self._is_open = False
        self._heartbeat: Heartbeat | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._readers = Readers(
            store,
            cache_max_bytes=self.options.cache_max_bytes,
            per_owner_max=self.options.readers_per_owner_max,
            patience_s=self.options.store_patience_s,
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        options: Options | None = None,
        authorize: Authorize = owner_only,
        settle: SettleHook | None = None,
    ) -> Self:
        """A Playhead on the store of a URL (see ``open_store``), not connected yet. Raises: InvalidSetting."""
        options = options or Options()
        return cls(open_store(url, options.store), options=options, authorize=authorize, settle=settle)

    @classmethod
    def from_env(cls, **settings: Any) -> Self:
        """A Playhead on the store that ``PLAYHEAD_STORE`` names (default ``memory://``)."""
        return cls.open(os.environ.get("PLAYHEAD_STORE", DEFAULT_STORE), **settings)

    # ---- life --------------------------------------------------------------------------------------

    async def connect(self) -> Self:
        """Open the store, take a lease, begin housekeeping. After ``close`` it may be opened again.

        Raises: StoreError, Conflict (it is open already).
        """
        if self._is_open:
            raise Conflict("this Playhead is open already; close it first, or make another one")
        self._is_open = True
        opening = self._spawn(self._connect())
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._begin_closing()
            raise
        except BaseException:
            self._is_open = False
            raise
        return self

    async def _connect(self) -> None:
        # What belonged to the life, and the event loop, before.
        self._closing = None
        self._settling.reset()
        self._adrift.clear()
        self._readers.draining = False
        await self._store.open()
        loop = asyncio.get_running_loop()
        heartbeat = self._heartbeat = Heartbeat(self._store, self.options.lease_s, loop.is_closed)
        housekeeper = Housekeeper(
            self._store,
            self.options,
            self._readers,
            self._producers,
            self._settling.begin,
            self._adrift,
            settles=self._settling.settles,
            steady_since=lambda: heartbeat.steady_since,
        )
        # What a predecessor left behind is closed before anybody can ask for it (P5).
        await housekeeper.tick(sweep=False)
        self._housekeeping = asyncio.create_task(housekeeper.run(), name="playhead housekeeping")

    async def drain(self, grace_s: float = 10.0) -> None:
        """Shut down cleanly (P11): refuse starts, send readers away with their cursors, give sources ``grace_s``
        to end by themselves, then close what remains ``interrupted`` (reason ``shutdown``). Idempotent.

        Bounded: takes ``grace_s`` plus ``cancel_grace_s`` plus 5 s at most, whatever sources and store do.
        """
        self._readers.drain()
        self._news.drain()
        await self._producers_ended(grace_s)
        for producer in list(self._producers.values()):
            producer.stop(SHUTDOWN)
        await self._producers_ended(self.options.cancel_grace_s + _LAST_WORDS_S)

    async def _producers_ended(self, timeout_s: float) -> None:
        if self._producers:
            await asyncio.wait([producer.closed for producer in self._producers.values()], timeout=timeout_s)

    async def close(self) -> None:
        """Drain without grace, then give everything back. Idempotent. Bounded, as ``drain`` is.

        What could not be closed in time is left to others: this instance's lease is given back, so they know at once.
        """
        await asyncio.shield(self._begin_closing())

    def _begin_closing(self) -> "asyncio.Task[None]":
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="playhead close")
            self._closing.add_done_callback(self._forget)
        return self._closing

    async def _close(self) -> None:
        await self.drain(grace_s=0)
        for producer in list(self._producers.values()):
            producer.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                while self._background:
                    await asyncio.wait(self._background)
                await self.drain(grace_s=0)  # what was being started meanwhile
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
            self._housekeeping = None
        for task in self._background:
            task.cancel()
        if self._heartbeat is not None:
            await asyncio.to_thread(self._heartbeat.stop)
            self._heartbeat = None
        await self._store.close()
        self._is_open = False

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_draining(self) -> bool:
        return self._readers.draining

    @property
    def store(self) -> Store:
        return self._store

    # ---- writing -----------------------------------------------------------------------------------

    async def start(
        self,
        source: Source,
        *,
        stream_id: str | None = None,
        thread_id: str | None = None,
        owner: str | None = None,
        idempotency_key: str | None = None,
        fingerprint: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retention_s: float | None = None,
        unwatched_after_s: float | None = None,
        supersede: bool = False,
    ) -> StreamInfo:
        """Record a source as a stream, in the background, and return at once.

        The source runs in a task of this process, never in the caller's (P3). It may yield str, bytes, JSON-able
        values or ``playhead.event(type, data)``.

        Args:
            source: an async iterator, or a callable that returns one (called only if the source is to run).
            stream_id: unique per generation; made when absent. Starting it again returns the same stream.
            thread_id: what it answers to. At most one stream is live on a thread.
            idempotency_key: unique per owner; a repeated start returns the first start's stream.
            fingerprint: of the request; the same key or id with another fingerprint is refused.
            metadata: JSON-able facts kept with the stream.
            unwatched_after_s: cancel when nobody watches for so long; None = go on to the end.
            supersede: cancel the stream that is live on the thread and wait for its end first.
        Returns: the new stream, or the one that was there; then the given source is closed and never run.
        Durable: the stream exists for everybody, before its first event too.
        Cancel: safe; a start that has begun is carried out.
        Raises: InvalidStreamId, ThreadBusy, StreamIdTaken, IdempotencyMismatch, StreamExpired, TooManyLiveStreams,
            StreamNotFound (a thread that belongs to somebody else), Draining, StoreError.
        """
        for name, value in (("idempotency_key", idempotency_key), ("fingerprint", fingerprint)):
            check_text(name, value)
        check_seconds("unwatched_after_s", unwatched_after_s)
        _check_stream(thread_id, owner, metadata, retention_s)
        create = Create(
            producer=self._store.instance_id,
            thread_id=thread_id,
            owner=owner,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            metadata=metadata or {},
            retention_s=retention_s or self.options.retention_s,
            unwatched_after_s=unwatched_after_s,
            needs_settling=self._settling.settles,
            live_per_owner_max=self.options.live_per_owner_max,
        )
        stream_id = stream_id if stream_id is not None else uuid.uuid4().hex
        return await self._finish(self._start(source, stream_id, create, supersede=supersede))

    async def _start(self, source: Source, stream_id: str, create: Create, *, supersede: bool) -> StreamInfo:
        started = False
        try:
            check_stream_id(stream_id)
            self._check_draining()
            await self._check_thread(create)
            applied = await self._create(stream_id, create, supersede=supersede)
            if applied.changed:
                self._adopt(applied.info).drive(source)
                started = True
            return applied.info
        finally:
            if not started:
                await close_source(source, timeout_s=self.options.cancel_grace_s)

    async def _create(self, stream_id: str, create: Create, *, supersede: bool) -> Applied:
        while True:
            try:
                return await self._become_producer(stream_id, create)
            except ThreadBusy as busy:
                await self._check_thread(create)  # it may have begun after we looked, and be a stranger's
                if not supersede:
                    raise
                with suppress(StreamNotFound):  # deleted meanwhile: it has ended as well
                    await self._store.apply(busy.stream_id, RequestCancel(create.owner, "superseded"))
                    await self._wait_closed(busy.stream_id)

    async def _become_producer(self, stream_id: str, command: Create | Claim) -> Applied:
        try:
            if self._heartbeat is not None and self._heartbeat.is_late:
                # Frozen, or cut off: whoever looks at a stream of ours now must find us alive.
                await asyncio.to_thread(self._store.renew)
            return await self._store.apply(stream_id, command)
        except StoreError:
            # It may have been stored all the same, and then it waits for a producer: us.
            self._adrift[stream_id] = Adrift(WRITER_LOST)
            raise

    async def _check_thread(self, create: Create) -> None:
        """A thread belongs to whoever the newest stream on it belongs to, as far as the core knows."""
        if create.thread_id is not None:
            latest = await self._store.find(Query(thread_ids=(create.thread_id,), limit=1))
            if latest and not await self._allowed(create.owner, "start", latest[0]):
                raise StreamNotFound("there is no such thread", thread_id=create.thread_id)

    async def produce(
        self,
        stream_id: str | None = None,
        *,
        thread_id: str | None = None,
        owner: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        retention_s: float | None = None,
        take_over: bool = False,
        keep_open: bool = False,
    ) -> Writer:
        """Become the producer of a stream and write it by hand; the stream is made when it does not exist.

            async with await playhead.produce("answer-7") as out:
                await out.append("Hello", " world")

        Many writers may take turns: end a turn with ``keep_open=True`` (or ``release``) and the next ``produce``
        has a higher epoch. While another one writes, ProducerActive is raised, unless ``take_over``: that fences it.

        Raises: as ``start``, and ProducerActive, StreamClosed.
        """
        _check_stream(thread_id, owner, metadata, retention_s)
        create = Create(
            producer=self._store.instance_id,
            thread_id=thread_id,
            owner=owner,
            metadata=metadata or {},
            retention_s=retention_s or self.options.retention_s,
            needs_settling=self._settling.settles,
            live_per_owner_max=self.options.live_per_owner_max,
        )
        stream_id = check_stream_id(stream_id if stream_id is not None else uuid.uuid4().hex)
        return await self._finish(self._produce(stream_id, create, take_over=take_over, keep_open=keep_open))

    async def _produce(self, stream_id: str, create: Create, *, take_over: bool, keep_open: bool) -> Writer:
        self._check_draining()
        try:
            info = await self._store.load(stream_id)
        except StreamNotFound:
            await self._check_thread(create)
            applied = await self._become_producer(stream_id, create)
            if applied.changed:
                return Writer(self._adopt(applied.info), keep_open=keep_open)
            info = applied.info
        await self._check(create.owner, "produce", info)
        applied = await self._become_producer(stream_id, Claim(self._store.instance_id, take_over))
        return Writer(self._adopt(applied.info), keep_open=keep_open)

    def _adopt(self, info: StreamInfo) -> Producer:
        producer = Producer(self._store, info, self.options, self._settling.stream)
        self._producers[info.stream_id] = producer
        self._news.began(info)

        def forget(closed: "asyncio.Future[StreamInfo | None]") -> None:
            if self._producers.get(info.stream_id) is producer:
                del self._producers[info.stream_id]
                end = closed.result()
                if end is None:
                    self._adrift[info.stream_id] = Adrift(producer.outcome)
                elif end.outcome and self._store.replay_s:  # a store that may lose what is new may lose a close
                    look_at = time.monotonic() + self._store.replay_s
                    self._adrift[info.stream_id] = Adrift(end.outcome, end.tail, look_at)

        producer.closed.add_done_callback(forget)
        if self.is_draining:  # it began while this stream was being made
            producer.stop(SHUTDOWN)
        return producer

    # ---- reading -----------------------------------------------------------------------------------

    def tail(self, stream_id: str, *, after: str | None = None, principal: str | None = None) -> Tail:
        """Follow a stream: everything after a cursor, then live, to its close (see ``Tail``).

        Raises: CursorInvalid, CursorOfAnotherStream; the rest when the Tail is opened or iterated.
        """

        return self._tail(stream_id, after, principal, follows=True)

    def _tail(self, stream_id: str, after: str | None, principal: str | None, *, follows: bool) -> Tail:
        async def check(info: StreamInfo) -> None:
            await self._check(principal, "read", info)

        return Tail(self._readers, stream_id, after, principal, check, follows=follows)

    async def read(self, stream_id: str, *, after: str | None = None, principal: str | None = None) -> Stored:
        """What is stored after a cursor now, without waiting for more; about 256 KiB at most a call.

        Go on with the cursor of the answer; it has no events when there is nothing more yet. Raises: as ``tail``.
        """
        async with self._tail(stream_id, after, principal, follows=False) as tail:
            events: list[Event] = []
            size_bytes = 0
            while size_bytes < PAGE_MAX_BYTES and (batches := await tail.stored()):
                for batch in batches:
                    events += batch
                    size_bytes += batch.size_bytes
                    tail.epoch, tail.offset = batch.epoch, batch.last
            return Stored(events, tail.cursor)

    async def events(self, stream_id: str, *, principal: str | None = None) -> AsyncIterator[Event]:
        """Everything stored in a stream at the moment of the call, page by page, without waiting for more."""
        async with self._tail(stream_id, None, principal, follows=False) as tail:
            until = (await tail.open()).tail
            while tail.offset < until and (batches := await tail.stored()):
                for batch in batches:
                    for event in batch.events:
                        tail.offset = event.offset
                        yield event

    async def info(self, stream_id: str, *, principal: str | None = None) -> StreamInfo:
        """The state of a stream, expired ones included. Raises: StreamNotFound, StoreError."""
        info = await self._store.load(stream_id)
        await self._check(principal, "read", info)
        return info

    async def find(self, query: Query, *, principal: str | None = None) -> list[StreamInfo]:
        """Streams by their properties, newest first; those that the principal may not list are left out."""
        found = await self._store.find(query)
        return [info for info in found if await self._allowed(principal, "list", info)]

    async def live(self, thread_ids: Iterable[str], *, principal: str | None = None) -> list[StreamInfo]:
        """The live streams on these threads."""
        threads = tuple(thread_ids)
        query = Query(status=Status.LIVE, thread_ids=threads, limit=max(len(threads), 1))
        return await self.find(query, principal=principal)

    async def latest(self, thread_id: str, *, principal: str | None = None) -> StreamInfo | None:
        """The newest stream on a thread, whatever its state."""
        found = await self.find(Query(thread_ids=(thread_id,), limit=1), principal=principal)
        return found[0] if found else None

    async def watch_thread(
        self, thread_id: str, tell: Callable[[StreamInfo | None], None], *, principal: str | None = None
    ) -> list[StreamInfo]:
        """Have ``tell`` called for each stream that begins on a thread in any process; with None when this process
        drains.

        A stream of another process is told of within about 50 ms; within 3 s when a connection to the store was just
        lost, and after an outage when the store is back. A stream may be told of more than once, and to those who may
        not read it: ask with ``tail``. Returns the newest streams of the thread so far, newest first. Undo it with
        ``unwatch_thread``. Raises: StoreError.
        """
        found = await self._news.watch(thread_id, tell)
        try:
            return [info for info in found if await self._allowed(principal, "list", info)]
        except BaseException:
            self._news.unwatch(thread_id, tell)
            raise

    def unwatch_thread(self, thread_id: str, tell: Callable[[StreamInfo | None], None]) -> None:
        self._news.unwatch(thread_id, tell)

    # ---- ending ------------------------------------------------------------------------------------

    async def cancel(self, stream_id: str, *, principal: str | None = None, reason: str | None = None) -> StreamInfo:
        """Ask for the end of a stream, from any process; before its first event too (P4).

        Durable when this returns. Idempotent: a stream that is closed already stays as it is. The producer keeps
        what it has, stops its source and closes ``cancelled``.
        Raises: StreamNotFound, StreamExpired, StoreError.
        """
        check_text("principal", principal)
        check_text("reason", reason)
        return await self._finish(self._cancel(stream_id, principal, reason))

    async def _cancel(self, stream_id: str, principal: str | None, reason: str | None) -> StreamInfo:
        await self._check(principal, "cancel", await self._store.load(stream_id))
        applied = await self._store.apply(stream_id, RequestCancel(principal, reason))
        if applied.changed and not applied.info.is_live:
            await self._settling.stream(applied.info)
        return applied.info

    async def delete(self, stream_id: str, *, principal: str | None = None) -> None:
        """Forget a stream and its events at once, live or not; its readers are told that it is not found.

        Raises: StreamNotFound, StoreError.
        """
        await self._check(principal, "delete", await self._store.load(stream_id))
        await self._finish(self._store.apply(stream_id, Delete()))

    async def wait(self, stream_id: str, *, principal: str | None = None) -> StreamInfo:
        """Wait for a stream's close and return its final state. Raises: StreamNotFound, Draining, StoreError."""
        await self._check(principal, "read", await self._store.load(stream_id))
        return await self._wait_closed(stream_id)

    async def _wait_closed(self, stream_id: str) -> StreamInfo:
        feed = self._readers.attach(stream_id, self, limited=False)
        try:
            info = await feed.refresh()
            while info.is_live:
                self._check_draining()
                await feed.wait(asyncio.get_running_loop().create_future())
                known = feed.info
                # Before anything is asked: a stream that was deleted right after its close has ended all the same.
                info = known if known is not None and not known.is_live else await feed.refresh()
            check_readable(info)
            return info
        finally:
            self._readers.detach(feed, self)

    # ---- settling ----------------------------------------------------------------------------------

    async def settle(self, thread_id: str) -> None:
        """Settle what earlier streams of a thread left unsettled; call it before reading the thread's history."""
        await self._settling.thread(thread_id)

    # ---- helpers -----------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # the caller got it, or has gone

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry the work out even when the caller is cancelled meanwhile (P10)."""
        return await asyncio.shield(self._spawn(work))

    def _check_draining(self) -> None:
        if self.is_draining:
            raise Draining("this process is shutting down; start the stream elsewhere, or again in a moment")

    async def _allowed(self, principal: str | None, verb: str, info: StreamInfo) -> bool:
        allowed = self._authorize(principal, verb, info)
        return await allowed if inspect.isawaitable(allowed) else bool(allowed)

    async def _check(self, principal: str | None, verb: str, info: StreamInfo) -> None:
        if not await self._allowed(principal, verb, info):
            raise StreamNotFound("there is no such stream", stream_id=info.stream_id)
