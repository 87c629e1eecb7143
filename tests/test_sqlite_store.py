"""What is particular to the SQLite store: its transactions, its threads, other processes. The rest: test_stores.py."""

import asyncio
import os
import sqlite3
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlite_child import child

from playhead.errors import AppendGap, Fenced, StoreError, StoreUnavailable, StreamNotFound, ThreadBusy
from playhead.log import Close, CloseDead, Create, Delete, RequestCancel
from playhead.model import COMPLETED, Batch, Lease, StreamInfo
from playhead.store import Query
from playhead.stores.sqlite import SQLiteStore, queries
from playhead.stores.sqlite.turns import LOOK_AFTER_MAX_S

PATIENCE_S = 60.0
NEWS_WITHIN_S = 0.05


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    yield store
    await store.close()


def _batch(first: int, *datas: bytes) -> Batch:
    return Batch(first, 1, "text", list(datas))


async def _create(store: SQLiteStore, stream_id: str, **facts: Any) -> Lease:
    return Lease(stream_id, (await store.apply(stream_id, Create(store.instance_id, **facts))).info.epoch)


class Held:
    """Holds the write lock: what is handed in meanwhile comes to wait in the store's queue."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> None:
        self._lock = sqlite3.connect(self._path, isolation_level=None)
        self._lock.execute("BEGIN IMMEDIATE")

    async def __aexit__(self, *_: object) -> None:
        self._lock.close()


class Statements:
    """Counts the statements that a connection carries out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.seen: list[str] = []
        connection.set_trace_callback(self.seen.append)

    def count(self, beginning: str) -> int:
        return sum(statement.startswith(beginning) for statement in self.seen)

    @property
    def transactions(self) -> int:
        """Explicit ones, and statements that are one by themselves."""
        return self.count("COMMIT") + sum("NOT EXISTS" in statement for statement in self.seen)


def _waiting(store: SQLiteStore) -> int:
    assert store._parts
    return store._parts.writer.queue.qsize()


def _of_writer(store: SQLiteStore) -> Statements:
    assert store._parts
    return Statements(store._parts.writer.connection)


def _of_reader(store: SQLiteStore) -> Statements:
    assert store._parts
    return Statements(store._parts.reader._connection)


# ---- transactions ------------------------------------------------------------------------------------


async def test_what_waits_is_one_transaction(store: SQLiteStore, path: Path) -> None:
    leases = [await _create(store, f"s{n}") for n in range(100)]
    statements = _of_writer(store)
    async with Held(path):
        appends = [store.append(lease, _batch(first, b"x")) for first in (1, 2) for lease in leases]
    await asyncio.gather(*appends)
    # The writer had taken the first append when it met the lock; all others came together
    assert statements.count("COMMIT") <= 2
    assert statements.count("SELECT") <= 2
    assert [(await store.load(lease.stream_id)).tail for lease in leases] == [2] * 100


async def test_a_transaction_is_bounded(store: SQLiteStore, path: Path) -> None:
    lease = await _create(store, "s")
    statements = _of_writer(store)
    async with Held(path):
        appends = [store.append(lease, _batch(n, b"x" * 1_000_000)) for n in range(1, 25)]
    await asyncio.gather(*appends)
    assert 3 <= statements.transactions <= 5


