"""The database file, version 1: what is in it and how a connection to it is made.

    streams      one row per stream that is not forgotten
      no           order of creation, from 1, never used twice
      version      raised by every command that changes the row: how other processes notice
      state        the StreamInfo as JSON, but for tail and size_bytes
      tail, size_bytes               as of the close; while live they are those of the newest entry
      id, thread_id, owner, status, producer, epoch, due_at, settled
                   copies out of ``state``, for queries; text as ``rows.column`` writes it
      request      '[owner, idempotency key]', NULL without a key

    entries      one row per stored batch
      seq          order of storing: appends of all streams go to the end of one B-tree
      place        no << 32 | last offset: "after offset n" is one range of this index
      epoch        the batch was appended under
      total_bytes  data bytes of the stream up to and including this entry
      entry        the batch, see ``playhead.entry``

    instances    one row per process instance: (id, expires_at)
    garbage      ``no`` of streams whose entries are still to be deleted

Why entries are not keyed by their place: streams grow side by side, so each append would split pages in the
middle of the tree (measured with 100 streams: 3.6 times the bytes written, 2.6 times the time per commit).

``application_id`` marks the file as Playhead's; ``user_version`` is the version of this drawing.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from playhead.errors import StoreCorrupt, StoreUnavailable, StoreVersionUnsupported
from playhead.stores.sqlite.faults import is_locked

APPLICATION_ID = 0x706C6864  # "plhd"
VERSION = 1
OFFSET_BITS = 32
OFFSET_MAX = (1 << OFFSET_BITS) - 1
WAL_LIMIT_BYTES = 16 * 1024 * 1024
_CACHE_KIB = 16 * 1024
_RETRY_S = 0.001
_TABLES = (
    """
    CREATE TABLE streams (
        no INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        thread_id TEXT,
        owner TEXT,
        status TEXT NOT NULL,
        producer TEXT,
        epoch INTEGER NOT NULL,
        due_at REAL,
        settled INTEGER NOT NULL,
        request TEXT UNIQUE,
        tail INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        state TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX streams_live_thread ON streams (thread_id) WHERE status = 'live'",
    # status is in the key, constant as it is: the planner takes two equalities for more selective than one
    "CREATE INDEX streams_live_owner ON streams (status, owner) WHERE status = 'live'",
    "CREATE INDEX streams_live_producer ON streams (status, producer) WHERE status = 'live'",
    "CREATE INDEX streams_thread ON streams (thread_id) WHERE thread_id IS NOT NULL",
    "CREATE INDEX streams_owner ON streams (owner) WHERE owner IS NOT NULL",
    "CREATE INDEX streams_unsettled ON streams (no) WHERE settled = 0",
    "CREATE INDEX streams_due ON streams (due_at) WHERE due_at IS NOT NULL",
    """
    CREATE TABLE entries (
        seq INTEGER PRIMARY KEY,
        place INTEGER NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        total_bytes INTEGER NOT NULL,
        entry BLOB NOT NULL
    )""",
    "CREATE TABLE instances (id TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE garbage (no INTEGER PRIMARY KEY)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
T = TypeVar("T")
# Closing any descriptor of a file drops the POSIX locks that SQLite holds on it in this process: so the file is
# made and closed before any thread of this process may connect to it.
_making = threading.Lock()


@dataclass(frozen=True, slots=True)
class Database:
    """Where the file is and how connections to it behave."""

    path: Path
    synchronous: Literal["normal", "full"]
    busy_timeout_s: float

    def connect(self, *, synchronous: str | None = None, busy_timeout_s: float | None = None) -> sqlite3.Connection:
        """A connection, usable by one thread at a time. Raises: sqlite3.Error."""
        timeout_s = self.busy_timeout_s if busy_timeout_s is None else busy_timeout_s
        connection = sqlite3.connect(self.path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA synchronous = {synchronous or self.synchronous}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # the checkpointer's work
            connection.execute("PRAGMA secure_delete = FAST")  # wipe what is deleted where that costs no extra write
        except BaseException:
            connection.close()
            raise
        return connection

    def patiently(self, attempt: Callable[[], T]) -> T:
        """What the attempt returns once no lock of others is in its way. Raises: sqlite3.Error after the timeout."""
        deadline_s = time.monotonic() + self.busy_timeout_s
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if not is_locked(error) or time.monotonic() >= deadline_s:
                    raise
            time.sleep(_RETRY_S)

    def prepare(self) -> None:
        """Make the file, readable by this user only, and its tables, where they are missing.

        Any number of processes may do so at once.
        Raises: OSError, sqlite3.Error, StoreUnavailable, StoreCorrupt, StoreVersionUnsupported.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _making:
            if not self.path.exists():
                self._make_file()
        connection = self.connect()
        try:
            self._look(connection)
            self._use_wal(connection)
            self._make_tables(connection)
        finally:
            connection.close()

    def _make_file(self) -> None:
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return  # another process was faster

    def _look(self, connection: sqlite3.Connection) -> int:
        """``_check`` of one moment: another process may be making the tables just now."""
        connection.execute("BEGIN")
        try:
            return self._check(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _check(self, connection: sqlite3.Connection) -> int:
        """The version found, 0 for an empty database."""
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        mark: int = connection.execute("PRAGMA application_id").fetchone()[0]
        is_empty = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        if mark != APPLICATION_ID and not is_empty:
            raise StoreCorrupt(
                f"{self.path.name} is the database of another program; choose another path", file=self.path.name
            )
        if found > VERSION:
            raise StoreVersionUnsupported(
                f"{self.path.name} was written by a newer Playhead (its version is {found}, this one reads {VERSION});"
                " update Playhead",
                found=found,
                supported=VERSION,
            )
        return found

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait by itself here when another process opens the file at the same moment
        mode = self.patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        if mode != "wal":
            raise StoreUnavailable(
                f"the file system of {self.path.name} has no write-ahead log; use a local disk", file=self.path.name
            )

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        if self._look(connection) == VERSION:
            return
        connection.execute("BEGIN IMMEDIATE")
        if self._check(connection) < VERSION:
            for statement in _TABLES:
                connection.execute(statement)
        connection.execute("COMMIT")
