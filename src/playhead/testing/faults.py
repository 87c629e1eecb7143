"""A store that fails on command, around a real one: for what networks, disks and locks do to a store.

playhead = Playhead(FaultyStore(store))
playhead.store.fail_appends(3)            # the next three appends change nothing and raise StoreUnavailable
playhead.store.lose_append_answers(1)     # the next append is stored, but its caller hears StoreUnavailable
with playhead.store.held():               # appends are stored, their answers come when the block ends
    ...
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from playhead.errors import PlayheadError, StoreUnavailable
from playhead.log import Command
from playhead.model import Batch, Lease, Page, StreamInfo
from playhead.store import Applied, Query, Store, Wake, WakeThread

T = TypeVar("T")
AWAY = StoreUnavailable("the store is away, as the test wants it")


class FaultyStore:
    """See ``playhead.store.Store``; passes everything on, except where it was told to fail.

    Attributes:
        failed: how many appends failed on command.
        lost: how many answers to stored appends were lost on command.
    """

    def __init__(self, store: Store) -> None:
        self.failed = 0
        self.lost = 0
        self.replay_s = store.replay_s
        self._store = store
        self._append_faults: tuple[int, PlayheadError] = (0, AWAY)
        self._lose_appends = 0
        self._fail_applies = 0
        self._lose_applies = 0
        self._away = False
        self._gate: asyncio.Event | None = None
        self._answers: set[asyncio.Task[None]] = set()

    # ---- commands ----------------------------------------------------------------------------------

    def fail_appends(self, count: int, error: PlayheadError = AWAY) -> None:
        """The next appends change nothing and raise this."""
        self._append_faults = (count, error)

    def lose_append_answers(self, count: int) -> None:
        """The next appends are stored, but their callers hear StoreUnavailable."""
        self._lose_appends = count

    def fail_applies(self, count: int) -> None:
        """The next commands change nothing and raise StoreUnavailable."""
        self._fail_applies = count

    def lose_apply_answers(self, count: int) -> None:
        """The next commands are carried out, but their callers hear StoreUnavailable."""
        self._lose_applies = count

    def fail_everything(self, away: bool) -> None:
        """From now on every call raises StoreUnavailable; or none any more."""
        self._away = away

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, appends are not answered."""
        gate = self._gate = asyncio.Event()
        try:
            yield
        finally:
            self._gate = None
            gate.set()

    # ---- the store ---------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self._store.instance_id

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        for answer in self._answers:
            answer.cancel()
        await self._store.close()

    async def apply(self, stream_id: str, command: Command) -> Applied:
        self._check()
        if self._fail_applies:
            self._fail_applies -= 1
            raise AWAY
        applied = await self._store.apply(stream_id, command)
        if self._lose_applies:
            self._lose_applies -= 1
            raise AWAY
        return applied

    def append(self, lease: Lease, batch: Batch) -> "asyncio.Future[None]":
        left, error = self._append_faults
        if self._away or left:
            self.failed += 1
            if not self._away:
                self._append_faults = (left - 1, error)
            failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failure.set_exception(AWAY if self._away else error)
            return failure
        lose = self._lose_appends > 0
        self._lose_appends -= lose
        self.lost += lose
        stored = self._store.append(lease, batch)
        if not lose and self._gate is None:
            return stored
        answer = asyncio.ensure_future(self._answer(stored, self._gate, lose=lose))
        self._answers.add(answer)
        answer.add_done_callback(self._answers.discard)
        return answer

    async def _answer(self, stored: "asyncio.Future[None]", gate: asyncio.Event | None, *, lose: bool) -> None:
        await stored
        if gate is not None:
            await gate.wait()
        if lose:
            raise AWAY

    async def load(self, stream_id: str) -> StreamInfo:
        self._check()
        return await self._store.load(stream_id)

    async def read(self, stream_id: str, after: int) -> Page:
        self._check()
        return await self._store.read(stream_id, after)

    async def find(self, query: Query) -> list[StreamInfo]:
        self._check()
        return await self._store.find(query)

    async def orphans(self, *, proven: bool) -> list[str]:
        self._check()
        return await self._store.orphans(proven=proven)

    async def due(self, limit: int) -> list[str]:
        self._check()
        return await self._store.due(limit)

    async def purge(self, limit: int) -> int:
        self._check()
        return await self._store.purge(limit)

    def now(self) -> float:
        return self._store.now()

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        return self._store.watch(stream_id, wake)

    def watch_thread(self, thread_id: str, wake: WakeThread) -> Callable[[], None]:
        return self._store.watch_thread(thread_id, wake)

    def renew(self) -> None:
        self._check()
        self._store.renew()

    def _check(self) -> None:
        if self._away:
            raise AWAY