async def test_p6_errors_stay_with_their_cause(store: SQLiteStore, path: Path) -> None:
    a, b = await _create(store, "a", thread_id="t"), await _create(store, "b")
    async with Held(path):
        results = [
            store.append(a, _batch(1, b"a1")),
            store.append(a._replace(epoch=7), _batch(2, b"fenced")),
            store.append(b, _batch(1, b"b1")),
            asyncio.ensure_future(store.apply("c", Create("me", thread_id="t"))),
            asyncio.ensure_future(store.apply("unknown", RequestCancel())),
            asyncio.ensure_future(store.apply("d", Create("me", metadata={"not": object()}))),
        ]
        await asyncio.sleep(0)  # the commands are handed in
        results += [
            store.append(b, _batch(3, b"gap")),
            store.append(a, _batch(2, b"a2")),
            asyncio.ensure_future(store.apply("b", Delete())),
        ]
        await asyncio.sleep(0)
        results.append(store.append(b, _batch(2, b"too late")))
    outcome = await asyncio.gather(*results, return_exceptions=True)
    kinds = [type(result).__name__ for result in outcome]
    assert kinds == [
        "NoneType",
        Fenced.__name__,
        "NoneType",
        ThreadBusy.__name__,
        StreamNotFound.__name__,
        "InvalidSetting",
        AppendGap.__name__,
        "NoneType",
        "Applied",
        StreamNotFound.__name__,
    ]
    assert [batch.datas for batch in (await store.read("a", 0)).batches] == [[b"a1"], [b"a2"]]
    assert [info.stream_id for info in await store.find(Query())] == ["a"]


async def test_p1_an_error_of_the_driver_leaves_nothing_behind(store: SQLiteStore, path: Path) -> None:
    a, b = await _create(store, "a"), await _create(store, "b")
    fault = sqlite3.connect(path, isolation_level=None)
    fault.execute(
        "CREATE TRIGGER fault BEFORE INSERT ON entries WHEN NEW.total_bytes = 13 BEGIN SELECT RAISE(ABORT, '!'); END"
    )
    woken: list[Batch | None] = []
    store.watch("a", lambda batch, _info: woken.append(batch))
    async with Held(path):
        first = store.append(a, _batch(1, b"stored"))
        await _until(lambda: _waiting(store) == 0)  # the writer has it, and met the lock
        results = [
            store.append(a, _batch(2, b"good")),
            store.append(b, _batch(1, b"thirteen byte")),
            store.append(b, _batch(9, b"refused by the rules")),
        ]
        results.append(asyncio.ensure_future(store.apply("c", Create("me"))))
        await asyncio.sleep(0)
    errors = await asyncio.gather(*results, return_exceptions=True)
    assert [type(error) for error in errors] == [StoreError] * 4
    assert len({id(error) for error in errors}) == 4
    assert all(isinstance(error.__cause__, sqlite3.IntegrityError) for error in errors if isinstance(error, StoreError))
    await first
    assert [batch.last for batch in woken if batch] == [1]
    assert [info.stream_id for info in await store.find(Query())] == ["b", "a"]
    fault.execute("DROP TRIGGER fault")
    fault.close()
    await asyncio.gather(store.append(a, _batch(2, b"good")), store.append(b, _batch(1, b"thirteen byte")))
    assert [(await store.load(stream_id)).tail for stream_id in "ab"] == [2, 1]


@pytest.mark.parametrize("together", [1, 2])
async def test_p2_one_lease_in_two_processes_tears_no_hole(store: SQLiteStore, path: Path, together: int) -> None:
    """Heads that a process remembers do not count once another has appended, were it with the same lease."""
    other = SQLiteStore(path)
    await other.open()
    leases = [await _create(store, f"s{n}") for n in range(together)]
    for lease in leases:
        await store.append(lease, _batch(1, b"1"))
        await other.append(lease, _batch(2, b"2", b"3"))
    async with Held(path):
        appends = [store.append(lease, _batch(2, b"2", b"3", b"4")) for lease in leases]
    assert [type(error) for error in await asyncio.gather(*appends, return_exceptions=True)] == [AppendGap] * together
    for lease in leases:
        await store.append(lease, _batch(4, b"4"))
        await other.append(lease, _batch(5, b"5"))
        batches = (await store.read(lease.stream_id, 0)).batches
        assert [batch.first for batch in batches] == [1, 2, 4, 5]
        assert batches[-1].datas == [b"5"]
    await other.close()


