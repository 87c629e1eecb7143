"""One connection to Redis, shared by everybody (P9, P10): commands go out in order, replies come back in order.

    call(words, reply) ──► socket (many in one turn: out ──one write──►) ──► replies, each to its caller's function

Request tasks never touch the socket: a caller hands words over and is called back; when it has gone meanwhile its
reply is dropped, and the next reply still meets the next command. No command here blocks (no BLPOP, no XREAD BLOCK),
so one bound on silence holds for all of them: REPLY_MAX_S.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis

from playhead.errors import StoreUnavailable
from playhead.stores.redis.faults import named

CONNECT_MAX_S = 2.0
REPLY_MAX_S = 3.0
"""Silence of a server that owes a reply, after which the connection is given up. More than WAIT may take."""

RECONNECT_S = 0.1
AT_ONCE = 8
"""Commands of one turn of the loop that each get a write of their own."""

Word = bytes | str | int
Reply = Callable[[Any], None]
"""Called with what Redis replied, or with the error: hiredis.ReplyError as it came, or StoreUnavailable."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens: a host and a port, or the path of a socket."""

    host: str
    port: int = 6379
    path: str | None = None

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Login:
    """What is said first on every connection."""

    username: str | None = None
    password: str | None = None
    database: int = 0
    tls: ssl.SSLContext | None = None

    def words(self, name: str) -> list[list[Word]]:
        said: list[list[Word]] = []
        if self.password is not None:
            said.append(["AUTH", *([self.username] if self.username else []), self.password])
        if self.database:
            said.append(["SELECT", self.database])
        return [*said, ["CLIENT", "SETNAME", name]]


class Wire(asyncio.Protocol):
    """One open connection. When it is lost every caller who waits is told, and it is over for good."""

    def __init__(self, where: Endpoint) -> None:
        self.where = where
        self.pushed: Callable[[list[Any]], None] | None = None
        self.lost: Callable[[StoreUnavailable], None] | None = None
        self.heard_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[Reply] = deque()
        self._out: list[bytes] = []
        self._said = 0
        self._transport: asyncio.Transport | None = None
        self._fd: int | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._over: StoreUnavailable | None = None

    @classmethod
    async def open(cls, where: Endpoint, login: Login, name: str) -> "Wire":
        """Connect and say hello, within CONNECT_MAX_S. Raises: StoreError."""
        loop = asyncio.get_running_loop()
        wire = cls(where)
        try:
            async with asyncio.timeout(CONNECT_MAX_S):
                if where.path is not None:
                    await loop.create_unix_connection(lambda: wire, where.path)
                else:
                    await loop.create_connection(lambda: wire, where.host, where.port, ssl=login.tls)
                for words in login.words(name):
                    answer = await wire.ask(*words)
                    if isinstance(answer, hiredis.ReplyError) and words[0] != "CLIENT":
                        raise named(answer, str(where))
        except TimeoutError:
            wire.abort()
            raise StoreUnavailable(f"Redis at {where} did not answer within {CONNECT_MAX_S:g} s") from None
        except OSError as error:  # ssl's errors are among them
            wire.abort()
            reason = error.strerror or str(error) or type(error).__name__
            raise StoreUnavailable(f"Redis at {where} cannot be reached: {reason}; is it running?") from error
        except BaseException:
            wire.abort()
            raise
        return wire

    @property
    def is_open(self) -> bool:
        return self._over is None

    def call(self, words: Sequence[Word], reply: Reply) -> None:
        """Send a command. ``reply`` is always called, once, and never before this returns."""
        if self._over is not None:
            self._loop.call_soon(reply, self._over)
            return
        if not self._waiting:
            self.heard_at = self._loop.time()
        self._waiting.append(reply)
        self.say(words)

    def say(self, words: Sequence[Word]) -> None:
        """Send a command whose reply, if any, is pushed."""
        packed = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]
        if self._transport is None:
            return
        if not self._said:
            self._loop.call_soon(self._flush)
        self._said += 1
        # The first of a turn go at once, so that Redis works while we do; of many the rest go in one write.
        if self._said <= AT_ONCE:
            self._write(packed)
        else:
            self._out.append(packed)

    async def ask(self, *words: Word) -> Any:
        """The reply; errors that Redis replied are returned. Raises: StoreUnavailable."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.call(words, lambda reply: None if answer.done() else answer.set_result(reply))
        found = await answer
        if isinstance(found, StoreUnavailable):
            raise found
        return found

    def _flush(self) -> None:
        self._said = 0
        if self._out:
            self._write(b"".join(self._out))
        self._out.clear()

    def _write(self, data: bytes) -> None:
        """Nothing, when the connection is lost and has not said so yet: who waits for a reply is told when it does."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._fd is not None and not transport.get_write_buffer_size():
            # At once, so that Redis works while we do: uvloop's transport would write when all that is ready has run.
            try:
                sent = os.write(self._fd, data)
            except OSError:  # not now, or never again: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def abort(self) -> None:
        """End it now."""
        self._end(f"the connection to Redis at {self.where} was given up")

    # ---- asyncio.Protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of a family of their own
        if self._over is not None:  # whoever opened it has given it up already
            self._transport.abort()
            return
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()
        self.heard_at = self._loop.time()
        self._watchdog = self._loop.call_later(REPLY_MAX_S / 4, self._watch)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        parser, waiting = self._parser, self._waiting
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not _NOTHING:
                if waiting:
                    waiting.popleft()(reply)
                elif self.pushed is not None:
                    self.pushed(reply)
        except hiredis.ProtocolError as error:
            self._end(f"what listens at {self.where} does not speak Redis's protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection to Redis at {self.where} was lost" + (f": {error}" if error else ""))

    def _watch(self) -> None:
        if self._waiting and self._loop.time() - self.heard_at > REPLY_MAX_S:
            self._end(f"Redis at {self.where} did not answer within {REPLY_MAX_S:g} s")
        elif self._over is None:
            self._watchdog = self._loop.call_later(REPLY_MAX_S / 4, self._watch)

    def _end(self, why: str) -> None:
        if self._over is not None:
            return
        self._over = over = StoreUnavailable(why)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for reply in waiting:
            reply(over)
        if self.lost is not None:
            self.lost(over)


