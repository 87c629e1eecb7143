"""The store as the engines see it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from playhead.entry import pack, unpack
from playhead.errors import (
    AppendGap,
    AppendRepeat,
    Fenced,
    PlayheadError,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StreamClosed,
    StreamNotFound,
    StreamTooLarge,
)
from playhead.log import Claim as ClaimCommand
from playhead.log import CloseDead, Command, Create, Facts, RequestCancel, check_readable, decide
from playhead.model import Batch, Lease, Page, Status, StreamInfo
from playhead.state import pack_state, unpack_state
from playhead.store import PAGE_MAX_BYTES, Applied, Query, StoreOptions, Wake
from playhead.stores.redis.address import Address
from playhead.stores.redis.check import check_server
from playhead.stores.redis.claims import Claim, Claims
from playhead.stores.redis.keys import EVENTS, Keys, decoded, encoded
from playhead.stores.redis.listener import Listener
from playhead.stores.redis.lists import Listing, Lists
from playhead.stores.redis.presence import Clock, Presence, has_ended, look_at_clock
from playhead.stores.redis.router import ASK, WRITE, Call, Router, again
from playhead.stores.redis.scripts import APPEND, COMMIT, READ
from playhead.stores.redis.wire import Word
from playhead.watchers import Watchers

HINT_MAX_BYTES = 32 * 1024
LOOK_EVERY_S = 1.0
REPLAY_S = 15.0
"""Longer than what a failover or a restart may lose: see docs/operations.md."""

BUSY_S, HOLD_S = 0.002, 0.005
"""When an answer took longer than the one, the next append of its stream waits for the other."""

_LOOK_STREAMS = 256
_ORPHANS_MAX = 1_000
_PURGE_LOGS = 16
_LEFT_KEPT_S, _LOST_KEPT_S = 3_600.0, 30 * 86_400.0
"""How long an instance is remembered that is certain to be gone, and one that may only be asleep."""

_NEEDS_LEASE = (ClaimCommand, CloseDead, RequestCancel)


class _Row(NamedTuple):
    """A stream as it is stored."""

    version: bytes
    number: int
    info: StreamInfo


class _Parts(NamedTuple):
    """What lives from open to close."""

    router: Router
    presence: Presence
    listener: Listener
    claims: Claims
    lists: Lists
    looking: "asyncio.Task[None]"


class RedisStore:
    """See ``playhead.store.Store``.

    Durable: what is acknowledged is in Redis's memory, and in as many replicas as ``replicas=`` asks for. What
    survives the end of Redis is Redis's setting (``appendonly``, ``appendfsync``): see docs/operations.md.

    Args:
        url: see ``playhead.stores.redis.address``.
        options: see StoreOptions.
        clock: seconds since the Unix epoch; None = Redis's own, which all instances share.
    """

    def __init__(
        self, url: str, *, options: StoreOptions | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self.instance_id = ""
        self.replay_s = REPLAY_S
        self.now = clock or Clock()
        self._address = Address.parse(url)
        self._keys = Keys(self._address.prefix)
        self._options = options or StoreOptions()
        self._parts: _Parts | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watchers = Watchers()
        self._channels: dict[bytes, str] = {}
        self._ours: dict[str, bytes] = {}  # the version of each stream that is produced here
        self._replicas = self._address.replicas
        self._appends_left = 0
        self._last_answer: asyncio.Future[None] | None = None
        self._held: list[tuple[asyncio.Future[None], Exception | None]] = []

    async def open(self) -> None:
        router = Router(self._address)
        loop = asyncio.get_running_loop()
        presence = None
        try:
            await router.learn()
            await check_server(router, self._keys)
            await look_at_clock(router, self._keys, self.now)
            presence = Presence(
                self._address,
                self._keys,
                self._options.lease_s,
                self.now,
                lambda ids: loop.call_soon_threadsafe(self._look_again, ids),
            )
            await asyncio.to_thread(presence.begin)
        except BaseException:
            await router.close()
            if presence is not None:
                await asyncio.to_thread(presence.end)
            raise
        self.instance_id = presence.instance_id
        listener = Listener(lambda: router.open_wire(None, "playhead-listen"), self._heard, self._confirmed)
        claims = Claims(router, self.instance_id, self._load_or_none, self._is_gone)
        looking = asyncio.create_task(self._look(), name="playhead redis look")
        self._parts = _Parts(router, presence, listener, claims, Lists(router, self._keys), looking)
        self._closing = None
        self._last_answer = None
        self._ours.clear()
        for stream_id in self._watchers:
            self._listen(stream_id)

    async def close(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            self._closing = asyncio.get_running_loop().create_task(self._stopped(parts))
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _stopped(self, parts: _Parts) -> None:
        """What was handed over is answered, then the goodbye is said."""
        if self._appends_left:  # bounded: who waits too long is told that the connection is lost
            self._last_answer = asyncio.get_running_loop().create_future()
            await self._last_answer
        self._let_go()
        parts.looking.cancel()
        await asyncio.wait([parts.looking])
        await parts.listener.close()
        await asyncio.to_thread(parts.presence.end)
        await parts.router.close()
        self._channels.clear()

    def renew(self) -> None:
        self._opened().presence.renew()

    def _opened(self) -> _Parts:
        if self._parts is None:
            raise StoreUnavailable("the store is not open")
        return self._parts

    # ---- appends ---------------------------------------------------------------------------------------

    def append(self, lease: Lease, batch: Batch) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        entry = pack(batch)
        parts = self._parts
        if parts is None:
            done.set_exception(StoreUnavailable("the store is not open"))
            return done
        stream_id, epoch = lease
        keys = self._keys.stream(stream_id)
        words: list[Word] = [
            *("EVALSHA", APPEND.sha, 2, keys.state, keys.log),
            *(epoch, batch.first, batch.last, batch.size_bytes, self._options.stream_max_bytes),
            *(entry, keys.events, 1 if len(entry) <= HINT_MAX_BYTES else 0),
        ]
        self._appends_left += 1
        answered = _Append(self, stream_id, batch, done, loop.time()).answered
        Call(parts.router, WRITE, keys.state, words, answer=answered, script=APPEND.source, acks=self._replicas).send()
        return done

    def _answered(self, append: "_Append", version: bytes | None, error: Exception | None) -> None:
        stream_id = append.stream_id
        if version is not None:
            self._watchers.tell(stream_id, append.batch, None)
            known = self._ours.get(stream_id)
            if known is not None and known != version:
                # Something happened to the state that we were not told of.
                self._ours[stream_id] = version
                self._watchers.tell(stream_id, None, None)
        loop = asyncio.get_running_loop()
        if self._held or loop.time() - append.handed_over_at > BUSY_S:
            # More is asked of this process than it can do: let batches grow. Its readers have been told already.
            if not self._held:
                loop.call_later(HOLD_S, self._let_go)
            self._held.append((append.done, error))
        else:
            _resolve(append.done, error)
        self._appends_left -= 1
        if self._last_answer is not None and not self._appends_left:
            self._last_answer.set_result(None)

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for done, error in held:
            _resolve(done, error)

    # ---- commands --------------------------------------------------------------------------------------

    async def apply(self, stream_id: str, command: Command) -> Applied:
        self._opened()
        if isinstance(command, Create):
            return await self._create(stream_id, command)
        while True:
            row = await self._row(stream_id)
            state = row.info if row else None
            alive = isinstance(command, _NEEDS_LEASE) and state is not None and await self._is_alive(state.producer)
            new = decide(stream_id, state, command, Facts(self.now(), producer_alive=alive))
            assert row is not None  # the rules have refused the unknown
            if new is row.info:
                return Applied(row.info, changed=False)
            committed = await self._commit(row, new)
            if committed is not None:
                return Applied(committed, changed=True)

    async def _commit(self, row: _Row, new: StreamInfo | None) -> StreamInfo | None:
        """What was committed (the last state of a stream that was forgotten); None when the state was another one."""
        parts, old = self._opened(), row.info
        keys = self._keys.stream(old.stream_id)
        loses_log = new is None or (new.status is Status.EXPIRED and old.status is not Status.EXPIRED)
        names = [keys.state]
        before = parts.lists.before(old, new, row.number)
        if loses_log:
            gone = f"{keys.gone}{row.number}".encode()
            names += [keys.log, gone]
            before.append((self._keys.garbage, ["ZADD", self._keys.garbage, repr(self.now()), gone]))
        await parts.lists.carry_out(before)
        version = str(int(row.version) + 1).encode()
        info = pack_state(new) if new else ""
        fields = _fields(version, new, info) if new else ()
        reply = await COMMIT.ask(parts.router, WRITE, names, row.version, keys.news, info, *fields, acks=self._replicas)
        if reply is None:
            return None
        counts = {"tail": int(reply[0]), "size_bytes": int(reply[1])}
        committed = new.but(**counts) if new else None
        self._know(old.stream_id, committed, version)
        self._watchers.tell(old.stream_id, None, committed)
        with suppress(StoreUnavailable):  # it is committed; what is left undone here is healed
            after = parts.lists.after(old, new)
            if new is not None and new.cancel and not old.cancel and new.producer is not None:
                mailbox = self._keys.cancels(new.producer)
                after.append((mailbox, ["SADD", mailbox, encoded(new.stream_id)]))
            await parts.lists.carry_out(after)
            if new is None:
                await self._forget_claims(old)
        return committed or old.but(**counts)

    async def _forget_claims(self, info: StreamInfo) -> None:
        claims = self._opened().claims
        if info.idempotency_key is not None:
            await claims.forget(self._keys.request(info.owner, info.idempotency_key), info.stream_id)
        if info.thread_id is not None:
            await claims.forget(self._keys.live_on(info.thread_id), info.stream_id)

    # ---- creating --------------------------------------------------------------------------------------

    async def _create(self, stream_id: str, command: Create) -> Applied:
        claims = self._opened().claims
        key, thread_id = command.idempotency_key, command.thread_id
        taken: list[Claim] = []
        pack_state(StreamInfo(stream_id, metadata=command.metadata))  # refused before anything is done
        try:
            if key is not None:
                of_key = self._keys.request(command.owner, key)
                request = await claims.take(
                    of_key, stream_id, lambda info: (info.owner, info.idempotency_key) == (command.owner, key)
                )
                if isinstance(request, StreamInfo):
                    return self._existing(request, command)
                taken.append(request)
            row = await self._row(stream_id)
            if row is not None:
                return self._existing(row.info, command)
            if thread_id is not None:
                of_thread = self._keys.live_on(thread_id)
                thread = await claims.take(
                    of_thread, stream_id, lambda info: info.is_live and info.thread_id == thread_id
                )
                if isinstance(thread, StreamInfo):
                    decide(stream_id, None, command, Facts(self.now(), live_on_thread=thread.stream_id))
                    raise StoreCorrupt("the rules let two streams be live on one thread")
                taken.append(thread)
            info = await self._make(stream_id, command, taken)
            if info is not None:
                return Applied(info, changed=True)
        finally:
            for claim in taken:
                await claims.give_back(claim)
        return await self._create(stream_id, command)  # somebody was faster: it is there now

    def _existing(self, info: StreamInfo, command: Create) -> Applied:
        same = decide(info.stream_id, info, command, Facts(self.now()))
        assert same is info
        return Applied(info, changed=False)

    async def _make(self, stream_id: str, command: Create, taken: list[Claim]) -> StreamInfo | None:
        """The new stream, once everything that must be unique is claimed; None when there is one of that id."""
        parts, keys = self._opened(), self._keys
        number = await parts.router.ask(WRITE, keys.count, "INCR", keys.count)
        command = replace(command, metadata=unpack_state(pack_state(_carrier(command)), 0, 0).metadata)
        now, older = self.now(), 0
        place, name = keys.owner_live(command.owner), encoded(stream_id)
        if command.live_per_owner_max is not None:
            # Listed first, then counted: of those who race, the one with the lowest numbers win.
            await parts.lists.carry_out([(place, ["ZADD", place, number, name])])
            older = await self._live_before(place, number, command.live_per_owner_max)
        try:
            new = decide(stream_id, None, command, Facts(now, live_of_owner=older))
        except PlayheadError:
            await parts.lists.carry_out([(place, ["ZREM", place, name])])
            raise
        assert new is not None
        await parts.lists.carry_out(parts.lists.before(None, new, number))
        stream, info = keys.stream(stream_id), pack_state(new)
        fields = [*_fields(b"1", new, info), "tail", 0, "size", 0, "no", number]
        # From here on the claims may be the stream's: who does not hear the answer must not give them back.
        held, taken[:] = list(taken), []
        reply = await COMMIT.ask(
            parts.router, WRITE, [stream.state], "", stream.news, info, *fields, acks=self._replicas
        )
        if reply is None:
            taken += held
            return None
        for claim in held:
            if not await parts.claims.check(claim):
                await self._commit(_Row(b"1", number, new), None)
                raise StoreUnavailable("Redis was too slow to make this stream; start it again")
        self._know(stream_id, new, b"1")
        self._watchers.tell(stream_id, None, new)
        return new

    async def _live_before(self, place: bytes, number: int, limit: int) -> int:
        """How many live streams of an owner are older than ``number``; those that only seem to be are struck off."""
        lists = self._opened().lists
        found = await lists.newest(place, f"({number}", limit + 100)
        if len(found) < limit:
            return len(found)
        rows = await self._rows([stream_id for _, stream_id in found])
        # One that is not there yet is about to be made, unless its maker died: then it is struck off in a while.
        count = 0
        healed: list[Listing] = []
        for (_, stream_id), row in zip(found, rows, strict=True):
            if row is None or not row.info.is_live:
                healed += lists.suspect(place, stream_id)
            count += row is None or row.info.is_live
        await lists.carry_out(healed)
        return count

    # ---- reading ---------------------------------------------------------------------------------------

    async def load(self, stream_id: str) -> StreamInfo:
        row = await self._row(stream_id)
        if row is None:
            raise _unknown(stream_id)
        return row.info

    async def read(self, stream_id: str, after: int) -> Page:
        keys = self._keys.stream(stream_id)
        found = await READ.ask(self._opened().router, ASK, [keys.state, keys.log], max(after, 0), PAGE_MAX_BYTES)
        if found is None:
            raise _unknown(stream_id)
        _, tail, size_bytes, state, page = found
        info = unpack_state(state, int(tail), int(size_bytes))
        check_readable(info)
        batches = [
            unpack(int(last), int(epoch), entry)
            for last, epoch, entry in zip(page[::3], page[1::3], page[2::3], strict=True)
        ]
        return Page(batches, info)

    async def _row(self, stream_id: str) -> _Row | None:
        return (await self._rows([stream_id]))[0]

    async def _load_or_none(self, stream_id: str) -> StreamInfo | None:
        row = await self._row(stream_id)
        return row.info if row else None

    async def _rows(self, stream_ids: Sequence[str]) -> list[_Row | None]:
        router, keys = self._opened().router, [self._keys.stream(stream_id).state for stream_id in stream_ids]
        asked = [(key, ["HMGET", key, "v", "no", "info", "tail", "size"]) for key in keys]
        return [
            None if version is None else _Row(version, int(number), unpack_state(state, int(tail), int(size_bytes)))
            for version, number, state, tail, size_bytes in await router.ask_all(ASK, asked)  # type: ignore[arg-type]
        ]

    async def find(self, query: Query) -> list[StreamInfo]:
        parts, keys = self._opened(), self._keys
        if query.limit <= 0:
            return []
        below = "+inf"
        if query.before is not None:
            oldest = await parts.router.ask(ASK, keys.streams, "ZSCORE", keys.streams, encoded(query.before))
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
        lists = self._opened().lists
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
            rows = await self._rows([stream_id for _, stream_id, _ in merged])
            healed: list[Listing] = []
            for (_, stream_id, place), row in zip(merged, rows, strict=True):
                if row is None:
                    healed += lists.suspect(place, stream_id)
                else:
                    lists.trust(place, stream_id)
                    yield row.info
            await lists.carry_out(healed)
            places = [place for place, page in zip(places, pages, strict=True) if len(page) == step or border]
            if not border:
                return
            below = f"({border}"

    async def _live_on(self, thread_ids: Iterable[str], below: str) -> AsyncIterator[StreamInfo]:
        """The live streams of threads: each has one at most, and its claim names it."""
        claims = [self._keys.live_on(thread_id) for thread_id in thread_ids]
        held = await self._opened().router.ask_all(ASK, [(claim, ["HGET", claim, "id"]) for claim in claims])
        rows = [row for row in await self._rows([decoded(name) for name in held if name is not None]) if row]
        limit = float("inf") if below == "+inf" else float(below[1:])
        for row in sorted(rows, key=lambda row: row.number, reverse=True):
            if row.number < limit:
                yield row.info

    # ---- the dead and the old --------------------------------------------------------------------------

    async def orphans(self, *, proven: bool) -> list[str]:
        router, keys, now = self._opened().router, self._keys, self.now()
        found = await router.ask(ASK, keys.instances, "ZRANGE", keys.instances, 0, -1, "WITHSCORES")
        orphans: list[str] = []
        for name, until in zip(found[::2], map(float, found[1::2]), strict=True):
            instance_id = name.decode()
            if instance_id == self.instance_id:
                continue
            if until > 0 and has_ended(instance_id):
                # Without its lease the rules take it for dead at once.
                until = -now
                await router.ask(WRITE, keys.instances, "ZADD", keys.instances, "XX", repr(until), name)
            if until > now or (proven and until > 0):
                continue
            if len(orphans) >= _ORPHANS_MAX:
                break
            left = await self._left_by(instance_id, _ORPHANS_MAX - len(orphans))
            orphans += left
            kept_s = _LEFT_KEPT_S if until < 0 else _LOST_KEPT_S
            if not left and now - abs(until) > kept_s:
                await self._forget_instance(instance_id)
        return orphans

    async def _forget_instance(self, instance_id: str) -> None:
        """Once nothing bears its name any more: else its streams would stay live for ever."""
        keys, lists = self._keys, self._opened().lists
        place, mailbox = keys.written_by(instance_id), keys.cancels(instance_id)
        if not await self._opened().router.ask(ASK, place, "EXISTS", place):
            await lists.carry_out([(mailbox, ["UNLINK", mailbox])])
            await lists.carry_out([(keys.instances, ["ZREM", keys.instances, instance_id])])

    async def _left_by(self, instance_id: str, limit: int) -> list[str]:
        """Live streams of an instance that is gone."""
        parts, place = self._opened(), self._keys.written_by(instance_id)
        names = await parts.router.ask(ASK, place, "SRANDMEMBER", place, limit)
        rows = await self._rows([decoded(name) for name in names])
        left: list[str] = []
        healed: list[Listing] = []
        for name, row in zip(names, rows, strict=True):
            if row and row.info.is_live and row.info.producer == instance_id:
                left.append(row.info.stream_id)
            else:
                healed += parts.lists.suspect(place, decoded(name))
        await parts.lists.carry_out(healed)
        return left

    async def due(self, limit: int) -> list[str]:
        parts, place, now = self._opened(), self._keys.due, self.now()
        words: list[Word] = ["ZRANGEBYSCORE", place, "-inf", repr(now), "LIMIT", 0, limit]
        ids = [decoded(name) for name in await parts.router.ask(ASK, place, *words)]
        due: list[str] = []
        healed: list[Listing] = []
        for stream_id, row in zip(ids, await self._rows(ids), strict=True):
            at = row.info.due_at if row else None
            if at is not None and at <= now:
                due.append(stream_id)
            elif at is not None:
                healed.append((place, ["ZADD", place, repr(at), encoded(stream_id)]))
            else:
                healed += parts.lists.suspect(place, stream_id)
        await parts.lists.carry_out(healed)
        return due

    async def purge(self, limit: int) -> int:
        router, place, freed = self._opened().router, self._keys.garbage, 0
        for name in await router.ask(ASK, place, "ZRANGE", place, 0, _PURGE_LOGS - 1):
            if freed >= limit:
                break
            length = await router.ask(WRITE, name, "XLEN", name)
            if not length:
                await self._opened().lists.carry_out(self._opened().lists.suspect(place, decoded(name)))
            elif length <= limit - freed:
                await router.ask(WRITE, name, "UNLINK", name)
                await router.ask(WRITE, place, "ZREM", place, name)
                freed += length
            else:
                freed += await router.ask(WRITE, name, "XTRIM", name, "MAXLEN", length - (limit - freed))
        return freed

    async def _is_alive(self, producer: str | None) -> bool:
        if producer is None:
            return False
        place = self._keys.instances
        until = await self._opened().router.ask(ASK, place, "ZSCORE", place, producer)
        return until is not None and float(until) > self.now()

    async def _is_gone(self, instance_id: str) -> bool:
        """Whether it is certain that an instance makes no more streams."""
        place = self._keys.instances
        until = await self._opened().router.ask(ASK, place, "ZSCORE", place, instance_id)
        return until is None or float(until) < 0 or has_ended(instance_id)

    # ---- watching --------------------------------------------------------------------------------------

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        is_new = stream_id not in self._watchers
        undo = self._watchers.add(stream_id, wake, gone=lambda: self._unlisten(stream_id))
        if is_new:
            self._listen(stream_id)
        return undo

    def _listen(self, stream_id: str) -> None:
        """Hear of the state; and of the events, unless they are written here: then there is no need to be told."""
        if self._parts is not None:
            keys = self._keys.stream(stream_id)
            for channel in (keys.news,) if stream_id in self._ours else (keys.news, keys.events):
                self._channels[channel] = stream_id
                self._parts.listener.add(channel)

    def _unlisten(self, stream_id: str) -> None:
        keys = self._keys.stream(stream_id)
        for channel in (keys.news, keys.events):
            if self._channels.pop(channel, None) is not None and self._parts is not None:
                self._parts.listener.discard(channel)

    def _know(self, stream_id: str, info: StreamInfo | None, version: bytes) -> None:
        """Keep in mind which streams are written here."""
        if info is not None and info.is_live and info.producer == self.instance_id:
            self._ours[stream_id] = version
        elif self._ours.pop(stream_id, None) and info and info.is_live and stream_id in self._watchers:
            self._listen(stream_id)

    def _confirmed(self, channel: bytes) -> None:
        stream_id = self._channels.get(channel)
        if stream_id is not None:
            self._watchers.tell(stream_id, None, None)

    def _heard(self, channel: bytes, hint: bytes) -> None:
        stream_id = self._channels.get(channel)
        if stream_id is None:
            return
        batch, info = None, None
        try:
            first, second, rest = hint.split(b" ", 2)
            if channel.endswith(EVENTS):
                batch = unpack(int(second), int(first), rest)
            else:
                info = unpack_state(rest, int(first), int(second))
                if info.producer != self.instance_id:
                    self._know(stream_id, info, b"")
        except (ValueError, PlayheadError):
            pass  # no hint that we understand: whoever is told of it without one looks for himself
        self._watchers.tell(stream_id, batch, info)

    def _look_again(self, stream_ids: Iterable[str]) -> None:
        for stream_id in stream_ids:
            self._watchers.tell(stream_id, None, None)

    async def _look(self) -> None:
        """Now and then, a bounded number of watched streams a time: has something changed that nobody told us?"""
        seen: dict[str, tuple[Any, ...]] = {}
        waiting: list[str] = []
        while True:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.8, 1.2))
            if not waiting:
                waiting = list(self._watchers)
                seen = {stream_id: seen[stream_id] for stream_id in waiting if stream_id in seen}
            some, waiting = waiting[:_LOOK_STREAMS], waiting[_LOOK_STREAMS:]
            with suppress(StoreError):
                router, keys = self._opened().router, [self._keys.stream(stream_id).state for stream_id in some]
                found = await router.ask_all(ASK, [(key, ["HMGET", key, "v", "tail"]) for key in keys])
                for stream_id, (version, tail) in zip(some, found, strict=True):
                    # What is written here we know; of others' writing the tail is news too.
                    mark = (version,) if stream_id in self._ours else (version, tail)
                    if seen.get(stream_id, mark) != mark:
                        self._watchers.tell(stream_id, None, None)
                    seen[stream_id] = mark


class _Append:
    """One append on its way. Slots and no closure: there are many."""

    __slots__ = ("batch", "done", "handed_over_at", "store", "stream_id")

    def __init__(
        self, store: RedisStore, stream_id: str, batch: Batch, done: "asyncio.Future[None]", handed_over_at: float
    ) -> None:
        self.store, self.stream_id, self.batch, self.done = store, stream_id, batch, done
        self.handed_over_at = handed_over_at

    def answered(self, reply: Any) -> None:
        if isinstance(reply, bytes):
            self.store._answered(self, reply, None)
        else:
            self.store._answered(self, None, self._refused(reply))

    def _refused(self, reply: Any) -> Exception:
        if isinstance(reply, PlayheadError):
            return again(reply)
        stream_id, batch = self.stream_id, self.batch
        what, tail = reply[0].decode(), reply[1]
        match what:
            case "unknown":
                return _unknown(stream_id)
            case "fenced":
                said = "somebody took this stream over or closed it; this producer may no longer write"
                return Fenced(said, epoch=batch.epoch, stream_id=stream_id)
            case "closed":
                return StreamClosed("the stream is closed", stream_id=stream_id, outcome=None)
            case "repeat":
                return AppendRepeat("these events are stored already", last=batch.last, tail=tail)
            case "gap":
                said = f"event {batch.first} does not follow event {tail}"
                return AppendGap(said, first=batch.first, tail=tail)
        limit = self.store._options.stream_max_bytes
        return StreamTooLarge(f"a stream may hold at most {limit:,} bytes", limit=limit)


def _resolve(done: "asyncio.Future[None]", error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _fields(version: bytes, info: StreamInfo, packed: str) -> list[Any]:
    """What a state's hash holds, but for what appends change."""
    return ["v", version, "live", int(info.is_live), "epoch", info.epoch, "info", packed]


def _carrier(command: Create) -> StreamInfo:
    return StreamInfo("", metadata=command.metadata)


def _matches(info: StreamInfo, query: Query) -> bool:
    return (
        (query.status is None or info.status is query.status)
        and (query.thread_ids is None or info.thread_id in query.thread_ids)
        and (query.owner is None or info.owner == query.owner)
        and (query.settled is None or info.settled is query.settled)
    )


def _unknown(stream_id: str) -> StreamNotFound:
    return StreamNotFound("there is no such stream", stream_id=stream_id)
