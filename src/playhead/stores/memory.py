"""Streams in this process's memory: for tests, notebooks and apps that may lose them.

It keeps packed entries, as the durable stores do, so that nothing works here that would fail there. Several
MemoryStore objects may share one MemoryData: they behave like processes on one database.
"""

import asyncio
import json
import time
import uuid
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from playhead.entry import pack, unpack
from playhead.errors import PlayheadError, StoreUnavailable, StreamNotFound
from playhead.log import Command, Create, Facts, Head, check_readable, decide, decide_append
from playhead.model import Batch, Lease, Page, Status, StreamInfo
from playhead.store import PAGE_MAX_BYTES, Applied, Query, StoreOptions, Wake, WakeThread
from playhead.watchers import Watchers


@dataclass
class _Entries:
    """The entries of one stream: parallel lists, keyed by their last offset."""

    lasts: list[int] = field(default_factory=list)
    rows: list[tuple[int, bytes]] = field(default_factory=list)


@dataclass
class MemoryData:
    """What outlives a MemoryStore: the states in order of creation, the entries, the leases, the watchers.

    ``live``, ``keys``, ``threads`` (its live stream) and ``owners`` (their live streams) are indexes of ``states``.
    """

    states: dict[str, StreamInfo] = field(default_factory=dict)
    entries: defaultdict[str, _Entries] = field(default_factory=lambda: defaultdict(_Entries))
    garbage: deque[_Entries] = field(default_factory=deque)
    live: dict[str, StreamInfo] = field(default_factory=dict)
    keys: dict[tuple[str | None, str], str] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    owners: Counter[str | None] = field(default_factory=Counter)
    leases: dict[str, float] = field(default_factory=dict)
    watchers: Watchers[Batch | None, StreamInfo | None] = field(default_factory=Watchers)
    thread_watchers: Watchers[[]] = field(default_factory=Watchers)


