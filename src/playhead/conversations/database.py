"""The SQL database of threads: opening, migrating, one transaction per operation, errors in plain words.

SQLAlchemy's engines run in threads of their own here, each operation in one piece: a hand-over to a thread per
operation and not one per statement (a third of the CPU of its asyncio engine on SQLite), and a caller who is
cancelled never leaves a connection in the middle of a command (P10). SQLite: WAL, one thread writes, one reads, ``BEGIN
IMMEDIATE`` for what writes, so that two processes wait for each other instead of failing. PostgreSQL: a small pool.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool, StaticPool

from playhead.conversations.faults import in_words, no_answer
from playhead.conversations.schema import HEAD
from playhead.conversations.threads import Threads
from playhead.errors import InvalidSetting, StoreVersionUnsupported
from playhead.stores.sqlite.faults import named

POOL_CONNECTIONS = 5
BUSY_TIMEOUT_S = 10.0
OPERATION_MAX_S = 30.0
CONNECT_MAX_S = 10
VERSION_TABLE = "playhead_threads_version"
_MIGRATION_LOCK = 0x706C_6179_6865_6164
T = TypeVar("T")
Work = Callable[[Connection], T]


class Database:
    """One engine, and the way every operation takes."""

    def __init__(self, engine: Engine) -> None:
        self.dialect = engine.dialect.name
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        if self.dialect == "sqlite":
            self._writers = ThreadPoolExecutor(1, "playhead-threads-write")
            alone = isinstance(engine.pool, StaticPool)
            self._readers = self._writers if alone else ThreadPoolExecutor(1, "playhead-threads-read")
        else:
            self._writers = self._readers = ThreadPoolExecutor(POOL_CONNECTIONS, "playhead-threads")

    async def write(self, work: Work[T]) -> T:
        """Do something in one transaction; carried out even when the caller is cancelled. Raises: StoreError."""
        return await self._run(self._writers, self._in_transaction, work)

    async def read(self, work: Work[T]) -> T:
        """Ask one question; each statement sees what was committed before it. Raises: StoreError."""
        return await self._run(self._readers, self._asking, work)

    async def _run(self, threads: ThreadPoolExecutor, way: Callable[[Work[T]], T], work: Work[T]) -> T:
        try:
            async with asyncio.timeout(OPERATION_MAX_S):
                return await asyncio.shield(asyncio.get_running_loop().run_in_executor(threads, way, work))
        except TimeoutError as error:
            raise no_answer(self._engine.url, OPERATION_MAX_S) from error

    def _in_transaction(self, work: Work[T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise in_words(error, self._engine.url) from error

    def _asking(self, work: Work[T]) -> T:
        try:
            with self._reading.connect() as connection:
                return work(connection)
        except (SQLAlchemyError, OSError) as error:
            raise in_words(error, self._engine.url) from error

    def close(self) -> None:
        """Finish what was handed over, then give the connections back. Blocks."""
        self._readers.shutdown()
        self._writers.shutdown()
        self._engine.dispose()


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
        if await database.read(_version) != HEAD:
            # Imported here: a database that is ready need not wait for it. And before the lock is taken: whoever waits
            # for that gives up after a while.
            await asyncio.to_thread(import_module, "alembic.command")
            await database.write(_migrate)
        yield Threads(database)
    finally:
        await asyncio.shield(asyncio.to_thread(database.close))


def parse(url: str) -> URL:
    """The URL with the driver that is used here. Raises: InvalidSetting."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1))
        kind, _, driver = parsed.drivername.partition("+")
    except (ArgumentError, ValueError):
        kind, driver, parsed = "", "", URL.create("none")
    if kind == "sqlite" and driver in ("", "aiosqlite"):
        return parsed.set(drivername="sqlite+pysqlite")
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


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        most_ms = int(OPERATION_MAX_S * 1_000)
        theirs = str(url.query.get("options", ""))  # said last, so it counts
        limits = {"connect_timeout": CONNECT_MAX_S, "options": f"-c statement_timeout={most_ms} {theirs}"}
        # A server that is gone without a word: its connection ends, and with it the thread that waits for it.
        silence = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": most_ms}
        return create_engine(
            url,
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=OPERATION_MAX_S,
            pool_pre_ping=True,
            connect_args=limits | silence,
        )
    # In memory there is one connection, and it is the database.
    pool = QueuePool if _file_of(url) else StaticPool
    engine = create_engine(url, poolclass=pool, connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S})
    _prepare_sqlite(engine)
    return engine


def _file_of(url: URL) -> Path | None:
    return Path(url.database) if url.database and url.database != ":memory:" else None


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin when we say so, not when the driver guesses
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _check_file(url: URL) -> None:
    """Make the file, private, or find out why it cannot be used, before threads and pools are in between."""
    path = _file_of(url)
    if path is None:
        return
    try:
        # Only a file that is not there: closing a descriptor drops the locks that this process has on a file.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise named(error, path) from error


def _version(connection: Connection) -> str | None:
    """The version of the tables; None where there are none yet."""
    if not connection.dialect.has_table(connection, VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    return found


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest version; of several processes one does it, the others wait."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    found = _version(connection)
    if found == HEAD:
        return
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
