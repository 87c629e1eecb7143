"""What every part of the store suite works with: stores on the same data, streams, races, watchers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import pytest
import pytest_asyncio

from playhead.errors import PlayheadError
from playhead.log import Close, Create
from playhead.model import COMPLETED, TEXT, Batch, Event, Lease, Outcome, StreamInfo
from playhead.store import Store, StoreOptions
from playhead.testing.clock import ManualClock

PATIENCE_S = 30.0
LEASE_S = 5.0
ODD_TEXTS = ["ü ☃ 𝄞 שלום", 'it\'s "quoted"; -- %s ? $1', "a/b:c*d[e]{f}\\g", " ", "0", "x" * 1_000]

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., object])


def proves(*_requirements: str) -> Callable[[Test], Test]:
    """Names the requirements of PROTOCOL.md that a test proves.

    No pytest marker: whoever inherits the suite would have to register it.
    """
    return lambda test: test


class MakeStore(Protocol):
    """Makes one more store, not yet opened, on the same data: like one more process on one database."""

    def __call__(self, clock: Callable[[], float], options: StoreOptions) -> Store: ...


class OpenStore(Protocol):
    async def __call__(self, **options: Any) -> Store: ...


class StoreCase:
    """The fixtures. A store's own test gives ``make_store`` and nothing else."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_store(self) -> MakeStore:
        raise NotImplementedError("give a fixture make_store: it returns a MakeStore on empty data")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest_asyncio.fixture
    async def open_store(self, make_store: MakeStore, clock: ManualClock) -> AsyncIterator[OpenStore]:
        """Makes and opens stores; closes them all at the end."""
        opened: list[Store] = []

        async def open_one_more(**options: Any) -> Store:
            store = make_store(clock, StoreOptions(**{"lease_s": LEASE_S, **options}))
            await store.open()
            opened.append(store)
            return store

        yield open_one_more
        for store in reversed(opened):
            await store.close()

    @pytest_asyncio.fixture
    async def store(self, open_store: OpenStore) -> Store:
        return await open_store()

    @pytest_asyncio.fixture
    async def other(self, store: Store, open_store: OpenStore) -> Store:
        """A second instance on the data of ``store``."""
        assert store.instance_id
        return await open_store()


async def create(store: Store, stream_id: str = "s", **facts: Any) -> Lease:
    """A live stream whose producer is this store's instance."""
    applied = await store.apply(stream_id, Create(producer=store.instance_id, **facts))
    return Lease(applied.info.stream_id, applied.info.epoch)


async def create_closed(store: Store, stream_id: str = "s", outcome: Outcome = COMPLETED, **facts: Any) -> StreamInfo:
    """A closed stream that holds one event."""
    lease = await create(store, stream_id, **facts)
    await append(store, lease, 1, "only")
    return (await store.apply(stream_id, Close(lease.epoch, outcome))).info


def texts(lease: Lease, first: int, *items: str, types: str | Sequence[str] = TEXT) -> Batch:
    return Batch(first, lease.epoch, types, [item.encode("utf-8", "surrogatepass") for item in items])


async def append(store: Store, lease: Lease, first: int, *items: str) -> None:
    await store.append(lease, texts(lease, first, *items))


async def content(store: Store, stream_id: str = "s", after: int = 0) -> list[Event]:
    """All events after an offset, read page by page as a reader would."""
    events: list[Event] = []
    while True:
        page = await store.read(stream_id, after)
        if not page.batches:
            return events
        fresh = [event for batch in page.batches for event in batch.events if event.offset > after]
        assert [event.offset for event in fresh] == list(range(after + 1, page.batches[-1].last + 1))
        events += fresh
        after = fresh[-1].offset


async def words(store: Store, stream_id: str = "s", after: int = 0) -> list[str]:
    return [event.text for event in await content(store, stream_id, after)]


async def race(*calls: Callable[[], Awaitable[T]]) -> list[T | PlayheadError]:
    """Start all at the same moment; what each returned or raised."""
    barrier = asyncio.Barrier(len(calls))

    async def run(call: Callable[[], Awaitable[T]]) -> T | PlayheadError:
        await barrier.wait()
        try:
            return await call()
        except PlayheadError as error:
            return error

    return await asyncio.gather(*map(run, calls))


class Watcher:
    """A Wake, or a WakeThread, that remembers what it was told, and when to stop waiting for more."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.infos: list[StreamInfo] = []
        self.wakes = 0
        self.threads: set[int] = set()
        self._woken = asyncio.Event()

    def __call__(self, batch: Batch | None = None, info: StreamInfo | None = None) -> None:
        self.wakes += 1
        self.batches += [batch] if batch else []
        self.infos += [info] if info else []
        self.threads.add(threading.get_ident())
        self._woken.set()

    async def until(self, seen: Callable[[], Awaitable[bool]]) -> None:
        """Look after each wake-up, as a reader does, until it is there. Bounded: TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not await seen():
                await self._woken.wait()
                self._woken.clear()
