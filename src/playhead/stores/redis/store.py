"""The store as the engines see it."""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from playhead.entry import pack, unpack
from playhead.errors import (
    AppendGap,
    AppendRepeat,
    Fenced,
    PlayheadError,
    StoreError,
    StoreUnavailable,
    StreamClosed,
    StreamTooLarge,
)
from playhead.log import Claim as ClaimCommand
from playhead.log import CloseDead, Command, Create, Facts, RequestCancel, decide
from playhead.model import Batch, Lease, Page, Status, StreamInfo
from playhead.state import pack_state, unpack_state
from playhead.store import Applied, Query, StoreOptions, Wake, WakeThread
from playhead.stores.redis.address import Address
from playhead.stores.redis.check import check_server
from playhead.stores.redis.claims import Claims
from playhead.stores.redis.creating import Creating
from playhead.stores.redis.finding import Finding
from playhead.stores.redis.keys import BEGUN, EVENTS, Keys, encoded
from playhead.stores.redis.listener import Listener
from playhead.stores.redis.lists import Lists
from playhead.stores.redis.presence import Clock, Presence, look_at_clock
from playhead.stores.redis.router import ASK, WRITE, Call, Router, again
from playhead.stores.redis.scripts import APPEND, COMMIT
from playhead.stores.redis.states import Row, States, fields, unknown
from playhead.stores.redis.wire import Word
from playhead.watchers import Watchers

HINT_MAX_BYTES = 32 * 1024
LOOK_EVERY_S = 1.0
REPLAY_S = 15.0
"""Longer than what a failover or a restart may lose: see docs/operations.md."""

BUSY_S, HOLD_MAX_S, CALM_S = 0.002, 0.02, 0.1
"""When an answer to several events took longer than the first, the next append of its stream waits: for as long as the
answer took, and for twice as long each time that this happens again within the last; but not longer than the second."""

_LOOK_STREAMS = 256
_NEEDS_LEASE = (ClaimCommand, CloseDead, RequestCancel)


