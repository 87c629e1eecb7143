"""Moves what is in the write-ahead log into the database file, while commits go on.

A passive checkpoint holds up nobody, and when it has caught up the next commit starts the log from its beginning
again. Under unbroken load it never quite catches up: then, once the log is past its limit, a checkpoint that holds
commits back for the few pages that are left makes the log start again. It waits for readers, but not long. A disk
that cannot keep up slows the writer down, or the log would outgrow it.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading

from playhead.stores.sqlite.faults import named
from playhead.stores.sqlite.schema import WAL_LIMIT_BYTES, Database
from playhead.stores.sqlite.worker import Worker

_RESTART_WAIT_S = 0.02
_BEHIND_MAX = 4  # checkpoints asked for and not taken yet
_BEHIND_WAIT_S = 1.0
_logger = logging.getLogger("playhead.stores.sqlite")


class Checkpointer(Worker[bool]):
    """Any item in its queue asks for a checkpoint."""

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        super().__init__("checkpointer", loop)
        self._database = database
        self._room = threading.Semaphore(_BEHIND_MAX)

    def ask(self) -> None:
        """Called by the writer's thread. Returns at once, unless too much waits already."""
        if self._room.acquire(timeout=_BEHIND_WAIT_S):
            self.queue.put(True)

    def _set_up(self) -> None:
        try:
            self._connection = self._database.connect(busy_timeout_s=_RESTART_WAIT_S)
            self._page_bytes: int = self._connection.execute("PRAGMA page_size").fetchone()[0]
        except sqlite3.Error as error:
            raise named(error, self._database.path) from error

    def _serve(self) -> None:
        while self.queue.get():
            try:
                if self._checkpoint("PASSIVE") > WAL_LIMIT_BYTES:
                    self._checkpoint("RESTART")
            except sqlite3.Error:
                # Nothing is lost: it is all in the log, and the next one tries again
                _logger.warning("checkpoint of %s failed", self._database.path.name, exc_info=True)
            finally:
                self._room.release()

    def _checkpoint(self, mode: str) -> int:
        """Bytes in the log."""
        _, log_pages, _ = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return int(log_pages) * self._page_bytes

    def _tear_down(self) -> None:
        if not hasattr(self, "_connection"):
            return
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("TRUNCATE")  # leave little behind; the next to open does it otherwise
        self._connection.close()
