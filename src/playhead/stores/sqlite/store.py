"""The store as the engines see it: the loop's side of the threads, and nothing else."""

import asyncio
import time
import uuid
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from sqlite3 import Connection
from typing import Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

from playhead.entry import pack
from playhead.errors import InvalidSetting, StoreUnavailable
from playhead.log import Command
from playhead.model import Batch, Lease, Page, StreamInfo
from playhead.store import Applied, Query, StoreOptions, Wake, WakeThread
from playhead.stores.sqlite import queries, rows
from playhead.stores.sqlite.checkpointer import Checkpointer
from playhead.stores.sqlite.presence import Presence
from playhead.stores.sqlite.reader import Begun, Question, Reader, Watch, WatchThread
from playhead.stores.sqlite.schema import Database
from playhead.stores.sqlite.worker import Answer, News, resolve
from playhead.stores.sqlite.writer import Append, Task, Writer
from playhead.watchers import Watchers

_PURGE_STEP_ENTRIES = 100
_TOLD_MAX = 10_000

P = ParamSpec("P")
T = TypeVar("T")


class _Parts(NamedTuple):
    """What lives from open to close."""

    loop: asyncio.AbstractEventLoop
    presence: Presence
    writer: Writer
    reader: Reader
    checkpointer: Checkpointer


