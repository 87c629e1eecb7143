"""Which server a command goes to, and on which connection: one Redis, the primary of a Sentinel group, or a cluster.

Each server has two connections ("lanes"), so that a long page never delays an acknowledgement:

    WRITE   appends and commits          ASK   loads, pages, lists

A cluster's map of slots is learnt from any node, mended by every MOVED, and learnt anew when a connection was lost.
Commands that a node sends elsewhere are sent there, in the order in which they came back, so that the appends of one
stream keep theirs.
"""

import asyncio
import logging
import random
from binascii import crc_hqx
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import hiredis

from playhead.errors import PlayheadError, StoreError, StoreReadOnly, StoreUnavailable
from playhead.stores.redis.address import Address
from playhead.stores.redis.faults import kind_of, named
from playhead.stores.redis.wire import Endpoint, Link, Reply, Wire, Word

WRITE, ASK = 0, 1
_LANES = ("playhead-write", "playhead-ask")
SLOTS = 16_384
_REDIRECTS_MAX = 8
_TRY_AGAIN_S = 0.05
_LEARN_EVERY_S = 0.5
WAIT_MS = 1_500
"""How long replicas may take; less than ``wire.REPLY_MAX_S``."""

logger = logging.getLogger("playhead")


def slot_of(key: bytes) -> int:
    """The slot of a key: of what stands between its first ``{`` and the ``}`` after it, when there is something."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key, 0) % SLOTS


class _Node:
    """One server and its lanes."""

    def __init__(self, router: "Router", where: Endpoint | None) -> None:
        self.where = where
        self.lanes = tuple(Link(partial(self._open, router, name), router.lost) for name in _LANES)

    def _open(self, router: "Router", name: str) -> "asyncio.Future[Wire]":
        return router.spawn(router.open_wire(self.where, name))


class Call:
    """One command on its way, until its caller has an answer."""

    __slots__ = ("_acks", "_answer", "_lane", "_router", "_script", "_tries", "key", "words")

    def __init__(
        self,
        router: "Router",
        lane: int,
        key: bytes,
        words: list[Word],
        answer: Callable[[Any], None],
        *,
        script: bytes | None = None,
        acks: int = 0,
    ) -> None:
        self.key, self.words = key, words
        self._router, self._lane = router, lane
        self._answer, self._script, self._acks = answer, script, acks
        self._tries = 0

    def send(self) -> None:
        self._send(self._router.link(self.key, self._lane))

    def _send(self, link: Link, *, asking: bool = False) -> None:
        if asking:
            link.call(["ASKING"], _ignore)
        if self._acks:
            # On the same connection, right behind: WAIT counts what was written on its own connection.
            stored = _Acknowledged(self._acks, self._replied)
            link.call(self.words, stored.stored)
            link.call(["WAIT", self._acks, WAIT_MS], stored.copied)
        else:
            link.call(self.words, self._replied)

    def _replied(self, reply: Any) -> None:
        if not isinstance(reply, hiredis.ReplyError):
            self._answer(reply)
            return
        kind = kind_of(reply)
        self._tries += 1
        if kind == "NOSCRIPT" and self._script is not None:
            self.words = ["EVAL", self._script, *self.words[2:]]  # which also loads it, after a flush or a failover
            self.send()
        elif self._tries > _REDIRECTS_MAX:
            self._answer(named(reply, self._router.name))
        elif kind in ("MOVED", "ASK"):
            _, slot, where = str(reply).split(" ")[:3]
            link = self._router.redirected(int(slot), where, self._lane, moved=kind == "MOVED")
            self._send(link, asking=kind == "ASK")
        elif kind == "TRYAGAIN":
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self.send)
        else:
            self._answer(self._router.trouble(reply, self.key))


class _Acknowledged:
    """A write and the WAIT behind it: the write's reply counts once enough replicas have it."""

    __slots__ = ("_acks", "_reply", "_then")

    def __init__(self, acks: int, then: Reply) -> None:
        self._acks, self._then = acks, then
        self._reply: Any = None

    def stored(self, reply: Any) -> None:
        self._reply = reply

    def copied(self, count: Any) -> None:
        reply = self._reply
        if isinstance(reply, Exception) or (isinstance(count, int) and count >= self._acks):
            self._then(reply)
        elif isinstance(count, Exception):
            self._then(count)
        else:
            self._then(StoreUnavailable(f"only {count} of {self._acks} replicas have acknowledged the write"))


