"""Readers who are cut at random bytes, come back to any instance with their last cursor, and check what they get."""

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httptools

from benchmarks.chaos.content import content
from benchmarks.chaos.processes import Instance, Life, Span, now
from benchmarks.chaos.streams import Stream, Tally
from playhead.model import TEXT
from playhead.sse import CLOSE_EVENT, ERROR_EVENT
from playhead.sse_parser import EventParser, ServerSentEvent

STAY_MEAN_S, STAY_MAX_S = 2.0, 10.0
CUT_MEAN_BYTES = 6_000
RECONNECTING_EVENT = "playhead.reconnecting"
KNOWN_WITHIN_S = 1.0


@dataclass
class World:
    """What all readers of a run share."""

    instances: Sequence[Instance]
    away: list[Span]
    lease_s: float
    tally: Tally


class _Cut(Exception):
    """The reader's end of the connection is torn, here."""


class _Response:
    """One response as it comes in: the frames of its body, until ``cut_bytes`` of it have come."""

    def __init__(self, reader: "Reader", cut_bytes: int) -> None:
        self.status = 0
        self.is_over = False
        self.parser = EventParser()
        self.http = httptools.HttpResponseParser(self)
        self._reader = reader
        self._left_bytes = cut_bytes

    def feed(self, data: bytes) -> None:
        """Raises: _Cut."""
        try:
            self.http.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            raise (error.__context__ or error) from None

    def on_header(self, name: bytes, _: bytes) -> None:
        if name.lower() == b"playhead-tail":  # it is the stream, not a word that the store is away
            self._reader.attached()

    def on_headers_complete(self) -> None:
        self.status = self.http.get_status_code()

    def on_body(self, data: bytes) -> None:
        if self.status == 200:
            for event in self.parser.feed(data[: self._left_bytes]):
                self._reader.take(event)
        self._left_bytes -= len(data)
        if self._left_bytes <= 0:
            raise _Cut

    def on_message_complete(self) -> None:
        self.is_over = True


