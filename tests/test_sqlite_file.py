"""The SQLite file: making and opening it, and the named error of everything that can be wrong with it."""

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlite_child import child

from playhead.errors import (
    InvalidSetting,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    StoreVersionUnsupported,
)
from playhead.log import Create
from playhead.model import Batch, Lease
from playhead.stores.sqlite import SQLiteStore, schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "on the way" / "streams.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, busy_timeout_s=0.2)
    await store.open()
    yield store
    await store.close()


async def _error_of_opening(path: Path) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await SQLiteStore(path, busy_timeout_s=0.2).open()
    assert path.name in str(raised.value)
    return raised.value


async def _create(store: SQLiteStore) -> Lease:
    return Lease("s", (await store.apply("s", Create(store.instance_id))).info.epoch)


async def _append(store: SQLiteStore, lease: Lease, first: int, data: bytes) -> None:
    await store.append(lease, Batch(first, lease.epoch, "text", [data]))


async def _make(path: Path) -> None:
    """A sound database with a stream in it, closed."""
    store = SQLiteStore(path)
    await store.open()
    lease = await _create(store)
    await asyncio.gather(*[_append(store, lease, n, b"x" * 10_000) for n in range(1, 101)])
    await store.close()


async def test_p12_the_file_is_private(store: SQLiteStore, path: Path) -> None:
    await _create(store)
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()}
    assert modes == {
        "streams.db": 0o600,
        "streams.db-wal": 0o600,
        "streams.db-shm": 0o600,
        "streams.db-instances": 0o700,
    }
    locked = path.with_name("streams.db-instances") / store.instance_id
    assert stat.S_IMODE(locked.stat().st_mode) == 0o600


async def test_closing_leaves_one_file_and_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    await _make(path)
    threads, files = _threads(), _open_files(tmp_path)
    for n in range(3):
        await _make(tmp_path / f"other.db {n}")
        store = SQLiteStore(path)
        await store.open()
        store.renew()
        assert await store.load("s")
        await store.close()
    assert (_threads(), _open_files(tmp_path)) == (threads, files)
    assert sorted(name for name in os.listdir(tmp_path) if "streams" in name) == ["streams.db", "streams.db-instances"]
    assert os.listdir(tmp_path / "streams.db-instances") == []


async def test_a_failed_opening_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database at all, but text" * 100)
    await _error_of_opening(tmp_path / "no.db")
    threads, files = _threads(), _open_files(tmp_path)
    for _ in range(3):
        await _error_of_opening(tmp_path / "no.db")
    assert (_threads(), _open_files(tmp_path)) == (threads, files)


async def test_a_cancelled_opening_leaves_nothing_open(tmp_path: Path, path: Path) -> None:
    await _make(path)
    threads, files = _threads(), _open_files(tmp_path)
    lock = _locked(path)
    opening = asyncio.create_task(SQLiteStore(path, busy_timeout_s=0.3).open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    lock.close()
    assert (_threads(), _open_files(tmp_path)) == (threads, files)


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
async def test_synchronous_is_set(path: Path, synchronous: str, level: int) -> None:
    store = SQLiteStore(path, synchronous=synchronous)
    await store.open()
    assert store._parts
    assert store._parts.writer.connection.execute("PRAGMA synchronous").fetchone() == (level,)
    assert store._parts.writer.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


def test_synchronous_is_one_of_two(path: Path) -> None:
    with pytest.raises(InvalidSetting):
        SQLiteStore(path, synchronous="off")  # type: ignore[arg-type]


async def test_four_processes_make_one_file_at_once(path: Path) -> None:
    script = """
async def main(path, name):
    say("ready")
    await hear()
    store = await opened(path)
    await store.append(await create(store, name), batch(1, b"x"))
    say("made")
    await hear()
    await store.close()
"""
    async with (
        child(script, path, "a") as a,
        child(script, path, "b") as b,
        child(script, path, "c") as c,
        child(script, path, "d") as d,
    ):
        children = [a, b, c, d]
        for each in children:
            assert await each.line() == "ready"
        for each in children:
            await each.tell()
        assert [await each.line() for each in children] == ["made"] * 4
        for each in children:
            await each.tell()
            await each.end()
    store = SQLiteStore(path)
    await store.open()
    assert [(await store.load(name)).tail for name in "abcd"] == [1, 1, 1, 1]
    await store.close()


# ---- what is wrong with a file -----------------------------------------------------------------------


async def test_a_directory(tmp_path: Path) -> None:
    error = await _error_of_opening(tmp_path)
    assert (type(error), error.retryable) == (StoreUnavailable, True)
    assert "is a directory" in str(error)


async def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert type(await _error_of_opening(tmp_path / "file" / "streams.db")) is StoreUnavailable


async def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1_000)
    error = await _error_of_opening(path)
    assert type(error) is StoreCorrupt
    assert isinstance(error.__cause__, sqlite3.DatabaseError)
    assert path.read_text() == "Dear diary, " * 1_000


async def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE streams (id)")
    other.close()
    before = path.read_bytes()
    assert type(await _error_of_opening(path)) is StoreCorrupt
    assert path.read_bytes() == before