class _Parts(NamedTuple):
    """What lives from open to close."""

    router: Router
    presence: Presence
    listener: Listener
    states: States
    lists: Lists
    claims: Claims
    finding: Finding
    creating: Creating
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
        self._keys = Keys(self._address.prefix, self._address.login.database)
        self._options = options or StoreOptions()
        self._parts: _Parts | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watchers = Watchers[Batch | None, StreamInfo | None]()
        self._thread_watchers = Watchers[[]]()
        self._channels: dict[bytes, str] = {}  # the stream, or the thread, of each that is listened to
        self._ours: dict[str, bytes] = {}  # the version of each stream that is produced here
        self._replicas = self._address.replicas
        self._appends_left = 0
        self._last_answer: asyncio.Future[None] | None = None
        self._held: list[tuple[asyncio.Future[None], Exception | None]] = []
        self._held_at = self._hold_s = 0.0

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
        keys, clock = self._keys, self.now
        states, lists = States(router, keys), Lists(router, keys)
        finding = Finding(router, keys, states, lists, clock, self.instance_id)
        claims = Claims(router, self.instance_id, states.info, finding.is_gone)
        self._parts = _Parts(
            router,
            presence,
            Listener(lambda: router.open_wire(None, "playhead-listen"), self._heard, self._confirmed),
            states,
            lists,
            claims,
            finding,
            Creating(router, keys, states, lists, claims, clock, lambda row: self._commit(row, None)),
            asyncio.create_task(self._look(), name="playhead redis look"),
        )
        self._closing = None
        self._last_answer = None
        self._ours.clear()
        for stream_id in self._watchers:
            self._listen(stream_id)
        for thread_id in self._thread_watchers:
            self._listen_to(keys.begun(thread_id), thread_id)

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
        now = loop.time()
        took_s = now - append.handed_over_at
        if len(append.batch.datas) > 1 and (self._held or took_s > BUSY_S):
            # More is asked of this process than it can do: let batches grow. Its readers have been told already.
            if not self._held:
                before_s = self._hold_s if now - self._held_at < CALM_S else 0.0
                self._hold_s, self._held_at = min(max(2 * before_s, took_s), HOLD_MAX_S), now
                loop.call_later(self._hold_s, self._let_go)
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
        parts = self._opened()
        if isinstance(command, Create):
            made = await parts.creating.create(stream_id, command)
            if made.changed:
                self._know(stream_id, made.info, b"1")
                self._watchers.tell(stream_id, None, made.info)
            return made
        while True:
            row = await parts.states.row(stream_id)
            state = row.info if row else None
            alive = (
                isinstance(command, _NEEDS_LEASE) and state is not None and await parts.finding.is_alive(state.producer)
            )
            new = decide(stream_id, state, command, Facts(self.now(), producer_alive=alive))
            assert row is not None  # the rules have refused the unknown
            if new is row.info:
                return Applied(row.info, changed=False)
            committed = await self._commit(row, new)
            if committed is not None:
                return Applied(committed, changed=True)

    async def _commit(self, row: Row, new: StreamInfo | None) -> StreamInfo | None:
        """What was committed (the last state of a stream that was forgotten); None when the state was another one."""
        parts, old = self._opened(), row.info
        keys = self._keys.stream(old.stream_id)
        loses_log = old.status is not Status.EXPIRED and (new is None or new.status is Status.EXPIRED)
        names = [keys.state]
        before = parts.lists.before(old, new, row.number)
        if loses_log:
            gone = f"{keys.gone}{row.number}".encode()
            names += [keys.log, gone]
            before.append((self._keys.garbage, ["ZADD", self._keys.garbage, repr(self.now()), gone]))
        await parts.lists.carry_out(before)
        version = str(int(row.version) + 1).encode()
        info = pack_state(new) if new else ""
        values = fields(version, new, info) if new else ()
        reply = await COMMIT.ask(
            parts.router, WRITE, names, row.version, keys.news, info, "", *values, acks=self._replicas
        )
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

    # ---- reading and finding ---------------------------------------------------------------------------

    async def load(self, stream_id: str) -> StreamInfo:
        info = await self._opened().states.info(stream_id)
        if info is None:
            raise unknown(stream_id)
        return info

    async def read(self, stream_id: str, after: int) -> Page:
        return await self._opened().states.page(stream_id, after)

    async def find(self, query: Query) -> list[StreamInfo]:
        return await self._opened().finding.find(query)

    async def orphans(self, *, proven: bool) -> list[str]:
        return await self._opened().finding.orphans(proven=proven)

    async def due(self, limit: int) -> list[str]:
        return await self._opened().finding.due(limit)

    async def purge(self, limit: int) -> int:
        return await self._opened().finding.purge(limit)

    # ---- watching --------------------------------------------------------------------------------------

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        is_new = stream_id not in self._watchers
        undo = self._watchers.add(stream_id, wake, gone=lambda: self._unlisten(stream_id))
        if is_new:
            self._listen(stream_id)
        return undo

    def watch_thread(self, thread_id: str, wake: WakeThread) -> Callable[[], None]:
        channel = self._keys.begun(thread_id)
        undo = self._thread_watchers.add(thread_id, wake, gone=lambda: self._unlisten_to(channel))
        self._listen_to(channel, thread_id)
        return undo

    def _listen(self, stream_id: str) -> None:
        """Hear of the state; and of the events, unless they are written here: then there is no need to be told."""
        keys = self._keys.stream(stream_id)
        for channel in (keys.news,) if stream_id in self._ours else (keys.news, keys.events):
            self._listen_to(channel, stream_id)

    def _unlisten(self, stream_id: str) -> None:
        keys = self._keys.stream(stream_id)
        self._ours.pop(stream_id, None)  # its producer would be watching
        for channel in (keys.news, keys.events):
            self._unlisten_to(channel)

    def _listen_to(self, channel: bytes, name: str) -> None:
        if self._parts is not None:
            self._channels[channel] = name
            self._parts.listener.add(channel)

    def _unlisten_to(self, channel: bytes) -> None:
        if self._channels.pop(channel, None) is not None and self._parts is not None:
            self._parts.listener.discard(channel)

    def _know(self, stream_id: str, info: StreamInfo | None, version: bytes) -> None:
        """Keep in mind which streams are written here."""
        if info is not None and info.is_live and info.producer == self.instance_id:
            self._ours[stream_id] = version
        elif self._ours.pop(stream_id, None) and info and info.is_live and stream_id in self._watchers:
            self._listen(stream_id)

    def _confirmed(self, channel: bytes) -> None:
        self._heard(channel, b"")  # something may have been missed until now

    def _heard(self, channel: bytes, hint: bytes) -> None:
        name = self._channels.get(channel)
        if name is None:
            return
        if channel.endswith(BEGUN):
            self._thread_watchers.tell(name)
            return
        batch, info = None, None
        try:
            first, second, rest = hint.split(b" ", 2)
            if channel.endswith(EVENTS):
                batch = unpack(int(second), int(first), rest)
            else:
                info = unpack_state(rest, int(first), int(second))
                if info.producer != self.instance_id:
                    self._know(name, info, b"")
        except (ValueError, PlayheadError):
            pass  # no hint that we understand: whoever is told of it without one looks for himself
        self._watchers.tell(name, batch, info)

    def _look_again(self, stream_ids: Iterable[str]) -> None:
        for stream_id in stream_ids:
            self._watchers.tell(stream_id, None, None)

    async def _look(self) -> None:
        """Now and then, a bounded number of watched streams a time: has something changed that nobody told us?"""
        seen: dict[str, tuple[Any, ...]] = {}
        waiting: list[str] = []
        is_away = False
        losses = self._opened().router.losses
        while True:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.8, 1.2))
            if not waiting:
                waiting = list(self._watchers)
                seen = {stream_id: seen[stream_id] for stream_id in waiting if stream_id in seen}
            some, waiting = waiting[:_LOOK_STREAMS], waiting[_LOOK_STREAMS:]
            try:
                router, keys = self._opened().router, [self._keys.stream(stream_id).state for stream_id in some]
                found = await router.ask_all(ASK, [(key, ["HMGET", key, "v", "tail"]) for key in keys])
                for stream_id, (version, tail) in zip(some, found, strict=True):
                    # What is written here we know; of others' writing the tail is news too.
                    mark = (version,) if stream_id in self._ours else (version, tail)
                    if seen.get(stream_id, mark) != mark:
                        self._watchers.tell(stream_id, None, None)
                    seen[stream_id] = mark
                is_away = False
                if losses != (found_losses := router.losses):
                    await self._list_again()
                    losses = found_losses
            except StoreError:
                if not is_away:  # nobody else tells readers who wait that it is away
                    is_away = True
                    self._look_again(list(self._watchers))

    async def _list_again(self) -> None:
        """What lies elsewhere than our live streams and names them may have lost its last moments in a failover."""
        parts, ours = self._opened(), list(self._ours)
        for begin in range(0, len(ours), _LOOK_STREAMS):
            for row in await parts.states.rows(ours[begin : begin + _LOOK_STREAMS]):
                if row is not None and row.info.is_live and row.info.producer == self.instance_id:
                    await parts.lists.carry_out(parts.lists.before(None, row.info, row.number))
                    if row.info.thread_id is not None:
                        await parts.claims.keep(self._keys.live_on(row.info.thread_id), row.info.stream_id)


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
                return unknown(stream_id)
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
