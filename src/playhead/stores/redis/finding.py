"""Which streams there are, which are left behind, and which are old."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from playhead.model import Status, StreamInfo
from playhead.store import Query
from playhead.stores.redis.keys import Keys, decoded, encoded
from playhead.stores.redis.lists import Listing, Lists
from playhead.stores.redis.presence import has_ended
from playhead.stores.redis.router import ASK, WRITE, Router
from playhead.stores.redis.states import States
from playhead.stores.redis.wire import Word

_ORPHANS_MAX = 1_000
_PURGE_LOGS = 256
_LEFT_KEPT_S, _LOST_KEPT_S = 3_600.0, 30 * 86_400.0
"""How long an instance is remembered that is certain to be gone, and one that may only be asleep."""


class Finding:
    """Looks through the lists for one instance, and heals them where they are wrong. See ``playhead.store.Store``."""

    def __init__(
        self, router: Router, keys: Keys, states: States, lists: Lists, clock: Callable[[], float], instance_id: str
    ) -> None:
        self._router, self._keys, self._states, self._lists = router, keys, states, lists
        self._clock, self._instance_id = clock, instance_id

    async def find(self, query: Query) -> list[StreamInfo]:
        keys = self._keys
        if query.limit <= 0:
            return []
        below = "+inf"
        if query.before is not None:
            oldest = await self._router.ask(ASK, keys.streams, "ZSCORE", keys.streams, encoded(query.before))
            if oldest is None:
                return []
            below = f"({int(float(oldest))}"
        found: list[StreamInfo] = []
        async for info in self._listed(query, below):
            if _matches(info, query):
                found.append(info)
                if len(found) == query.limit:
                    break
        return found

    async def _listed(self, query: Query, below: str) -> AsyncIterator[StreamInfo]:
        """Streams out of the shortest lists that hold all that the query may mean, newest first."""
        keys = self._keys
        if query.thread_ids is not None:
            places = [keys.thread(thread_id) for thread_id in dict.fromkeys(query.thread_ids)]
            if query.status is Status.LIVE:
                async for info in self._live_on(dict.fromkeys(query.thread_ids), below):
                    yield info
                return
        elif query.status is Status.LIVE:
            places = [keys.live if query.owner is None else keys.owner_live(query.owner)]
        elif query.status is Status.CLOSED and query.settled is False:
            places = [keys.unsettled]
        else:
            places = [keys.streams if query.owner is None else keys.owner(query.owner)]
        lists = self._lists
        step = min(max(query.limit, 10), 500)
        while places:
            pages = await asyncio.gather(*(lists.newest(place, below, step) for place in places))
            # Below the oldest of a page that was full there may be more; what is above it is complete.
            border = max((page[-1][0] for page in pages if len(page) == step), default=0)
            merged = sorted(
                (number, stream_id, place)
                for page, place in zip(pages, places, strict=True)
                for number, stream_id in page
                if number >= border
            )[::-1]
            for begin in range(0, len(merged), step):  # of many lists only the newest may be wanted
                some = merged[begin : begin + step]
                rows = await self._states.rows([stream_id for _, stream_id, _ in some])
                healed: list[Listing] = []
                found: list[StreamInfo] = []
                for (_, stream_id, place), row in zip(some, rows, strict=True):
                    if row is None:
                        healed += lists.suspect(place, stream_id)
                    else:
                        lists.trust(place, stream_id)
                        found.append(row.info)
                await lists.carry_out(healed)
                for info in found:
                    yield info
            places = [place for place, page in zip(places, pages, strict=True) if len(page) == step or border]
            if not border:
                return
            below = f"({border}"

    async def _live_on(self, thread_ids: Iterable[str], below: str) -> AsyncIterator[StreamInfo]:
        """The live streams of threads: each has one at most, and its claim names it."""
        claims = [self._keys.live_on(thread_id) for thread_id in thread_ids]
        held = await self._router.ask_all(ASK, [(claim, ["HGET", claim, "id"]) for claim in claims])
        rows = [row for row in await self._states.rows([decoded(name) for name in held if name is not None]) if row]
        limit = float("inf") if below == "+inf" else float(below[1:])
        for row in sorted(rows, key=lambda row: row.number, reverse=True):
            if row.number < limit:
                yield row.info

    # ---- the dead and the old --------------------------------------------------------------------------

    async def orphans(self, *, proven: bool) -> list[str]:
        router, keys, now = self._router, self._keys, self._clock()
        found = await router.ask(ASK, keys.instances, "ZRANGE", keys.instances, 0, -1, "WITHSCORES")
        gone: dict[str, float] = {}
        for name, until in zip(found[::2], map(float, found[1::2]), strict=True):
            instance_id = name.decode()
            if instance_id == self._instance_id:
                continue
            if until > 0 and has_ended(instance_id):
                # Without its lease the rules take it for dead at once.
                until = -now
                await router.ask(WRITE, keys.instances, "ZADD", keys.instances, "XX", repr(until), name)
            if until <= now and not (proven and until > 0):
                gone[instance_id] = until
        places = [keys.written_by(instance_id) for instance_id in gone]
        left = await router.ask_all(ASK, [(place, ["SRANDMEMBER", place, _ORPHANS_MAX]) for place in places])
        orphans: list[str] = []
        for (instance_id, until), names in zip(gone.items(), left, strict=True):
            if len(orphans) >= _ORPHANS_MAX:
                break
            streams = await self._left_by(instance_id, [decoded(name) for name in names])
            orphans += streams
            if not streams and now - abs(until) > (_LEFT_KEPT_S if until < 0 else _LOST_KEPT_S):
                await self._forget_instance(instance_id)
        return orphans

    async def _forget_instance(self, instance_id: str) -> None:
        """Once nothing bears its name any more: else its streams would stay live for ever."""
        keys, lists = self._keys, self._lists
        place, mailbox = keys.written_by(instance_id), keys.cancels(instance_id)
        if not await self._router.ask(ASK, place, "EXISTS", place):
            await lists.carry_out([(mailbox, ["UNLINK", mailbox])])
            await lists.carry_out([(keys.instances, ["ZREM", keys.instances, instance_id])])

    async def _left_by(self, instance_id: str, names: list[str]) -> list[str]:
        """Which of the streams that are listed for an instance that is gone it has left live."""
        if not names:
            return []
        place = self._keys.written_by(instance_id)
        left: list[str] = []
        healed: list[Listing] = []
        for name, row in zip(names, await self._states.rows(names), strict=True):
            if row and row.info.is_live and row.info.producer == instance_id:
                left.append(name)
            else:
                healed += self._lists.suspect(place, name)
        await self._lists.carry_out(healed)
        return left

    async def due(self, limit: int) -> list[str]:
        place, now = self._keys.due, self._clock()
        words: list[Word] = ["ZRANGEBYSCORE", place, "-inf", repr(now), "LIMIT", 0, limit]
        ids = [decoded(name) for name in await self._router.ask(ASK, place, *words)]
        due: list[str] = []
        healed: list[Listing] = []
        for stream_id, row in zip(ids, await self._states.rows(ids), strict=True):
            at = row.info.due_at if row else None
            if at is not None and at <= now:
                due.append(stream_id)
            elif at is not None:
                healed.append((place, ["ZADD", place, repr(at), encoded(stream_id)]))
            else:
                healed += self._lists.suspect(place, stream_id)
        await self._lists.carry_out(healed)
        return due

    async def purge(self, limit: int) -> int:
        router, place, freed = self._router, self._keys.garbage, 0
        names = await router.ask(ASK, place, "ZRANGE", place, 0, _PURGE_LOGS - 1)
        lengths = await router.ask_all(ASK, [(name, ["XLEN", name]) for name in names])
        whole: list[bytes] = []
        for name, length in zip(names, lengths, strict=True):
            if freed >= limit:
                break
            if not length:
                await self._lists.carry_out(self._lists.suspect(place, decoded(name)))
            elif length <= limit - freed:
                whole.append(name)
                freed += length
            else:
                freed += await router.ask(WRITE, name, "XTRIM", name, "MAXLEN", length - (limit - freed))
        await router.ask_all(WRITE, [(name, ["UNLINK", name]) for name in whole])
        if whole:
            await router.ask(WRITE, place, "ZREM", place, *whole)
        return freed

    async def is_alive(self, producer: str | None) -> bool:
        if producer is None:
            return False
        place = self._keys.instances
        until = await self._router.ask(ASK, place, "ZSCORE", place, producer)
        return until is not None and float(until) > self._clock()

    async def is_gone(self, instance_id: str) -> bool:
        """Whether it is certain that an instance makes no more streams."""
        place = self._keys.instances
        until = await self._router.ask(ASK, place, "ZSCORE", place, instance_id)
        return until is None or float(until) < 0 or has_ended(instance_id)


def _matches(info: StreamInfo, query: Query) -> bool:
    return (
        (query.status is None or info.status is query.status)
        and (query.thread_ids is None or info.thread_id in query.thread_ids)
        and (query.owner is None or info.owner == query.owner)
        and (query.settled is None or info.settled is query.settled)
    )
