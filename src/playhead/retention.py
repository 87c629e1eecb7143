"""The housekeeper of a process: closes what the dead left behind, expires what is old, cancels what nobody watches.

The only code that deletes for age. One task per Playhead; each step is short and bounded, so appends never wait.

Theory of the sweep (P5, P6). A lease that ran out only permits to close a stream. After connecting, after the wall
clock jumped, and after our own renewals came late (the store was away), every instance needs one full lease to show
that it is alive; until then only deaths that the operating system proves count. A process never sweeps itself.

Nobody watches (P3). Readers elsewhere are known by what their processes store now and then; the store may be away for
them, or they may be held up, at the same time as for us. So silence is counted pass by pass; and after our own renewals
came late, others get the time that they need to show that they are alive, a full lease.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from playhead.errors import (
    AppendGap,
    EventsLost,
    Fenced,
    PlayheadError,
    ProducerActive,
    StoreError,
    StreamClosed,
    StreamNotFound,
)
from playhead.feed import Readers
from playhead.log import Claim, Close, CloseDead, Expire, RequestCancel, Watched
from playhead.model import Outcome, Status, StreamInfo
from playhead.options import Options
from playhead.producer import Producer, failed
from playhead.store import Query, Store

TICK_S = 0.5
_SWEEP_TICKS = 4
_PURGE_ENTRIES = 200
_PURGE_ROUNDS = 20
_DUE_STREAMS = 100
_CLOCK_JUMP_S = 1.0
_WATCHED_EVERY_S = 1.0
_SETTLE_AFTER_S = 5.0

logger = logging.getLogger("playhead")


class Adrift(NamedTuple):
    """How a stream of ours ends that may be live and that nobody here writes.

    Attributes:
        tail: what is known to have been stored, if that is known.
        look_at: not before this monotonic time.
    """

    outcome: Outcome
    tail: int | None = None
    look_at: float = 0.0


class Settling(Protocol):
    """See ``Settler.begin``."""

    def __call__(self, info: StreamInfo, *, is_fresh: bool = True) -> object: ...


class Housekeeper:
    """Runs until cancelled; every failure is logged, and tried again at the next tick."""

    def __init__(
        self,
        store: Store,
        options: Options,
        readers: Readers,
        producers: dict[str, Producer],
        settle: Settling,
        adrift: dict[str, Adrift],
        *,
        settles: bool = True,
        steady_since: Callable[[], float] = lambda: float("-inf"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._options = options
        self._readers = readers
        self._producers = producers
        self._settle = settle
        self._adrift = adrift
        self._settles = settles
        self._steady_since = steady_since
        self._monotonic = monotonic
        self._offset = store.now() - monotonic()
        self._trust_leases_at = monotonic() + options.lease_s
        self._tick_s = min(TICK_S, options.lease_s / 5)
        self._watched: dict[str, float] = {}
        self._silent: dict[str, tuple[float, float]] = {}
        self._looked_at = monotonic()
        self._failing: set[str] = set()

    async def run(self) -> None:
        ticks = 0
        while True:
            await self.tick(sweep=ticks % _SWEEP_TICKS == 0)
            ticks += 1
            await asyncio.sleep(self._tick_s)

    async def tick(self, *, sweep: bool) -> None:
        steps = [self.close_orphans, self.close_adrift, self.cancel_unwatched]
        if sweep:
            steps += [self.expire, self.purge]
            if self._settles:
                steps.append(self.settle_left_over)
        for step in steps:
            try:
                await step()
                self._failing.discard(step.__name__)
            except PlayheadError as error:
                if step.__name__ not in self._failing:  # it will be tried again, many times
                    logger.warning("housekeeping (%s): %s", step.__name__, error)
                self._failing.add(step.__name__)
            except Exception:  # the next tick must come, whatever this one met
                logger.exception("housekeeping (%s)", step.__name__)

    async def close_orphans(self) -> None:
        """Close streams of dead producers ``interrupted``, and settle them."""
        now, offset = self._monotonic(), self._store.now() - self._monotonic()
        if abs(offset - self._offset) > _CLOCK_JUMP_S:
            self._trust_leases_at = now + self._options.lease_s
        self._offset = offset
        trusts = self._trusts_leases()
        for stream_id in await self._store.orphans(proven=not trusts):
            if trusts and not self._trusts_leases():
                return  # we were held up meanwhile, and so may have been those whose leases ran out by now
            try:
                applied = await self._store.apply(stream_id, CloseDead())
            except (ProducerActive, StreamNotFound):
                continue  # back to life, or gone: both are fine
            if applied.changed:
                logger.info("stream %s: its producer is gone; closed interrupted", stream_id)
                self._settle(applied.info)

    def _trusts_leases(self) -> bool:
        """Whether every instance that is alive has had the time to renew its lease."""
        return self._monotonic() >= max(self._trust_leases_at, self._steady_since() + self._options.lease_s)

    async def close_adrift(self) -> None:
        """Close our streams that nobody here writes: the store was away when they were to be closed, or began; or it
        lost their close.

        Others take them for alive, as this process is.
        """
        now = self._monotonic()
        for stream_id, adrift in list(self._adrift.items()):
            if stream_id in self._producers or now < adrift.look_at:
                continue
            try:
                info = await self._store.load(stream_id)
                if info.is_live and info.producer == self._store.instance_id and stream_id not in self._producers:
                    self._settle(await self._close(info, adrift))
            except (Fenced, StreamClosed, StreamNotFound):
                logger.info("stream %s: ended or taken over meanwhile", stream_id)
            if self._adrift.get(stream_id) is adrift:
                del self._adrift[stream_id]

    async def _close(self, info: StreamInfo, adrift: Adrift) -> StreamInfo:
        stream_id, store = info.stream_id, self._store
        try:
            return (await store.apply(stream_id, Close(info.epoch, adrift.outcome, adrift.tail))).info
        except AppendGap as error:
            lost = EventsLost(
                f"the store lost events that it had acknowledged, from event {error.tail + 1} on", first=error.tail + 1
            )
            claimed = await store.apply(stream_id, Claim(store.instance_id, take_over=True))
            return (await store.apply(stream_id, Close(claimed.info.epoch, failed(lost)))).info

    async def settle_left_over(self) -> None:
        """Settle closed streams that their closer could not, or did not live to, settle."""
        for info in await self._store.find(Query(status=Status.CLOSED, settled=False, limit=_DUE_STREAMS)):
            if self._store.now() - (info.closed_at or 0.0) > _SETTLE_AFTER_S:  # else its closer is about to
                self._settle(info, is_fresh=False)  # somebody may settle it between our look and its turn

    async def expire(self) -> None:
        options = self._options
        command = Expire(expired_for_s=options.expired_for_s, settle_within_s=options.settle_within_s)
        for stream_id in await self._store.due(_DUE_STREAMS):
            try:
                applied = await self._store.apply(stream_id, command)
            except StreamNotFound:
                continue
            if applied.changed and applied.info.status is Status.CLOSED:
                self._settle(applied.info)

    async def purge(self) -> None:
        """Free space, a little at a time, letting appends in between."""
        for _ in range(_PURGE_ROUNDS):  # bounded: the next look for dead producers must not wait for it
            if await self._store.purge(_PURGE_ENTRIES) < _PURGE_ENTRIES:
                break
            await asyncio.sleep(0.01)

    async def cancel_unwatched(self) -> None:
        """Tell others that we watch, and cancel our streams that nobody watched for too long (P3)."""
        now = self._monotonic()
        steady_s = now - self._steady_since()
        for stream_id, feed in list(self._readers.feeds.items()):
            info = feed.info
            if info and info.is_live and info.unwatched_after_s is not None:
                told_at = self._watched.get(stream_id, float("-inf"))
                if now - told_at >= _tells_every_s(info.unwatched_after_s) and await self._stored(stream_id, Watched()):
                    self._watched[stream_id] = now
        self._watched = {key: told_at for key, told_at in self._watched.items() if key in self._readers.feeds}
        silent: dict[str, tuple[float, float]] = {}
        for stream_id, producer in list(self._producers.items()):
            after_s = producer.unwatched_after_s
            if after_s is None or stream_id in self._readers.feeds:
                continue
            try:
                info = await self._store.load(stream_id)
            except StreamNotFound:
                continue
            seen_at = info.created_at if info.watched_at is None else info.watched_at
            # A pass that comes late, or after some that failed, counts for half of the time at most: others may have
            # been as late, and are heard of before the next ones. Each counts, so who is always late still cancels.
            known_at, silent_s = self._silent.get(stream_id, (None, 0.0))
            counts_s = min(now - self._looked_at, max(after_s / 2, self._tick_s))
            silent_s = silent_s + counts_s if known_at == seen_at else 0.0
            silent[stream_id] = seen_at, silent_s
            is_steady = steady_s >= min(after_s, self._options.lease_s)
            if info.watched_at is not None:  # that reader may have stayed until it would have been told of again
                after_s += _tells_every_s(after_s) + self._tick_s
            if info.is_live and is_steady and min(self._store.now() - seen_at, silent_s) >= after_s:
                await self._stored(stream_id, RequestCancel(reason="unwatched"))
        self._silent, self._looked_at = silent, now

    async def _stored(self, stream_id: str, command: Watched | RequestCancel) -> bool:
        try:
            await self._store.apply(stream_id, command)
        except StoreError:
            raise
        except PlayheadError as error:
            logger.info("stream %s: %s", stream_id, error)
            return False
        return True


def _tells_every_s(unwatched_after_s: float) -> float:
    """How often a process tells others that it watches such a stream; the next tick after that is when it does."""
    return min(_WATCHED_EVERY_S, unwatched_after_s / 3)