async def test_a_truncated_database(path: Path) -> None:
    await _make(path)
    _halve(path)
    assert type(await _error_of_opening(path)) is StoreCorrupt


async def test_a_newer_version(path: Path) -> None:
    await _make(path)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    newer.close()
    error = await _error_of_opening(path)
    assert type(error) is StoreVersionUnsupported
    assert (error.found, error.supported) == (schema.VERSION + 1, schema.VERSION)


async def test_a_state_that_was_tampered_with(store: SQLiteStore, path: Path) -> None:
    await _create(store)
    tampered = sqlite3.connect(path)
    tampered.execute("UPDATE streams SET state = 'what?'")
    tampered.commit()
    tampered.close()
    with pytest.raises(StoreCorrupt):
        await store.load("s")
    with pytest.raises(StoreCorrupt):
        await _create(store)


async def test_locked_by_another_program(path: Path) -> None:
    await _make(path)
    lock = _locked(path)
    error = await _error_of_opening(path)
    assert (type(error), error.retryable) == (StoreLocked, True)
    lock.close()
    store = SQLiteStore(path)
    await store.open()
    await store.close()


async def test_a_lock_fails_appends_only_while_it_lasts(store: SQLiteStore, path: Path) -> None:
    lease = await _create(store)
    lock = _locked(path)
    with pytest.raises(StoreLocked) as locked:
        await _append(store, lease, 1, b"x")
    assert isinstance(locked.value.__cause__, sqlite3.OperationalError)
    assert (await store.read("s", 0)).batches == []  # readers are not held up
    lock.close()
    await _append(store, lease, 1, b"x")
    assert (await store.load("s")).tail == 1


async def test_a_database_that_may_not_grow(store: SQLiteStore) -> None:
    lease = await _create(store)
    assert store._parts
    connection = store._parts.writer.connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(StoreFull) as full:
        await _append(store, lease, 1, b"x" * 100_000)
    assert full.value.retryable
    await _append(store, lease, 1, b"small")
    connection.execute("PRAGMA max_page_count = 1000000")
    await _append(store, lease, 2, b"x" * 100_000)
    assert [batch.first for batch in (await store.read("s", 0)).batches] == [1, 2]


async def test_a_full_disk_fails_appends_until_there_is_room(path: Path) -> None:
    """The limit is the operating system's, on the size of files."""
    script = """
async def main(path):
    store = await opened(path)
    lease = await create(store, "s")
    await store.append(lease, batch(1, b"x"))
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, most))
    large = batch(2, b"y" * 1_000_000)
    for _ in range(2):
        try:
            await store.append(lease, large)
        except PlayheadError as error:
            say(type(error).__name__)
    say(len((await store.read("s", 0)).batches))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    await store.append(lease, large)
    say((await store.load("s")).size_bytes)
    await store.close()
"""
    async with child(script, path) as full:
        assert [await full.line() for _ in range(4)] == ["StoreFull", "StoreFull", "1", "1000001"]
        await full.end()


@pytest.fixture
def shown() -> Iterator[Path]:
    """A directory that every user may look into, unlike pytest's."""
    directory = Path(tempfile.mkdtemp())
    yield directory
    directory.chmod(0o700)
    shutil.rmtree(directory)


@pytest.mark.parametrize("existing", [True, False])
async def test_read_only(shown: Path, existing: bool) -> None:
    path = shown / "streams.db"
    if existing:
        await _make(path)
        os.chmod(path, 0o444)
    os.chmod(shown, 0o555)
    script = """
async def main(path):
    if os.getuid() == 0:  # whom no permission stops
        os.setgid(65534)
        os.setuid(65534)
    try:
        await opened(path, busy_timeout_s=0.2)
    except PlayheadError as error:
        say(type(error).__name__)
        say(error)
"""
    async with child(script, path) as reader:
        assert await reader.line() == "StoreReadOnly"
        assert "streams.db" in await reader.line()
        await reader.end()


# ---- tools -------------------------------------------------------------------------------------------


def _locked(path: Path) -> sqlite3.Connection:
    """Another program in the middle of a write; closing it ends that."""
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    return lock


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _threads() -> set[threading.Thread]:
    """The threads of stores: those of other libraries end when they like."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("playhead-sqlite")}


def _open_files(folder: Path) -> list[str]:
    """What the open descriptors of this process are open on, in this folder: other tests may have left some to gc."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue  # the one that listed them
    return sorted(name for name in found if str(folder) in name)


def test_a_file_that_another_process_is_just_making_is_not_another_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = (schema.Database(tmp_path / "new.db", "normal", busy_timeout_s=0.0) for _ in range(2))
    connect = schema.Database.connect
    met: list[str] = []

    def traced(database: schema.Database, **settings: Any) -> sqlite3.Connection:
        connection = connect(database, **settings)
        if database is mine and not met:
            connection.set_trace_callback(meanwhile)
        return connection

    def meanwhile(statement: str) -> None:
        """Between two of its questions."""
        if "sqlite_master" in statement and not met:
            met.append(statement)
            with suppress(sqlite3.OperationalError):
                others.prepare()

    monkeypatch.setattr(schema.Database, "connect", traced)
    mine.prepare()
    others.prepare()
    assert met
