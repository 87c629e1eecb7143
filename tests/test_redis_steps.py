"""A process dies, or an answer is lost, between any two steps of making, closing and deleting a stream.

What lies in other slots than the stream cannot change with it. So for every number of steps: whoever comes next gets
what he asks for within the time of a claim, the lists tell the truth, and in the end nothing is left.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from redis_server import RedisServer
from streaming import until

from playhead.errors import StoreUnavailable, StreamNotFound, ThreadBusy
from playhead.log import Close, CloseDead, Command, Create, Delete, RequestCancel
from playhead.model import COMPLETED, Batch, Lease, Status, StreamInfo
from playhead.store import Query, StoreOptions
from playhead.stores.redis import RedisStore

CLAIM_MAX_S = 0.5
LEASE_S = 0.5
SLACK_S = 10.0
STEPS_MAX = 24

Fault = Literal["dies", "is not heard", "hears nothing"]
FAULTS: tuple[Fault, ...] = ("dies", "is not heard", "hears nothing")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Healing by age, in tenths of seconds."""
    monkeypatch.setattr("playhead.stores.redis.claims.CLAIM_MAX_S", CLAIM_MAX_S)
    monkeypatch.setattr("playhead.stores.redis.lists.ORPHAN_S", 0.02)


class Faulty:
    """Lets ``steps`` commands of a store through.

    dies: nothing of what follows reaches Redis.
    is not heard: only the next command does not reach Redis.
    hears nothing: the next command is carried out, but its answer is lost.

    Attributes:
        met: whether the fault has happened.
    """

    def __init__(self, store: RedisStore, steps: int, fault: Fault) -> None:
        assert store._parts is not None
        self.router: Any = store._parts.router
        self.link = self.router.link
        self.steps, self.fault = steps, fault
        self.met = False
        self.router.link = lambda key, lane: _Link(self, self.link(key, lane))

    def mend(self) -> None:
        self.router.link = self.link


class _Link:
    def __init__(self, faulty: Faulty, link: Any) -> None:
        self.faulty, self.link = faulty, link

    def call(self, words: Sequence[Any], reply: Callable[[Any], None]) -> None:
        faulty = self.faulty
        faulty.steps -= 1
        if faulty.steps >= 0 or (faulty.met and faulty.fault != "dies"):
            self.link.call(words, reply)
            return
        faulty.met = True
        lost = StoreUnavailable("the connection was lost")
        if faulty.fault == "hears nothing":
            self.link.call(words, lambda _: reply(lost))
        else:
            asyncio.get_running_loop().call_soon(reply, lost)


class Case:
    """One database; one store that meets the fault, and one that comes after it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.later_s = 0.0
        self.options = StoreOptions(lease_s=LEASE_S)
        self.first = RedisStore(url, options=self.options, clock=self.now)
        self.next = RedisStore(url, options=self.options, clock=self.now)

    def now(self) -> float:
        return time.time() + self.later_s

    async def create(self, store: RedisStore, stream_id: str, key: str | None = "key", thread: str = "t") -> StreamInfo:
        made = Create(
            producer=store.instance_id, owner="ann", thread_id=thread, idempotency_key=key, live_per_owner_max=5
        )
        return (await store.apply(stream_id, made)).info

    async def fail(self, steps: int, fault: Fault, stream_id: str, command: Command) -> bool:
        """Whether the first store met the fault in the middle of this command."""
        self.first.renew()  # of a producer whose lease ran out much is decided in another way, in other steps
        faulty = Faulty(self.first, steps, fault)
        try:
            await self.first.apply(stream_id, command)
        except StoreUnavailable:
            assert faulty.met
        if fault != "dies":
            faulty.mend()
        return faulty.met

    async def all_ended(self) -> None:
        """What a housekeeper does: the first one's lease has run out."""
        await until(self._is_swept)

    async def _is_swept(self) -> bool:
        self.next.renew()
        for stream_id in await self.next.orphans(proven=False):
            await self.next.apply(stream_id, CloseDead())
        for info in await self.next.find(Query(status=Status.LIVE)):
            if info.producer == self.next.instance_id:
                await self.next.apply(info.stream_id, Close(info.epoch, COMPLETED))
        return not await self.next.find(Query(status=Status.LIVE))

    async def lists_are_true(self, stream_ids: set[str]) -> None:
        """Every list names these streams, as far as they belong there, and no others."""
        states = {}
        for stream_id in stream_ids:
            states[stream_id] = await self.next.load(stream_id)
        for status, thread_ids, owner in itertools.product(
            (None, Status.LIVE, Status.CLOSED), (None, ("t",), ("t", "other")), (None, "ann", "bob")
        ):
            right = {
                stream_id
                for stream_id, info in states.items()
                if status in (None, info.status)
                and (thread_ids is None or info.thread_id in thread_ids)
                and owner in (None, info.owner)
            }
            query = Query(status=status, thread_ids=thread_ids, owner=owner)
            found = [info.stream_id for info in await self.next.find(query)]
            assert len(found) == len(set(found))
            assert set(found) == right, query

    async def nothing_stays(self, redis: RedisServer, prefix: str) -> None:
        """Forget everything, heal everything: what is stored then?"""
        await self.all_ended()
        for info in await self.next.find(Query()):
            await self.next.apply(info.stream_id, Delete())

        # Who comes by heals what he meets: a thread and a key that are used again, and lists that are looked into.
        used = await self.create(self.next, "last", "key")
        await self.next.apply("last", Close(used.epoch, COMPLETED))
        await self.next.apply("last", Delete())
        self.later_s += 60 * 86_400.0

        async def is_empty() -> bool:
            self.next.renew()
            await self.next.orphans(proven=False)
            await self.next.due(100)
            for status in (None, Status.LIVE, Status.CLOSED):
                await self.next.find(Query(status=status))
                await self.next.find(Query(status=status, owner="ann"))
                await self.next.find(Query(status=status, thread_ids=("t",)))
            await self.next.find(Query(status=Status.CLOSED, settled=False))
            while await self.next.purge(100):
                pass
            left.clear()
            left.update(key.decode() for key in redis.command("KEYS", f"{prefix}:*"))
            return left <= {f"{prefix}:format", f"{prefix}:1:count", f"{prefix}:1:instances"}

        left: set[str] = set()
        try:
            await until(is_empty)
        except TimeoutError:
            raise AssertionError(f"something stays for ever: {left}") from None
        instances = redis.command("ZRANGE", f"{prefix}:1:instances", "0", "-1")
        assert instances == [self.next.instance_id.encode()]