class SQLiteStore:
    """See ``playhead.store.Store``.

    Durable: with ``synchronous="normal"`` what is acknowledged survives the end of any process, and a power cut but
    for the last moments (the file stays sound; readers that saw more are told ``diverged``). With ``"full"`` it
    survives a power cut too, at the cost of one fsync for each commit.

    Args:
        path: the database file; it and its directories are made when they are missing.
        options: see StoreOptions.
        clock: seconds since the Unix epoch.
        synchronous: see Durable.
        busy_timeout_s: how long to wait for another process's lock before StoreLocked.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        options: StoreOptions | None = None,
        clock: Callable[[], float] = time.time,
        synchronous: Literal["normal", "full"] = "normal",
        busy_timeout_s: float = 5.0,
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise InvalidSetting("synchronous is 'normal' or 'full'", synchronous=synchronous)
        self.instance_id = ""
        self.replay_s = 0.0
        self.now = clock
        self._database = Database(Path(path).absolute(), synchronous, busy_timeout_s)
        self._options = options or StoreOptions()
        self._parts: _Parts | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watchers = Watchers[Batch | None, StreamInfo | None]()
        self._told: dict[str, rows.Mark] = {}  # of the streams of ``_watchers``, and of what was written here lately
        self._thread_watchers = Watchers[[]]()
        self._begun: dict[str, int] = {}  # the ``no`` up to which watchers of a thread have been told

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.instance_id = uuid.uuid4().hex
        presence = Presence(self._database, self.instance_id, self._options.lease_s, self.now)
        checkpointer = Checkpointer(loop, self._database)
        writer = Writer(loop, self._database, presence, self._options, self.now, self._deliver, checkpointer.ask)
        reader = Reader(loop, self._database, self.instance_id, self._deliver_found, self._deliver_begun)
        parts = _Parts(loop, presence, writer, reader, checkpointer)
        try:
            for worker in (writer, reader, checkpointer):  # the writer makes the file
                await worker.start()
        except BaseException:
            await _stopped(parts)
            raise
        self._parts, self._closing, self._told, self._begun = parts, None, {}, {}
        for stream_id in self._watchers:
            reader.hand_over(Watch(stream_id, is_wanted=True))
        for thread_id in self._thread_watchers:
            reader.hand_over(WatchThread(thread_id, is_wanted=True))

    async def close(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            # A task of its own: who stops waiting for it does not stop it
            self._closing = parts.loop.create_task(_stopped(parts))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def apply(self, stream_id: str, command: Command) -> Applied:
        return await self._write(partial(Writer.apply, stream_id=stream_id, command=command))

    def append(self, lease: Lease, batch: Batch) -> "asyncio.Future[None]":
        parts = self._parts
        if parts is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_exception(_closed())
            return done
        done = parts.loop.create_future()
        parts.writer.hand_over(Append(lease.stream_id, lease.epoch, batch, pack(batch), done))
        return done

    async def load(self, stream_id: str) -> StreamInfo:
        return await self._ask(queries.load, stream_id)

    async def read(self, stream_id: str, after: int) -> Page:
        return await self._ask(queries.read, stream_id, after)

    async def find(self, query: Query) -> list[StreamInfo]:
        return await self._ask(queries.find, query)

    async def orphans(self, *, proven: bool) -> list[str]:
        parts = self._opened()
        dead = await self._ask(queries.dead, parts.presence.is_dead)
        if dead:
            # Without its lease the rules take it for dead at once
            await self._write(partial(Writer.forget_instances, instance_ids=dead))
        return await self._ask(queries.orphans, self.instance_id, dead, self.now(), proven=proven)

    async def due(self, limit: int) -> list[str]:
        return await self._ask(queries.due, self.now(), limit)

    async def purge(self, limit: int) -> int:
        freed = 0
        while freed < limit:
            count = await self._write(partial(Writer.purge, limit=min(_PURGE_STEP_ENTRIES, limit - freed)))
            if not count:
                break
            freed += count
        return freed

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        if stream_id not in self._watchers:
            if self._told.get(stream_id) == rows.NOTHING:
                del self._told[stream_id]  # an id may come back and go again: that is news once more
            self._look_at(Watch(stream_id, is_wanted=True))
        return self._watchers.add(stream_id, wake, gone=lambda: self._look_at(Watch(stream_id, is_wanted=False)))

    def watch_thread(self, thread_id: str, wake: WakeThread) -> Callable[[], None]:
        def gone() -> None:
            self._begun.pop(thread_id, None)
            self._look_at(WatchThread(thread_id, is_wanted=False))

        if thread_id not in self._thread_watchers:
            self._look_at(WatchThread(thread_id, is_wanted=True))
        return self._thread_watchers.add(thread_id, wake, gone=gone)

    def renew(self) -> None:
        self._opened().presence.renew()

    # ---- to the threads and back ---------------------------------------------------------------------

    def _opened(self) -> _Parts:
        if self._parts is None:
            raise _closed()
        return self._parts

    async def _write(self, work: Callable[[Writer], T]) -> T:
        parts = self._opened()
        done: asyncio.Future[T] = parts.loop.create_future()
        parts.writer.hand_over(Task(work, done))
        return await done

    async def _ask(self, ask: Callable[Concatenate[Connection, P], T], *arguments: P.args, **keywords: P.kwargs) -> T:
        parts = self._opened()
        done: asyncio.Future[T] = parts.loop.create_future()
        parts.reader.hand_over(Question(lambda connection: ask(connection, *arguments, **keywords), done))
        return await done

    def _look_at(self, watch: Watch | WatchThread) -> None:
        if self._parts is not None:
            self._parts.reader.hand_over(watch)

    def _deliver(self, news: list[News], answers: list[Answer]) -> None:
        """What was committed here: watchers first, then whoever waits for it."""
        for item in news:
            mark = item.mark
            if item.batch is not None:
                # A batch does not tell what others did to the state before it: that is still to be found.
                told = self._told.get(item.stream_id, rows.NOTHING)
                mark = rows.Mark(mark.no, told.version if told.no == mark.no else 0, mark.tail)
            self._told[item.stream_id] = mark
            self._watchers.tell(item.stream_id, item.batch, item.info)
            if item.info is not None and item.info.thread_id is not None and mark.version == rows.FIRST_VERSION:
                self._tell_begun(item.info.thread_id, mark.no)
        if len(self._told) > _TOLD_MAX + len(self._watchers):
            self._told = {stream_id: mark for stream_id, mark in self._told.items() if stream_id in self._watchers}
        resolve(answers)

    def _deliver_found(self, news: list[News], answers: list[Answer]) -> None:
        """What the look found. Some of it was committed, and delivered, here."""
        for item in news:
            told = self._told.get(item.stream_id)
            if told is None or item.mark > told or (item.mark == rows.NOTHING and told != item.mark):
                self._told[item.stream_id] = item.mark
                self._watchers.tell(item.stream_id, item.batch, item.info)
        resolve(answers)

    def _deliver_begun(self, begun: list[Begun]) -> None:
        for thread_id, no in begun:
            self._tell_begun(thread_id, no)

    def _tell_begun(self, thread_id: str, no: int) -> None:
        """Once for each stream, whether it was made here, or found, or both."""
        if thread_id in self._thread_watchers and no > self._begun.get(thread_id, -1):
            self._begun[thread_id] = no
            self._thread_watchers.tell(thread_id)


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store is not open")


async def _stopped(parts: _Parts) -> None:
    """Everything that waits is written, then each thread ends; the checkpoint comes last."""
    await parts.writer.stop()
    await parts.reader.stop()
    await parts.checkpointer.stop()
