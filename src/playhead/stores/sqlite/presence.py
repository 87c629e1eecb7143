"""This process instance, as other processes see it.

    a row   in ``instances``: its lease, which runs out unless it is renewed
    a file  <database>-instances/<instance id>, locked (flock) for as long as the process lives: the operating
            system takes the lock back however it ends. Who can lock it, or does not find it, has proof of death.

The file is there and locked before the row is. On systems without flock only a missing file proves anything.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from playhead.errors import StoreUnavailable
from playhead.stores.sqlite.faults import named
from playhead.stores.sqlite.rows import column
from playhead.stores.sqlite.schema import Database

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_RENEW = """
    INSERT INTO instances (id, expires_at) VALUES (?, ?)
    ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at"""


class Presence:
    """The lease and the locked file of one instance. Thread-safe."""

    def __init__(self, database: Database, instance_id: str, lease_s: float, clock: Callable[[], float]) -> None:
        self.instance_id = instance_id
        self._database = database
        self._directory = database.path.with_name(database.path.name + "-instances")
        self._lease_s = lease_s
        self._clock = clock
        self._guard = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: int | None = None

    def begin(self) -> None:
        """Lock the file, then make the row. Raises: OSError, sqlite3.Error."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for name in os.listdir(self._directory):
            self.is_dead(name)  # clears away what instances without a row left behind
        with self._guard:
            self._file = self._locked_file()
            # A lease need not outlive a power cut
            self._connection = self._database.connect(synchronous="normal")
            self._write_row()

    def renew(self) -> None:
        """Raises: StoreError."""
        with self._guard:
            if self._connection is None or self._file is None:
                raise StoreUnavailable("the store is closed")
            try:
                if not _is_at(self._file, self._path(self.instance_id)):
                    self._directory.mkdir(mode=0o700, exist_ok=True)  # somebody cleared it away
                    lost, self._file = self._file, self._locked_file()
                    os.close(lost)
                self._write_row()
            except (sqlite3.Error, OSError) as error:
                raise named(error, self._database.path) from error

    def end(self) -> None:
        """Say goodbye. What fails here is made good by time: the lease runs out, the lock ends with the process."""
        with self._guard:
            if self._connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("DELETE FROM instances WHERE id = ?", (self.instance_id,))
                self._connection.close()
                self._connection = None
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path(self.instance_id))
                os.close(self._file)
                self._file = None

    def is_dead(self, instance_id: str) -> bool:
        """Whether it is certain that another instance has ended; then its file is removed."""
        if instance_id == self.instance_id:
            return False
        if not instance_id.isalnum():
            return True  # no store ever made such a name
        path = self._path(instance_id)
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # nothing is known
        try:
            # Shared, so that two who look at once do not take each other for the living
            if fcntl is None or not _lock(file, fcntl.LOCK_SH):
                return False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return True
        finally:
            os.close(file)

    def _write_row(self) -> None:
        assert self._connection is not None
        self._connection.execute(_RENEW, (column(self.instance_id), self._clock() + self._lease_s))

    def _locked_file(self) -> int:
        path = self._path(self.instance_id)
        while True:
            file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            # Between the two lines above and below somebody may have taken it for a leftover
            if fcntl is None or (_lock(file, fcntl.LOCK_EX) and _is_at(file, path)):
                return file
            os.close(file)

    def _path(self, instance_id: str) -> Path:
        return self._directory / instance_id


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