async def test_p10_abandoned_futures_harm_nobody(store: SQLiteStore, path: Path) -> None:
    lease = await _create(store, "s")
    async with Held(path):
        appends = [store.append(lease, _batch(n, b"x")) for n in range(1, 11)]
        creation = asyncio.create_task(store.apply("t", Create(store.instance_id)))
        await asyncio.sleep(0)
        for append in appends[::2]:
            append.cancel()
        creation.cancel()
    await asyncio.gather(*appends[1::2])
    assert (await store.load("s")).tail == 10
    assert (await store.load("t")).is_live
    with pytest.raises(asyncio.CancelledError):
        await creation


async def test_a_failing_watcher_costs_nobody_an_answer(store: SQLiteStore) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lease = await _create(store, "s")
    woken: list[Batch | None] = []

    def fail(_batch: Batch | None, _info: StreamInfo | None) -> None:
        raise ZeroDivisionError

    store.watch("s", fail)
    store.watch("s", lambda batch, _info: woken.append(batch))
    await store.append(lease, _batch(1, b"x"))
    assert [batch.last for batch in woken if batch] == [1]
    assert {type(context["exception"]) for context in complaints} == {ZeroDivisionError}


async def test_a_closed_store_says_so(path: Path) -> None:
    store = SQLiteStore(path)
    with pytest.raises(StoreUnavailable):
        await store.load("s")
    await store.open()
    lease = await _create(store, "s")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await store.append(lease, _batch(1, b"x"))
    with pytest.raises(StoreUnavailable):
        await store.apply("s", RequestCancel())
    with pytest.raises(StoreUnavailable):
        store.renew()
    await closing


