"""Many streams over one connection: browsers open only six to a server, for all tabs together.

    subscription "k1" ── stream s ─────────────── pump ──┐
    subscription "k2" ── thread t ─┬─ stream a ── pump ──┼──► one writer: everything that is ready, in one message
                                   └─ stream b ── pump ──┘
                         (streams that begin on t are followed from their first event on)

A pump holds what one ``Tail.ready`` gave, at most, and waits until it is written: a client that does not take it costs
no more than that, and a long backlog does not keep a live stream waiting. Frames (no ``id:``: each has its cursor):

    data: {"key":"k2","type":"playhead.thread","thread_id":"t","latest":"a"}              first, for a thread
    data: {"key":"k2","stream_id":"a","type":"playhead.open","offset":7,"tail":40,…}       first, for a stream
    data: {"key":"k2","stream_id":"a","type":"text","first":8,"offset":40,"cursor":"…","data":"…"}
    data: {"key":"k2","stream_id":"a","type":"playhead.close","offset":41,"cursor":"…","outcome":"completed"}
    data: {"key":"k2","stream_id":"a","type":"playhead.error",…}                          a problem document (RFC 9457)
    data: {"key":"k2","stream_id":"a","type":"playhead.reconnecting","code":…,"detail":…}  the store is away; it goes on

A stream with nothing new to say after an outage says ``playhead.open`` again: whoever shows it knows that it is back.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from playhead.asgi import OpenResponse
from playhead.errors import BadRequest, Draining, PlayheadError, StoreUnavailable, StreamNotFound
from playhead.model import Batch, StreamInfo, cursor_prefix
from playhead.reader import Tail
from playhead.sse import (
    CLOSE_EVENT,
    ERROR_EVENT,
    HEADERS,
    RECONNECTING_EVENT,
    close_facts,
    joined,
    problem,
    reconnecting_facts,
)
from playhead.streams import Playhead

OPEN_EVENT = "playhead.open"
THREAD_EVENT = "playhead.thread"


@dataclass(frozen=True)
class Subscription:
    """What one key stands for: a stream from a cursor, or a thread with cursors of some of its streams."""

    key: str
    stream_id: str | None = None
    after: str | None = None
    thread_id: str | None = None
    streams: Mapping[str, str | None] = field(default_factory=dict)


class ManyStreams(OpenResponse):
    """An ASGI application that follows subscriptions until the client leaves or the process drains."""

    def __init__(
        self,
        playhead: Playhead,
        subscriptions: list[Subscription],
        *,
        principal: str | None,
        describe: Callable[[StreamInfo], Any],
    ) -> None:
        super().__init__(list(HEADERS))
        self._playhead = playhead
        self._subscriptions = subscriptions
        self._principal = principal
        self._describe = describe
        self._pumps: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._threads: list[tuple[str, Callable[[StreamInfo | None], None]]] = []
        self._written: list[asyncio.Future[None]] = []
        self._ready: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_begun = False
        self._is_over = False
        self._broken: BaseException | None = None

    @property
    def is_waiting(self) -> bool:
        return self._waiter is not None

    def nudge(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def tick(self, now: float) -> None:
        super().tick(now)
        if self._playhead.is_draining:
            self.nudge()  # whoever follows only streams that are over hears of it from nobody else

    async def _next(self) -> tuple[bytes, bool]:
        if not self._is_begun:
            self._is_begun = True
            await self._begin()
        for written in self._written:
            if not written.done():
                written.set_result(None)
        self._written.clear()
        if not (self._ready or self._is_over):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._broken is not None:
            raise self._broken
        body = b"".join(self._ready)
        self._ready.clear()
        return body, self._is_over or self._playhead.is_draining

    async def _begin(self) -> None:
        for one in self._subscriptions:
            if one.stream_id is not None:
                self._follow_stream(one.key, one.stream_id, one.after)
            elif one.thread_id is not None:
                await self._follow_thread(one, one.thread_id)

    async def _follow_thread(self, one: Subscription, thread_id: str) -> None:
        def began(info: StreamInfo | None) -> None:
            if info is None:
                self.nudge()
            elif known is None:
                early.append(info)
            elif info.stream_id not in known:
                self._follow_stream(one.key, info.stream_id, None, found=True)

        known: set[str] | None = None
        early: list[StreamInfo] = []  # told of before it is clear what is listed, and what is over
        try:
            found = await self._playhead.watch_thread(thread_id, began, principal=self._principal)
        except PlayheadError as error:
            self._say_error({"key": one.key}, error)
            return
        self._threads.append((thread_id, began))
        # Streams that are over already were told of elsewhere; only what is live, or asked for, is followed.
        known = {info.stream_id for info in found if not info.is_live}
        latest = found[0].stream_id if found else None
        self._say({"key": one.key, "type": THREAD_EVENT, "thread_id": thread_id, "latest": latest})
        for stream_id, after in one.streams.items():
            self._follow_stream(one.key, stream_id, after)
        for info in reversed(found):
            if info.is_live:
                self._follow_stream(one.key, info.stream_id, None, found=True)
        for info in early:
            began(info)

    def _follow_stream(self, key: str, stream_id: str, after: str | None, *, found: bool = False) -> None:
        """Begin to follow, once per key. ``found``: nobody named it; if it may not be read, nothing is said of it."""
        if (key, stream_id) not in self._pumps:
            pump = asyncio.create_task(self._pump(key, stream_id, after, found=found))
            pump.add_done_callback(self._pump_ended)
            self._pumps[key, stream_id] = pump

    def _pump_ended(self, pump: "asyncio.Task[None]") -> None:
        if not pump.cancelled() and (error := pump.exception()):
            self._broken = error  # a fault: better the whole response ends than that one stream is silent
            self.nudge()

    async def _pump(self, key: str, stream_id: str, after: str | None, *, found: bool) -> None:
        head = {"key": key, "stream_id": stream_id}
        is_told = not found
        try:
            async with aclosing(self._playhead.tail(stream_id, after=after, principal=self._principal)) as tail:
                batches: list[Batch] = []
                try:
                    await tail.open()
                except StoreUnavailable as error:
                    batches = await self._outlived(head if is_told else None, tail, error)
                offset = tail.offset
                self._say_open(head, tail.info, offset)
                is_told = True
                prefix = json.dumps(head)[:-1]
                while batches or tail.outcome is None:
                    if batches:
                        offset = batches[-1].last
                        await self._written_out(_lines(prefix, tail.info, batches))
                    try:
                        batches = await tail.ready()
                    except StoreUnavailable as error:
                        batches = await self._outlived(head, tail, error)
                        if not batches:
                            self._say_open(head, tail.info, offset)
                self._say({**head, "type": CLOSE_EVENT, "cursor": tail.info.cursor, **close_facts(tail.info)})
        except Draining:
            self._is_over = True
            self.nudge()
        except PlayheadError as error:
            if is_told or not isinstance(error, StreamNotFound):
                self._say_error(head, error)

    async def _outlived(self, head: dict[str, Any] | None, tail: Tail, error: StoreUnavailable) -> list[Batch]:
        """What there is when the store is back; that it is away is told once. None: nobody knows of the stream yet."""
        if head is not None:
            self._say({**head, "type": RECONNECTING_EVENT, **reconnecting_facts(error)})
        return await tail.outlive()

    def _say_open(self, head: dict[str, Any], info: StreamInfo, offset: int) -> None:
        told = {"offset": offset, "tail": info.tail, "stream": self._describe(info)}
        self._say({**head, "type": OPEN_EVENT, **told})

    async def _written_out(self, body: bytes) -> None:
        """Hand over, and wait until it was written."""
        written = asyncio.get_running_loop().create_future()
        self._written.append(written)
        self._ready.append(body)
        self.nudge()
        await written

    def _say(self, facts: dict[str, Any]) -> None:
        self._ready.append(f"data: {json.dumps(facts, separators=(',', ':'))}\n\n".encode())
        self.nudge()

    def _say_error(self, head: dict[str, Any], error: PlayheadError) -> None:
        self._say({**problem(error), **head, "type": ERROR_EVENT})

    async def aclose(self) -> None:
        for thread_id, began in self._threads:
            self._playhead.unwatch_thread(thread_id, began)
        self._threads.clear()
        pumps = list(self._pumps.values())
        for pump in pumps:
            pump.cancel()
        if pumps:
            await asyncio.wait(pumps)


def _lines(prefix: str, info: StreamInfo, batches: list[Batch]) -> bytes:
    """Events as frames; ``prefix``: what is the same for all of a stream, without the brace that ends it."""
    lines = []
    for event in joined(batches):
        cursor = cursor_prefix(info.mark, event.epoch) + str(event.offset)
        lines.append(
            f'data: {prefix},"type":{json.dumps(event.type)},{event.place},'
            f'"cursor":"{cursor}","data":{event.value}}}\n\n'
        )
    return "".join(lines).encode()


def check_subscriptions(subscriptions: list[Subscription]) -> list[Subscription]:
    """Raises: BadRequest unless every key is there once and stands for either a stream or a thread."""
    keys = [one.key for one in subscriptions]
    if len(set(keys)) != len(keys):
        raise BadRequest("each subscription wants a key of its own", argument="subscriptions")
    if any((one.stream_id is None) == (one.thread_id is None) for one in subscriptions):
        raise BadRequest("a subscription has either a stream_id or a thread_id", argument="subscriptions")
    return subscriptions