class Reader:
    """Reads one stream to its end, over any number of connections."""

    def __init__(self, world: World, stream: Stream, dice: random.Random) -> None:
        self.stream = stream
        self.have = 0
        self.cursor = ""
        self.is_done = self.knows_end = False
        self._world = world
        self._tally = world.tally
        self._dice = dice
        self._asks_again = dice.random() < 0.2
        self._opened_at = 0.0

    async def run(self) -> None:
        self._tally.attaches += 1
        while not self.is_done:
            instance = self._dice.choice(self._world.instances)
            life, self._opened_at = instance.life, now()
            how = await self._read_some(instance.port)
            self._check_promise(life)
            if not self.is_done:
                self._tally.cuts[how] += 1
                await asyncio.sleep(self._dice.uniform(0.0, 0.2 if how in ("by bytes", "by time") else 0.5))
        if self._asks_again:
            await self._nothing_follows()

    async def _read_some(self, port: int) -> str:
        """One connection, until it is cut or ends. Returns what ended it."""
        stay_s = min(self._dice.expovariate(1 / STAY_MEAN_S), STAY_MAX_S)
        cut_bytes = 1 + int(self._dice.expovariate(1 / CUT_MEAN_BYTES))
        answer = _Response(self, cut_bytes)
        try:
            async with asyncio.timeout(stay_s):
                await self._exchange(port, answer)
        except _Cut:
            return "by bytes"
        except TimeoutError:
            return "by time"
        except ConnectionRefusedError:
            return "refused: no process"
        except OSError:
            return "by the server's death"
        if answer.status not in (0, 200, 204):
            self._refused(answer.status)
        elif answer.status == 204 and not self.is_done:
            self._breaks("losses", "204 before the close")
            self.is_done = True
        return "ended by the server" if answer.is_over else "by the server's death"

    async def _exchange(self, port: int, answer: _Response) -> None:
        reading, writing = await asyncio.open_connection("127.0.0.1", port)
        try:
            joined = "?coalesce=text" if self._dice.random() < 0.3 else ""
            cursor = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
            head = f"GET /v1/streams/{self.stream.stream_id}{joined} HTTP/1.1\r\nHost: localhost\r\n{cursor}\r\n"
            writing.write(head.encode())
            self._tally.reads += 1
            while not answer.is_over and (data := await reading.read(65_536)):
                answer.feed(data)
        finally:
            writing.transport.abort()

    async def _nothing_follows(self) -> None:
        """Who has the close is told so: 204, by every instance that can answer."""
        for instance in self._world.instances:
            answer = _Response(self, 1 << 20)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(STAY_MAX_S):
                    await self._exchange(instance.port, answer)
            if 200 < answer.status < 500 and answer.status != 204:
                self._breaks("wrong", f"{answer.status} at the close")

    # ---- what it is given --------------------------------------------------------------------------

    def attached(self) -> None:
        self._tally.reconnects += bool(self.cursor)

    def take(self, event: ServerSentEvent) -> None:
        facts = json.loads(event.data)
        if event.type == RECONNECTING_EVENT:
            self._tally.cuts["told of an outage, not cut"] += 1
        elif event.type == ERROR_EVENT:
            self._breaks("reads refused", facts["code"])
            self.is_done = True
        else:
            self._check(event, facts)

    def _check(self, event: ServerSentEvent, facts: dict[str, Any]) -> None:
        first, offset = facts.get("first", facts["offset"]), facts["offset"]
        if first > self.have + 1:
            self._breaks("losses", f"{first} after {self.have}", first - self.have - 1)
        elif first <= self.have:
            self._breaks("duplicates", f"{first} after {self.have}", min(self.have, offset) - first + 1)
        if event.type == CLOSE_EVENT:
            self._closed(offset, facts["outcome"])
        else:
            self._tally.delivered += offset - first + 1
            if (event.type, _data(facts)) != _expected(self.stream.stream_id, first, offset):
                self._breaks("wrong", f"{first} to {offset}")
        self.have, self.cursor = offset, event.id

    def _closed(self, offset: int, outcome: str) -> None:
        self.is_done = self.knows_end = True
        first = self.stream.end is None
        self.stream.ended(offset, outcome, self._tally)
        if first:
            self.stream.judge(self._tally)

    def _refused(self, status: int) -> None:
        """Trouble that passes is never answered so to a reader (H4)."""
        self._breaks("reads refused", str(status))
        self.is_done = status < 500

    def _breaks(self, kind: str, what: str, count: int = 1) -> None:
        self._tally.breaks(kind, f"{self.stream.stream_id}: {what}; cursor {self.cursor!r}", count)

    # ---- when it knows the end ---------------------------------------------------------------------

    @property
    def _promise_s(self) -> float:
        return self._world.lease_s + 1.0

    def _promised_at(self) -> float | None:
        """When this reader has to know the end of a stream whose producer was lost; None when nothing is promised.

        The time begins with the loss, when Redis is there again, and when the reader is there itself.
        """
        lost_at = self.stream.lost_at
        if lost_at is None:
            return None
        away = [span for span in self._world.away if span.meets(lost_at - self._world.lease_s, now())]
        if away and (away[-1].end > now() or self.stream.life is None or self.stream.life.killed_at is None):
            return None  # nobody could tell the others; who was frozen meanwhile may be back in time
        begin = max([lost_at, *(span.end for span in away)])
        return max(begin + self._promise_s, self._opened_at + KNOWN_WITHIN_S)

    def _check_promise(self, life: Life | None) -> None:
        """The connection is over, with the end or without: did the reader know the end in time?"""
        promised_at = self._promised_at()
        if promised_at is None or life is None or self._stood_still(life):
            return  # nothing was promised, or whoever was to tell it did not know itself
        late_s = now() - promised_at
        if self.knows_end:
            if self._opened_at + KNOWN_WITHIN_S < promised_at:  # else it came when all was over
                self._tally.ends_known_s.append(late_s + self._promise_s)
        elif life.killed_at is not None:
            return
        if late_s > 0:
            self._breaks("ends known too late", f"{late_s:.2f} s, {'told' if self.knows_end else 'left without it'}")

    def _stood_still(self, life: Life) -> bool:
        """Whether the instance was frozen while this reader was there, or had just been."""
        return any(span.meets(self._opened_at - KNOWN_WITHIN_S, now()) for span in life.frozen)


def _data(facts: dict[str, Any]) -> bytes:
    data: str = facts["data"]
    return base64.b64decode(data) if facts.get("encoding") == "base64" else data.encode()


def _expected(stream_id: str, first: int, offset: int) -> tuple[str, bytes]:
    """What a frame must hold. Only text is ever joined."""
    kinds, datas = zip(*(content(stream_id, at) for at in range(first, offset + 1)), strict=True)
    return (kinds[0] if len(set(kinds)) == 1 and (first == offset or kinds[0] == TEXT) else "mixed"), b"".join(datas)