async def test_p10_a_cancelled_close_is_finished_by_the_next(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    lease = await _create(store, "s")
    async with Held(path):
        append = store.append(lease, _batch(1, b"x"))
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not append.done()
    await store.close()
    assert append.done()
    await append


async def test_p10_a_busy_loop_does_not_starve_the_threads(store: SQLiteStore) -> None:
    """The loop never idles, and lets go of the interpreter for microseconds only."""
    lease = await _create(store, "s")
    assert store._parts
    turns = store._parts.writer.turns
    ran_s: list[float] = []  # for how long the loop itself ran, as others may keep all threads from running
    spinning = asyncio.create_task(_spin())
    began_s = time.monotonic()
    for n in range(1, 101):
        started_s = time.thread_time()
        await store.append(lease, _batch(n, b"x"))
        ran_s.append(time.thread_time() - started_s)
    passed_s = time.monotonic() - began_s
    pages = [await store.read("s", n) for n in range(100)]
    spinning.cancel()
    assert all(pages)
    assert statistics.median(ran_s) < 0.1
    assert max(ran_s) < 1
    assert turns.times_aside <= 2 * len(ran_s) + passed_s / 0.02  # the loop goes on looking while a thread is slow


async def test_p10_the_loop_stands_aside_for_a_thread_that_could_run(path: Path) -> None:
    """An idle loop never does; a busy one less and less often, when it does not help."""
    store = SQLiteStore(path, busy_timeout_s=2 * PATIENCE_S)  # it takes a while until this process gets to be busy
    await store.open()
    lease = await _create(store, "s")
    assert store._parts
    turns = store._parts.writer.turns
    async with Held(path):
        append = store.append(lease, _batch(1, b"x"))
        await asyncio.sleep(0.2)
        assert turns.times_aside == 0
        started_s = time.monotonic()
        spinning = asyncio.create_task(_spin())
        await _until(lambda: turns.times_aside >= 1)  # a loop that others keep from running is not a busy one
        await asyncio.sleep(0.5)
        spinning.cancel()
        assert turns.times_aside <= (time.monotonic() - started_s) / LOOK_AFTER_MAX_S + 6
    await append
    await store.close()


async def test_texts_that_sqlite_cannot_hold(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    odd = "\ud800 \0 \\ \\ud800 \\0"
    began: list[str] = []
    other.watch_thread(odd, lambda: began.append(odd))
    await _until(lambda: bool(began))  # the first look
    facts = {"thread_id": odd, "owner": odd, "idempotency_key": odd, "metadata": {odd: [odd]}}
    await _create(store, "s", **facts)
    info = await store.load("s")
    assert {name: getattr(info, name) for name in facts} == facts
    await _until(lambda: len(began) == 2)
    await other.close()
    assert await store.find(Query(thread_ids=(odd,), owner=odd)) == [info]
    assert await store.find(Query(thread_ids=(odd, "other"))) == [info]
    assert (await store.apply("again", Create("me", **facts))).info == info
    for nearly in ("\ud800 \\0 \\ \\ud800 \\0", "\\ud800 \0 \\ \\ud800 \\0"):
        assert await store.find(Query(owner=nearly)) == []
    with pytest.raises(StreamNotFound):
        await store.load(odd)


# ---- space -------------------------------------------------------------------------------------------


async def test_purge_is_in_short_steps(store: SQLiteStore) -> None:
    lease, other = await _create(store, "s"), await _create(store, "other")
    await asyncio.gather(*[store.append(lease, _batch(n, b"x")) for n in range(1, 501)])
    await store.apply("s", Delete())
    statements = _of_writer(store)
    purging = asyncio.create_task(store.purge(450))
    await asyncio.sleep(0)
    await store.append(other, _batch(1, b"not after all that"))
    assert not purging.done()
    assert await purging == 450
    assert 5 <= statements.count("COMMIT") <= 6
    assert await store.purge(1_000) == 50


async def test_purge_steps_are_short_in_bytes_too(store: SQLiteStore) -> None:
    lease = await _create(store, "s")
    await asyncio.gather(*[store.append(lease, _batch(n, b"x" * 400_000)) for n in range(1, 21)])
    await store.apply("s", Delete())
    statements = _of_writer(store)
    assert await store.purge(1_000) == 20
    assert statements.count("COMMIT") >= 5


async def test_p9_the_log_is_bounded_while_others_read(store: SQLiteStore, path: Path) -> None:
    """150 MB are written while another process follows, in a read transaction most of the time."""
    script = """
async def main(path):
    store, has = await opened(path), 0
    woken = asyncio.Event()
    store.watch("s", lambda batch, info: woken.set())
    say("ready")
    while has < 150:
        page = await store.read("s", has)
        if page.batches:
            has = page.batches[-1].last
            if has % 10 == 0:
                say(has)
            continue
        await woken.wait()
        woken.clear()
    await store.close()
"""
    lease = await _create(store, "s")
    most_bytes = 0
    async with child(script, path) as reader:
        assert await reader.line() == "ready"
        for n in range(1, 151):
            await store.append(lease, _batch(n, bytes([n]) * 1_000_000))
            most_bytes = max(most_bytes, os.stat(f"{path}-wal").st_size)
            if n % 10 == 0:
                assert await reader.line() == str(n)
        await reader.end()
    assert most_bytes < 75_000_000  # about WAL_LIMIT_BYTES, and what comes while a slow disk takes a checkpoint


# ---- other processes ---------------------------------------------------------------------------------

_WRITER = """
async def main(path):
    store = await opened(path)
    lease, first = await create(store, "s"), 1
    say("ready")
    while await hear():
        now = time.monotonic()  # one clock for all processes
        await store.append(lease, batch(first, repr(now).encode()))
        first += 1
    await store.close()
"""


async def _is_soon(one_round: Callable[[], Awaitable[list[float]]]) -> None:
    """Best of five rounds of delays: a store that looks too seldom is late in each, a busy machine is not."""
    medians_s: list[float] = []
    for _ in range(5):
        medians_s.append(statistics.median(await one_round()))
        if medians_s[-1] < NEWS_WITHIN_S:
            return
    raise AssertionError(medians_s)


async def test_p9_others_appends_arrive_within_50_ms(store: SQLiteStore, path: Path) -> None:
    has = 0
    woken = asyncio.Event()

    async def one_round() -> list[float]:
        nonlocal has
        delays_s: list[float] = []
        for _ in range(20):
            await writer.tell("append")
            async with asyncio.timeout(PATIENCE_S):
                while not (page := await store.read("s", has)).batches:
                    await woken.wait()
                    woken.clear()
            delays_s.append(time.monotonic() - float(page.batches[0].datas[0]))
            has = page.batches[0].last
        return delays_s

    async with child(_WRITER, path) as writer:
        assert await writer.line() == "ready"
        store.watch("s", lambda _batch, _info: woken.set())
        await _is_soon(one_round)
        await writer.tell()
        await writer.end()


async def test_p9_others_streams_on_a_thread_wake_within_50_ms(store: SQLiteStore, path: Path) -> None:
    script = """
async def main(path):
    store = await opened(path)
    say("ready")
    while stream_id := await hear():
        await store.apply(stream_id, Create(store.instance_id, thread_id=stream_id))
        say(time.monotonic())
    await store.close()
"""
    woken = asyncio.Event()
    numbers = count()

    async def one_round() -> list[float]:
        delays_s: list[float] = []
        for n in range(20):
            thread_id = f"t{next(numbers)}"
            undo = store.watch_thread(thread_id, woken.set)
            await asyncio.sleep(0.01 + n / 200)
            woken.clear()
            await other.tell(thread_id)
            async with asyncio.timeout(PATIENCE_S):
                await woken.wait()
            now = time.monotonic()
            delays_s.append(now - float(await other.line()))
            assert len(await store.find(Query(thread_ids=(thread_id,)))) == 1
            undo()
        return delays_s

    async with child(script, path) as other:
        assert await other.line() == "ready"
        store.watch_thread("lasting", woken.set)
        await _until(woken.is_set)  # the first look
        await _is_soon(one_round)
        await other.tell()
        await other.end()


async def test_p4_a_cancel_from_elsewhere_wakes_the_producer_within_50_ms(store: SQLiteStore, path: Path) -> None:
    script = """
async def main(path):
    store = await opened(path)
    say("ready")
    while stream_id := await hear():
        asked = await store.apply(stream_id, RequestCancel(by=repr(time.monotonic())))
        say(asked.changed)
    await store.close()
"""
    numbers = count()

    async def one_round() -> list[float]:
        delays_s: list[float] = []
        for n in range(10):
            told: asyncio.Queue[StreamInfo | None] = asyncio.Queue()
            stream_id = f"s{next(numbers)}"
            await _create(store, stream_id)
            store.watch(stream_id, lambda _batch, info, told=told: told.put_nowait(info))
            await asyncio.sleep(n / 200)  # else each comes right after a look, and waits for all of the pause
            await other.tell(stream_id)
            async with asyncio.timeout(PATIENCE_S):
                while not ((info := await told.get()) and info.cancel):
                    pass
            assert info.cancel.by
            delays_s.append(time.monotonic() - float(info.cancel.by))
            assert await other.line() == "True"
        return delays_s

    async with child(script, path) as other:
        assert await other.line() == "ready"
        await _is_soon(one_round)
        await other.tell()
        await other.end()


async def test_p4_appends_do_not_hide_a_cancel_from_elsewhere(store: SQLiteStore, path: Path) -> None:
    """The append after the request sees its effect on the row first; the watcher must still be told."""
    other = SQLiteStore(path)
    await other.open()
    for n in range(10):
        lease = await _create(store, f"s{n}")
        told: list[StreamInfo] = []
        store.watch(f"s{n}", lambda _batch, info, told=told: told.append(info) if info else None)
        await store.append(lease, _batch(1, b"x"))
        await other.apply(f"s{n}", RequestCancel("ann"))
        await store.append(lease, _batch(2, b"y"))
        await _until(lambda told=told: any(info.cancel for info in told))
    await other.close()


async def test_p5_a_deletion_right_after_the_watch_is_told(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    for at in (store, other):
        for _ in range(20):  # the same id again: what was told of the one before does not count
            await _create(at, "s")
            woken: list[StreamInfo | None] = []
            undo = store.watch("s", lambda _batch, info, woken=woken: woken.append(info))
            await other.apply("s", Delete())
            await _until(lambda woken=woken: None in woken)
            undo()
    await other.close()


async def test_p5_a_life_between_two_looks_is_told_at_its_end(store: SQLiteStore, path: Path) -> None:
    """Watched before it is there, then made here and deleted elsewhere before this process looks again."""
    other = SQLiteStore(path)
    await other.open()
    told: list[StreamInfo | None] = []
    store.watch("s", lambda _batch, info: told.append(info))
    await _until(lambda: told == [None])  # the look has found nothing
    for lives in range(1, 4):
        looks_on = threading.Event()
        busy = asyncio.create_task(store._ask(lambda _connection, looks_on=looks_on: looks_on.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        try:
            await _create(store, "s")
            await other.apply("s", Delete())
        finally:
            looks_on.set()
        assert await busy
        await _until(lambda lives=lives: [info is None for info in told] == [True] + [False, True] * lives)
    await other.close()


async def test_p9_what_is_not_there_is_not_told_of_again(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    told: list[StreamInfo | None] = []
    store.watch("s", lambda _batch, info: told.append(info))
    await _until(lambda: told == [None])
    statements = _of_reader(store)
    for n in range(3):
        looks = statements.count("PRAGMA data_version")
        await _create(other, f"another {n}")
        await _until(lambda looks=looks: statements.count("PRAGMA data_version") > looks + 1)
    assert told == [None]
    await other.close()


async def test_p9_nothing_watched_is_nothing_looked_at(store: SQLiteStore) -> None:
    lease = await _create(store, "s")
    statements = _of_reader(store)
    undo, undo_thread = store.watch("s", lambda _batch, _info: None), store.watch_thread("t", lambda: None)
    async with asyncio.timeout(PATIENCE_S):
        while statements.count("PRAGMA data_version") < 2:
            await store.append(lease, _batch((await store.load("s")).tail + 1, b"x"))
    undo()
    undo_thread()
    await store.load("s")  # answered after the undo was taken
    statements.seen.clear()
    await asyncio.sleep(0.1)
    assert statements.seen == []


async def test_p9_one_query_for_all_that_is_watched(store: SQLiteStore, path: Path) -> None:
    """However many streams are followed: a quiet database costs a look at its counter, a change one query."""
    other = SQLiteStore(path)
    await other.open()
    leases = [await _create(store, f"s{n}") for n in range(50)]
    woken: list[str] = []
    for lease in leases:
        other.watch(lease.stream_id, lambda _batch, _info, name=lease.stream_id: woken.append(name))
    await _until(lambda: len(woken) == 50)
    woken.clear()
    statements = _of_reader(other)
    await store.append(leases[7], _batch(1, b"x"))
    await _until(lambda: bool(woken) and statements.count("PRAGMA data_version") >= 5)
    assert woken == ["s7"]
    assert sum("json_each" in statement for statement in statements.seen) == 1
    await other.close()


async def test_p9_one_query_for_all_threads_that_are_watched(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    woken: list[str] = []
    other.watch_thread("lasting", lambda: woken.append("lasting"))
    await _until(lambda: bool(woken))  # the first look, which wakes only who watches by then
    for n in range(50):
        other.watch_thread(f"t{n}", lambda name=f"t{n}": woken.append(name))
    await other.find(Query())  # answered after the watches were taken
    woken.clear()
    statements = _of_reader(other)
    await _create(store, "s", thread_id="t7")
    await _until(lambda: bool(woken) and statements.count("PRAGMA data_version") >= 5)
    assert woken == ["t7"]
    assert [statement for statement in statements.seen if not statement.startswith("PRAGMA")] == [
        "SELECT no, thread_id FROM streams WHERE no > 0 ORDER BY no"
    ]
    await other.close()


async def test_p9_own_streams_on_a_thread_are_told_of_once(store: SQLiteStore) -> None:
    """By the writer; the look finds them too."""
    woken: list[int] = []
    store.watch_thread("t", lambda: woken.append(1))
    await _until(lambda: bool(woken))  # the first look
    statements = _of_reader(store)
    for n in range(5):
        lease = await _create(store, f"s{n}", thread_id="t")
        assert len(woken) == n + 2
        await store.apply(f"s{n}", Close(lease.epoch, COMPLETED))
    statements.seen.clear()
    await _until(lambda: statements.count("PRAGMA data_version") >= 3)
    assert len(woken) == 6


@pytest.mark.crash
async def test_p5_a_killed_process_is_known_dead_at_once(store: SQLiteStore, path: Path) -> None:
    script = """
async def main(path):
    store = await opened(path)
    await create(store, "s")
    say(store.instance_id)
    await hear()
"""
    async with child(script, path) as producer:
        instance_id = await producer.line()
        assert await store.orphans(proven=True) == []
        await producer.kill()
    assert await store.orphans(proven=True) == await store.orphans(proven=False) == ["s"]
    closed = (await store.apply("s", CloseDead())).info
    assert closed.outcome
    assert closed.outcome.reason == "producer-lost"
    assert instance_id not in os.listdir(f"{path}-instances")


@pytest.mark.crash
async def test_p1_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    script = """
async def main(path):
    store = await opened(path)
    lease = await create(store, "s")
    for n in range(1, 1_000_000):
        await store.append(lease, batch(n, b"%d" % n))
        say(n)
"""
    async with child(script, path) as producer:
        for _ in range(200):
            await producer.line()
        await producer.kill()
        acknowledged = 200
        while line := await producer.line():
            acknowledged = int(line)
    store = SQLiteStore(path)
    await store.open()
    tail = (await store.load("s")).tail
    assert acknowledged <= tail <= acknowledged + 1
    has = 0
    while batches := (await store.read("s", has)).batches:
        for batch in batches:
            assert (batch.first, batch.datas) == (has + 1, [b"%d" % (has + 1)])
            has = batch.last
    assert has == tail
    await store.close()


async def test_p5_the_files_of_the_living_stay(store: SQLiteStore, path: Path) -> None:
    await _create(store, "s")
    leftover = Path(f"{path}-instances") / "1234567890abcdef"
    _touch(leftover)
    other = SQLiteStore(path)
    await other.open()
    assert sorted(os.listdir(leftover.parent)) == sorted([store.instance_id, other.instance_id])
    assert await other.orphans(proven=True) == []
    await other.close()
    assert os.listdir(leftover.parent) == [store.instance_id]


async def test_p6_renewing_mends_what_was_cleared_away(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    await _create(store, "s")
    os.unlink(f"{path}-instances/{store.instance_id}")
    assert await other.orphans(proven=True) == ["s"]
    await asyncio.to_thread(store.renew)
    assert await other.orphans(proven=True) == await other.orphans(proven=False) == []
    await other.close()


def _touch(path: Path) -> None:
    path.touch()


async def _spin() -> None:
    while True:
        sum(range(5_000))
        await asyncio.sleep(0)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in threads
            await asyncio.sleep(0.005)


@pytest.mark.proves("P2.1")
async def test_p2_what_is_committed_in_the_middle_of_a_read_is_not_in_its_page(store: SQLiteStore, path: Path) -> None:
    lease = await _create(store, "s")
    await store.append(lease, _batch(1, b"a"))
    reading, writing = (sqlite3.connect(path, isolation_level=None) for _ in range(2))
    more = "INSERT INTO entries (place, epoch, total_bytes, entry) SELECT place + 1, epoch, 2, entry FROM entries"

    def between(statement: str) -> None:
        if statement.lstrip().startswith("SELECT") and "ORDER BY place" in statement:
            reading.set_trace_callback(None)
            writing.execute(more)

    reading.set_trace_callback(between)
    page = queries.read(reading, "s", 0)
    assert (page.info.tail, [batch.last for batch in page.batches]) == (1, [1])
    assert writing.execute("SELECT count(*) FROM entries").fetchone() == (2,)
    reading.close()
    writing.close()
