"""The SQL database of threads: opening, migrating, one transaction at a time per connection, errors in plain words.

Each operation is a task of its own, so that a caller who is cancelled never leaves a connection in the middle of a
command (P10). SQLite: WAL, ``BEGIN IMMEDIATE`` for what writes, so that two processes wait for each other instead of
failing. PostgreSQL: a small pool.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from playhead.conversations.schema import HEAD
from playhead.conversations.threads import Threads
from playhead.errors import InvalidSetting, PlayheadError, StoreError, StoreUnavailable, StoreVersionUnsupported
from playhead.stores.sqlite.faults import named

POOL_CONNECTIONS = 5
BUSY_TIMEOUT_MS = 10_000
OPERATION_MAX_S = 30.0
CONNECT_MAX_S = 10
VERSION_TABLE = "playhead_threads_version"
_MIGRATION_LOCK = 0x706C_6179_6865_6164
T = TypeVar("T")


class Database:
    """One engine, and the way every operation takes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.dialect = engine.dialect.name
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._under_way: set[asyncio.Task[Any]] = set()

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do something in one transaction; carried out even when the caller is cancelled. Raises: StoreError."""
        return await self._carried_out(self._in_transaction(work))

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Ask one question; each statement sees what was committed before it. Raises: StoreError."""
        return await self._carried_out(self._asking(work))

    async def _in_transaction(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.begin() as connection:
            return await work(connection)

    async def _asking(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._reading.connect() as connection:
            return await work(connection)

    async def _carried_out(self, operation: Awaitable[T]) -> T:
        task = asyncio.ensure_future(self._bounded(operation))
        self._under_way.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def _bounded(self, operation: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(OPERATION_MAX_S):
                return await operation
        except (SQLAlchemyError, OSError) as error:
            raise in_words(error, self._engine.url) from error

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the caller got it, or has gone

    async def close(self) -> None:
        """Wait for what is under way, then give the connections back."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=OPERATION_MAX_S)
        await self._engine.dispose()


@asynccontextmanager
async def open_threads(url: str) -> AsyncIterator[Threads]:
    """Open the database of a URL, migrated to the newest version, for as long as the context lasts.

    Args:
        url: ``sqlite:///path``, ``sqlite://`` (in memory), ``postgresql://user:password@host:port/database``.
    Raises: InvalidSetting (no such kind of database), StoreError (it cannot be used, and why).
    """
    parsed = parse(url)
    if parsed.get_backend_name() == "sqlite":
        await asyncio.to_thread(_check_file, parsed)
    database = Database(_engine(parsed))
    try:
        await database.write(lambda connection: connection.run_sync(_migrate))
        yield Threads(database)
    finally:
        await asyncio.shield(asyncio.ensure_future(database.close()))


def parse(url: str) -> URL:
    """The URL with the driver that is used here. Raises: InvalidSetting."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        kind, _, driver = parsed.drivername.partition("+")
    except (ArgumentError, ValueError):
        kind, driver, parsed = "", "", URL.create("none")
    if kind == "sqlite" and driver in ("", "aiosqlite"):
        return parsed.set(drivername="sqlite+aiosqlite")
    if kind == "postgresql" and driver in ("", "psycopg", "asyncpg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise InvalidSetting(
        "the database of threads is sqlite:///path/to/file.db or postgresql://user:password@host:port/database"
        f" (PLAYHEAD_DATABASE), not {parsed.drivername if kind else 'this text'}",
        setting="database",
    )


def is_postgresql(url: str) -> bool:
    """Whether a database URL means PostgreSQL. Raises: InvalidSetting."""
    return parse(url).get_backend_name() == "postgresql"


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        return create_async_engine(
            url,
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=OPERATION_MAX_S,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_MAX_S},
        )
    # In memory there is one connection, and it is the database.
    size = 1 if not url.database else POOL_CONNECTIONS
    engine = create_async_engine(
        url, pool_size=size, max_overflow=0, pool_timeout=OPERATION_MAX_S, poolclass=AsyncAdaptedQueuePool
    )
    _prepare_sqlite(engine)
    return engine


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin when we say so, not when the driver guesses
        cursor = connection.cursor()
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "journal_mode = WAL", "synchronous = NORMAL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check_file(url: URL) -> None:
    """Make the file, private, or find out why it cannot be used, before threads and pools are in between."""
    if not url.database or url.database == ":memory:":
        return
    path = Path(url.database)
    try:
        # Only a file that is not there: closing a descriptor drops the locks that this process has on a file.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1_000)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise named(error, path) from error


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest version; of several processes one does it, the others wait."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    found = None
    if connection.dialect.has_table(connection, VERSION_TABLE):
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if found == HEAD:
        return
    # Imported here: a database that is ready need not wait for it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreVersionUnsupported(
            f"the database of threads was written by a newer Playhead (version {found}, known up to {HEAD});"
            " use that one, or another database",
            found=found,
            supported=HEAD,
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def in_words(error: Exception, url: URL) -> PlayheadError:
    """What went wrong with the database, for people; never with its password."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if url.get_backend_name() == "sqlite" and isinstance(cause, sqlite3.Error | OSError):
        return named(cause, Path(url.database or "the database of threads"))
    where = url.set(username=None, password=None, drivername="postgresql", query={}).render_as_string()
    if isinstance(error, PoolTimeout):
        return StoreUnavailable(f"all connections to {where} are in use")
    if isinstance(error, DBAPIError) and not error.connection_invalidated and not _is_connection_trouble(error):
        return StoreError(f"{where} refused what it was asked: {type(cause).__name__}")
    reason = " ".join(str(cause).split()) or type(cause).__name__
    return StoreUnavailable(f"the database of threads at {where} cannot be used: {reason}")


def _is_connection_trouble(error: DBAPIError) -> bool:
    return type(error).__name__ in ("OperationalError", "InterfaceError")