class MemoryStore:
    """See ``playhead.store.Store``. Durable: as long as its MemoryData."""

    def __init__(
        self,
        data: MemoryData | None = None,
        *,
        options: StoreOptions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.instance_id = ""
        self.replay_s = 0.0
        self._is_open = False
        self._shared = data or MemoryData()
        self._options = options or StoreOptions()
        self.now = clock

    @property
    def _data(self) -> MemoryData:
        if not self._is_open:
            raise StoreUnavailable("the store is not open")
        return self._shared

    async def open(self) -> None:
        self.instance_id = uuid.uuid4().hex
        self._is_open = True
        self.renew()

    async def close(self) -> None:
        self._is_open = False
        self._shared.leases.pop(self.instance_id, None)

    def renew(self) -> None:
        self._data.leases[self.instance_id] = self.now() + self._options.lease_s

    async def apply(self, stream_id: str, command: Command) -> Applied:
        state = self._data.states.get(stream_id)
        if isinstance(command, Create):
            # Through JSON, as on its way to a disk: a copy of its own, and nothing that JSON cannot carry.
            command = replace(command, metadata=json.loads(json.dumps(dict(command.metadata))))
            key = command.idempotency_key
            known = None if key is None else self._data.keys.get((command.owner, key))
            state = state if known is None else self._data.states[known]
        new = decide(stream_id, state, command, self._facts(state, command))
        if new is state:
            assert state is not None
            return Applied(state, changed=False)
        self._put(stream_id, state, new)
        self._data.watchers.tell(stream_id, None, new)
        if state is None and new is not None and new.thread_id is not None:
            self._data.thread_watchers.tell(new.thread_id)
        return Applied(new or state, changed=True)  # type: ignore[arg-type]

    def append(self, lease: Lease, batch: Batch) -> "asyncio.Future[None]":
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            state = self._data.states.get(lease.stream_id)
            head = Head(state.is_live, state.epoch, state.tail, state.size_bytes) if state else None
            new = decide_append(
                lease.stream_id,
                head,
                epoch=lease.epoch,
                first=batch.first,
                last=batch.last,
                size_bytes=batch.size_bytes,
                stream_max_bytes=self._options.stream_max_bytes,
            )
        except PlayheadError as error:
            done.set_exception(error)
            return done
        assert state is not None
        entry = pack(batch)
        entries = self._data.entries[lease.stream_id]
        entries.lasts.append(batch.last)
        entries.rows.append((batch.epoch, entry))
        self._put(lease.stream_id, state, state.but(tail=new.tail, size_bytes=new.size_bytes))
        self._data.watchers.tell(lease.stream_id, batch, None)
        done.set_result(None)
        return done

    async def load(self, stream_id: str) -> StreamInfo:
        try:
            return self._data.states[stream_id]
        except KeyError:
            raise StreamNotFound("there is no such stream", stream_id=stream_id) from None

    async def read(self, stream_id: str, after: int) -> Page:
        info = await self.load(stream_id)
        check_readable(info)
        entries = self._data.entries[stream_id] if info.tail else _Entries()
        batches: list[Batch] = []
        size_bytes = 0
        for index in range(bisect_right(entries.lasts, after), len(entries.lasts)):
            epoch, entry = entries.rows[index]
            if batches and size_bytes + len(entry) > PAGE_MAX_BYTES:
                break
            batches.append(unpack(entries.lasts[index], epoch, entry))
            size_bytes += len(entry)
        return Page(batches, info)

    async def find(self, query: Query) -> list[StreamInfo]:
        found: list[StreamInfo] = []
        older = query.before is None
        for info in reversed(self._data.states.values()):
            if len(found) >= query.limit:
                break
            if older and _matches(info, query):
                found.append(info)
            older = older or info.stream_id == query.before
        return found

    async def orphans(self, *, proven: bool) -> list[str]:
        def gone(producer: str | None) -> bool:
            if producer is None or producer == self.instance_id:
                return False
            return producer not in self._data.leases if proven else not self._alive(producer)

        return [info.stream_id for info in self._data.live.values() if gone(info.producer)][:1000]

    async def due(self, limit: int) -> list[str]:
        late = [s for s in self._data.states.values() if s.due_at is not None and s.due_at <= self.now()]
        return [info.stream_id for info in sorted(late, key=lambda info: info.due_at or 0.0)[:limit]]

    async def purge(self, limit: int) -> int:
        freed = 0
        while self._data.garbage and freed < limit:
            rows = self._data.garbage[0].rows
            cut = min(len(rows), limit - freed)
            del rows[:cut]
            freed += cut
            if not rows:
                self._data.garbage.popleft()
        return freed

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        return self._shared.watchers.add(stream_id, wake)

    def watch_thread(self, thread_id: str, wake: WakeThread) -> Callable[[], None]:
        return self._shared.thread_watchers.add(thread_id, wake)

    def _alive(self, producer: str | None) -> bool:
        return producer is not None and self._data.leases.get(producer, 0.0) > self.now()

    def _put(self, stream_id: str, old: StreamInfo | None, new: StreamInfo | None) -> None:
        data = self._data
        if old and old.is_live and not (new and new.is_live):
            del data.live[stream_id]
            data.owners[old.owner] -= 1
            if old.thread_id is not None:
                del data.threads[old.thread_id]
        if new is None or new.status is Status.EXPIRED:
            data.garbage.append(data.entries.pop(stream_id, _Entries()))
        if new is None:
            del data.states[stream_id]
            if old and old.idempotency_key is not None:
                del data.keys[old.owner, old.idempotency_key]
            return
        data.states[stream_id] = new
        if old is None:
            data.owners[new.owner] += 1
            if new.thread_id is not None:
                data.threads[new.thread_id] = stream_id
            if new.idempotency_key is not None:
                data.keys[new.owner, new.idempotency_key] = stream_id
        if new.is_live:
            data.live[stream_id] = new

    def _facts(self, state: StreamInfo | None, command: Command) -> Facts:
        alive = state is not None and self._alive(state.producer)
        if not isinstance(command, Create):
            return Facts(self.now(), producer_alive=alive)
        on_thread = None if command.thread_id is None else self._data.threads.get(command.thread_id)
        return Facts(self.now(), alive, on_thread, self._data.owners[command.owner])


def _matches(info: StreamInfo, query: Query) -> bool:
    return (
        (query.status is None or info.status is query.status)
        and (query.thread_ids is None or info.thread_id in query.thread_ids)
        and (query.owner is None or info.owner == query.owner)
        and (query.settled is None or info.settled is query.settled)
    )