@asynccontextmanager
async def case(url: str, prefix: str) -> AsyncIterator[Case]:
    made = Case(f"{url}?prefix={prefix}")
    await made.first.open()
    await made.next.open()
    try:
        yield made
    finally:
        await made.first.close()
        await made.next.close()


def command(name: str, case: Case, epoch: int) -> Command:
    made = Create(
        producer=case.first.instance_id, owner="ann", thread_id="t", idempotency_key="key", live_per_owner_max=5
    )
    return {"create": made, "close": Close(epoch, COMPLETED), "cancel": RequestCancel(), "delete": Delete()}[name]


async def existing(store: RedisStore, *stream_ids: str) -> set[str]:
    found = set()
    for stream_id in stream_ids:
        try:
            found.add((await store.load(stream_id)).stream_id)
        except StreamNotFound:
            continue
    return found


async def for_every_step(try_with: Callable[[int], Awaitable[bool]]) -> None:
    """``try_with(steps)`` tells whether a next step failed. All at once, as each waits for healing by age."""
    met = await asyncio.gather(*map(try_with, range(STEPS_MAX)))
    steps = met.index(False)
    assert 1 < steps < STEPS_MAX
    # Who is held up may need a step or two more, to look whether his claim still stands; nobody needs as many as these.
    assert not met[-1]


@pytest.mark.parametrize("fault", FAULTS)
async def test_making_a_stream(redis_url: str, redis_server: RedisServer, fault: Fault) -> None:
    async def try_with(steps: int) -> bool:
        prefix = f"case{steps}"
        async with case(redis_url, prefix) as at:
            met = await at.fail(steps, fault, "one", command("create", at, 0))
            # The same request again, as a client repeats it, elsewhere and with an id of its own.
            async with asyncio.timeout(CLAIM_MAX_S + SLACK_S):
                again = await at.create(at.next, "two")
            there = await existing(at.next, "one", "two")
            assert there == {again.stream_id}, "one request has made two streams"
            await at.lists_are_true(there)
            await at.all_ended()
            # The thread is free again for somebody else.
            async with asyncio.timeout(CLAIM_MAX_S + SLACK_S):
                assert (await at.create(at.next, "three", "another key")).stream_id == "three"
            await at.lists_are_true({*there, "three"})
            await at.nothing_stays(redis_server, prefix)
        return met

    await for_every_step(try_with)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_thread_of_a_stream_that_was_perhaps_not_made(redis_url: str, fault: Fault) -> None:
    """Another request on that thread: never two live streams, and no longer than a claim's time without one."""

    async def try_with(steps: int) -> bool:
        async with case(redis_url, f"case{steps}") as at:
            met = await at.fail(steps, fault, "one", command("create", at, 0))
            for attempt in itertools.count():
                try:
                    async with asyncio.timeout(CLAIM_MAX_S + SLACK_S):
                        await at.create(at.next, "two", "another key")
                except ThreadBusy as busy:
                    assert attempt == 0
                    assert busy.stream_id == "one"  # noqa: PT017 - it may, or may not, be raised
                    assert (await at.next.load("one")).is_live
                    await at.all_ended()
                else:
                    break
            live = await at.next.find(Query(status=Status.LIVE, owner="ann"))
            assert [info.stream_id for info in live] == ["two"], "two streams are live on one thread"
        return met

    await for_every_step(try_with)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["close", "cancel", "delete"])
async def test_ending_a_stream(redis_url: str, redis_server: RedisServer, name: str, fault: Fault) -> None:
    async def try_with(steps: int) -> bool:
        prefix = f"case{steps}"
        async with case(redis_url, prefix) as at:
            epoch = (await at.create(at.first, "one")).epoch
            await at.first.append(Lease("one", epoch), Batch(1, epoch, "text", [b"hello", b"you"]))
            met = await at.fail(steps, fault, "one", command(name, at, epoch))
            there = await existing(at.next, "one")
            await at.lists_are_true(there)
            if there and fault != "dies":  # what was not heard of is asked for once more
                await at.first.apply("one", command(name, at, epoch))
                there = await existing(at.next, "one")
                assert there == (set() if name == "delete" else {"one"})
            await at.all_ended()
            await at.lists_are_true(there)
            async with asyncio.timeout(CLAIM_MAX_S + SLACK_S):
                made = await at.create(at.next, "two")
            assert made.stream_id == ("one" if there else "two")  # the key is the stream's for as long as it exists
            if there:
                assert (await at.create(at.next, "two", "another key")).stream_id == "two"
            await at.lists_are_true(there | {"two"})
            await at.nothing_stays(redis_server, prefix)
        return met

    await for_every_step(try_with)