_NOTHING = object()


class Link:
    """A connection that comes back: opened when it is needed, opened anew when it was lost.

    What is handed over while it is being opened waits for that, and fails with it.
    """

    def __init__(self, open_wire: Callable[[], "asyncio.Future[Wire]"], lost: Callable[[], None]) -> None:
        self._open_wire = open_wire
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._queue: list[tuple[Sequence[Word], Reply]] = []
        self._opening: asyncio.Future[Wire] | None = None
        self._failed: tuple[float, Exception] | None = None
        self._closed = False

    def call(self, words: Sequence[Word], reply: Reply) -> None:
        """As ``Wire.call``."""
        wire = self._wire
        if wire is not None and wire.is_open:
            wire.call(words, reply)
            return
        if self._closed:
            self._loop.call_soon(reply, StoreUnavailable("the store is not open"))
            return
        if self._opening is None and self._failed and self._loop.time() - self._failed[0] < RECONNECT_S:
            self._loop.call_soon(reply, self._failed[1])  # a crowd that asks again and again is no reason to hurry
            return
        self._queue.append((words, reply))
        if self._opening is None:
            self._opening = self._open_wire()
            self._opening.add_done_callback(self._opened)

    def _opened(self, opening: "asyncio.Future[Wire]") -> None:
        self._opening = None
        queue, self._queue = self._queue, []
        error: BaseException | None
        if opening.cancelled():
            error = StoreUnavailable("the store is not open")
        else:
            error = opening.exception()
        if error is not None:
            self._failed = (self._loop.time(), error if isinstance(error, Exception) else StoreUnavailable(repr(error)))
            for _, reply in queue:
                reply(self._failed[1])
            self._lost()
            return
        self._failed = None
        self._wire = opening.result()
        self._wire.lost = lambda _: self._lost()
        if self._closed:
            self._wire.abort()
        for words, reply in queue:
            self._wire.call(words, reply)

    def drop(self) -> None:
        """Give the connection up: its server is not the one to talk to any more. The next call opens one anew."""
        if self._wire is not None:
            self._wire.abort()

    def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self.drop()
