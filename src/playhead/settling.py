"""Settling: what a closed stream produced becomes part of its thread's history, whoever gets to it first (P7).

The producer settles at close; what it did not live to settle, whoever closes the stream does, or the housekeeper, or
whoever next reads the thread. The hook is idempotent by ``stream_id``; the stream's ``settled`` flag only saves calls.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from playhead.errors import StoreError, StreamNotFound
from playhead.log import Settle
from playhead.model import Status, StreamInfo
from playhead.store import Query, Store

SettleHook = Callable[[StreamInfo], Awaitable[None]]
"""Makes what a closed stream produced part of its thread's history. Idempotent by ``stream_id``: called at least
once for every outcome, by the producer at close, else by whoever closes the stream or next asks (P7)."""

SETTLE_MAX_S = 60.0
SETTLE_AT_ONCE = 8

logger = logging.getLogger("playhead")


class Settler:
    """Settles with a hook; without one there is nothing to settle.

    ``spawn`` starts work that must be finished before the store is closed.
    """

    def __init__(
        self,
        store: Store,
        hook: SettleHook | None,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self._store = store
        self._hook = hook
        self._spawn = spawn
        self._slots = asyncio.Semaphore(SETTLE_AT_ONCE)
        self.under_way: dict[str, asyncio.Task[None]] = {}

    @property
    def settles(self) -> bool:
        return self._hook is not None

    def reset(self) -> None:
        """For a new life on a new event loop."""
        self._slots = asyncio.Semaphore(SETTLE_AT_ONCE)

    async def thread(self, thread_id: str) -> None:
        """Settle what earlier streams of a thread left unsettled, oldest first."""
        if self._hook is not None:
            query = Query(status=Status.CLOSED, thread_ids=(thread_id,), settled=False)
            for found in reversed(await self._store.find(query)):
                await self.stream(found, is_fresh=False)  # another caller may settle it while we wait for those before

    async def stream(self, info: StreamInfo, *, is_fresh: bool = True) -> None:
        """Settle one closed stream, as far as it goes now; carried out even if the caller is cancelled."""
        task = self.begin(info, is_fresh=is_fresh)
        if task is not None:
            await asyncio.shield(task)

    def begin(self, info: StreamInfo, *, is_fresh: bool = True) -> "asyncio.Task[None] | None":
        """Settle once at a time per stream; failures are logged and tried again later by the housekeeper.

        A state that is not fresh is asked for again when it is its turn: it may be settled by then.
        """
        if self._hook is None or info.settled:
            return None
        task = self.under_way.get(info.stream_id)
        if task is None:
            task = self.under_way[info.stream_id] = self._spawn(self._once(self._hook, info, is_fresh))
            task.add_done_callback(lambda _: self.under_way.pop(info.stream_id, None))
        return task

    async def _once(self, hook: SettleHook, info: StreamInfo, is_fresh: bool) -> None:
        try:
            async with self._slots, asyncio.timeout(SETTLE_MAX_S):
                if not is_fresh and (info := await self._store.load(info.stream_id)).settled:
                    return
                await hook(info)
            await self._store.apply(info.stream_id, Settle())
        except StreamNotFound:
            logger.info("stream %s: deleted before it was settled", info.stream_id)
        except StoreError as error:
            logger.warning("stream %s: not settled yet; it will be tried again: %s", info.stream_id, error)
        except Exception:
            logger.exception("stream %s: not settled yet; it will be tried again", info.stream_id)