class Router:
    """All connections of one event loop to one Redis, but for the one that listens. Closed once, for good.

    Attributes:
        losses: how often a connection was lost, or a server was not what it had been.
    """

    def __init__(self, address: Address) -> None:
        self.name = str(address)
        self.address = address
        self._nodes: dict[Endpoint | None, _Node] = {}
        self._slots: list[_Node] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self.losses = 0
        self._learnt_at = 0.0
        self._learning: asyncio.Future[None] | None = None
        self._closed = False

    # ---- commands --------------------------------------------------------------------------------------

    def link(self, key: bytes, lane: int) -> Link:
        if self.address.kind != "cluster":
            return self._node(None).lanes[lane]
        node = self._slots[slot_of(key)] if self._slots else self._node(self.address.endpoints[0])
        return node.lanes[lane]

    def call(self, lane: int, key: bytes, words: list[Word], answer: Callable[[Any], None], **more: Any) -> None:
        """Send a command about a key; ``answer`` is called with the reply or a PlayheadError."""
        Call(self, lane, key, words, answer, **more).send()

    async def ask(self, lane: int, key: bytes, *words: Word, **more: Any) -> Any:
        """Raises: StoreError. Cancel: safe; the command may still be carried out."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.call(lane, key, list(words), lambda reply: None if answer.done() else answer.set_result(reply), **more)
        found = await answer
        if isinstance(found, PlayheadError):
            raise again(found)
        return found

    async def ask_all(self, lane: int, commands: Sequence[tuple[bytes, list[Word]]]) -> list[Any]:
        """The replies to commands that are sent in one go. Raises: StoreError, the first one, when all are answered."""
        if not commands:
            return []
        replies: list[Any] = [None] * len(commands)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(commands)

        def answer(index: int, reply: Any) -> None:
            nonlocal left
            replies[index] = reply
            left -= 1
            if not left and not answered.done():
                answered.set_result(None)

        for index, (key, words) in enumerate(commands):
            self.call(lane, key, words, partial(answer, index))
        await answered
        for reply in replies:
            if isinstance(reply, PlayheadError):
                raise again(reply)
        return replies

    async def ask_each(self, *words: Word) -> list[Any]:
        """The replies of all servers to a question about themselves. Raises: StoreError."""
        loop = asyncio.get_running_loop()
        replies: list[Any] = []
        for node in set(self._slots) or {self._node(None)}:
            answer: asyncio.Future[Any] = loop.create_future()
            node.lanes[ASK].call(list(words), lambda reply, to=answer: None if to.done() else to.set_result(reply))  # type: ignore[misc]
            found = await answer
            if isinstance(found, hiredis.ReplyError):
                raise named(found, self.name)
            if isinstance(found, PlayheadError):
                raise again(found)
            replies.append(found)
        return replies

    def trouble(self, reply: hiredis.ReplyError, key: bytes) -> PlayheadError:
        """An error of a server. One that cannot be right for long makes us look for the right server."""
        error = named(reply, self.name)
        if isinstance(error, StoreReadOnly):
            # It was the primary, and is not any more.
            for node in {self._slots[slot_of(key)]} if self._slots else set(self._nodes.values()):
                for link in node.lanes:
                    link.drop()
            return StoreUnavailable(f"{self.name} has become a read-only replica; looking for the new primary")
        if isinstance(error, StoreUnavailable):
            self.lost()
        return error

    # ---- servers ---------------------------------------------------------------------------------------

    def _node(self, where: Endpoint | None) -> _Node:
        node = self._nodes.get(where)
        if node is None:
            node = self._nodes[where] = _Node(self, where)
        return node

    async def open_wire(self, where: Endpoint | None, name: str) -> Wire:
        """A new connection: to a node, or (None) to whichever server is the primary now. Raises: StoreError."""
        login = self.address.login
        if where is not None:
            return await Wire.open(where, login, name)
        if self.address.kind == "sentinel":
            return await self._open_primary(name)
        trouble: StoreError | None = None
        for endpoint in self.known:
            try:
                return await Wire.open(endpoint, login, name)
            except StoreUnavailable as error:
                trouble = error
        assert trouble is not None
        raise trouble

    @property
    def known(self) -> list[Endpoint]:
        """Servers to ask, the likeliest first."""
        nodes = [where for where in self._nodes if where is not None]
        random.shuffle(nodes)
        return list(dict.fromkeys([*nodes, *self.address.endpoints]))

    async def _open_primary(self, name: str) -> Wire:
        trouble: StoreError = StoreUnavailable("no Sentinel was asked")
        for sentinel in self.address.endpoints:
            try:
                asked = await Wire.open(sentinel, self.address.sentinel_login, name)
                try:
                    found = await asked.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
                finally:
                    asked.abort()
                if isinstance(found, hiredis.ReplyError):
                    raise named(found, str(sentinel))
                if not found:
                    trouble = StoreError(f"the Sentinel at {sentinel} knows no service {self.address.service!r}")
                    continue
                return await self._open_if_primary(Endpoint(found[0].decode(), int(found[1])), name)
            except StoreUnavailable as error:
                trouble = error
        raise trouble

    async def _open_if_primary(self, where: Endpoint, name: str) -> Wire:
        wire = await Wire.open(where, self.address.login, name)
        try:
            role = await wire.ask("ROLE")
            if not isinstance(role, hiredis.ReplyError) and role[0] != b"master":
                raise StoreUnavailable(f"Redis at {where} is not the primary any more; waiting for the new one")
        except BaseException:
            wire.abort()
            raise
        return wire

    # ---- a cluster's map -------------------------------------------------------------------------------

    async def learn(self) -> None:
        """Learn who serves which slot. Raises: StoreError."""
        if self.address.kind != "cluster":
            return
        trouble: PlayheadError | None = None
        for where in self.known:
            try:
                wire = await Wire.open(where, self.address.login, "playhead-map")
                try:
                    ranges = await wire.ask("CLUSTER", "SLOTS")
                finally:
                    wire.abort()
                if isinstance(ranges, hiredis.ReplyError):
                    raise named(ranges, str(where))
                self._take(ranges, where)
                return
            except PlayheadError as error:
                trouble = error
        assert trouble is not None
        raise trouble

    def _take(self, ranges: list[Any], asked: Endpoint) -> None:
        slots: list[_Node | None] = [None] * SLOTS
        for begin, end, (host, port, *_), *_ in ranges:
            node = self._node(Endpoint((host or b"").decode() or asked.host, port))
            slots[begin : end + 1] = [node] * (end + 1 - begin)
        missing = slots.count(None)
        if missing:
            raise StoreUnavailable(f"nobody serves {missing:,} of the slots of the cluster at {self.name}")
        self._slots = [node for node in slots if node is not None]
        serving = set(self._slots)
        for where, node in list(self._nodes.items()):
            if node not in serving:
                del self._nodes[where]
                for link in node.lanes:
                    link.close()

    def redirected(self, slot: int, where: str, lane: int, *, moved: bool) -> Link:
        host, _, port = where.rpartition(":")
        endpoint = Endpoint(host.strip("[]") or self.address.endpoints[0].host, int(port))
        node = self._node(endpoint)
        if moved and self._slots:
            self._slots[slot] = node
        return node.lanes[lane]

    def lost(self) -> None:
        """A connection was lost, or a server is not what it was: look again, in the background."""
        self.losses += 1
        if self.address.kind == "cluster" and not self._closed and self._learning is None:
            self._learning = self.spawn(self._learn_soon())
            self._learning.add_done_callback(self._learning_ended)

    async def _learn_soon(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._learnt_at + _LEARN_EVERY_S - loop.time()))
        self._learnt_at = loop.time()
        try:
            await self.learn()
        except PlayheadError as error:
            logger.debug("the map of the cluster cannot be learnt: %s", error)

    def _learning_ended(self, _: "asyncio.Future[None]") -> None:
        self._learning = None

    # ---- life ------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Future[Any]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        self._closed = True
        for node in self._nodes.values():
            for link in node.lanes:
                link.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _ignore(_: Any) -> None:
    pass


def again(error: PlayheadError) -> PlayheadError:
    """One error that many wait for, for each of them: what is raised collects what belongs to its raiser."""
    copy = type(error)(str(error), **error.facts)
    copy.__cause__ = error.__cause__
    return copy
