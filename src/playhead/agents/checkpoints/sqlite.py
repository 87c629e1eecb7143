"""Checkpoints in a SQLite file: LangGraph's `SqliteSaver` with the fence, in a thread of its own.

Tables are LangGraph's: ``checkpoints`` (thread_id, checkpoint_ns, checkpoint_id, …), ``writes`` (… , task_id, idx, …).
Each operation is one call of that thread. LangGraph's saver for asyncio hands over each statement by itself instead,
which makes it several times as slow and can be cut off between two of them.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.sqlite import SqliteSaver

from playhead.errors import StoreUnavailable

from .fence import FencedSaver, refuse_stale

BUSY_TIMEOUT_S = 10.0

_NEWEST = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?"
_IS_THERE = "SELECT 1 FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"
_FORGET = (
    "DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?",
    "DELETE FROM writes WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?",
)

T = TypeVar("T")


class FencedSqliteSaver(FencedSaver, SqliteSaver):
    """`SqliteSaver` whose checkpoints form one short line per thread: no two have the same parent."""

    def __init__(self, conn: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        super().__init__(conn)
        self._thread = thread

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint, a thread's newest by default."""
        return await self._in_thread(lambda: self.get_tuple(config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Read checkpoints, newest first."""
        found = await self._in_thread(lambda: list(self.list(config, filter=filter, before=before, limit=limit)))
        for one in found:
            yield one

    async def _store(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> None:
        where = config["configurable"]
        line = (where["thread_id"], where["checkpoint_ns"])

        def store() -> None:
            with self._transaction():
                [newest] = self.conn.execute(_NEWEST, line).fetchone()
                refuse_stale(config, checkpoint, newest)
                for forget in _FORGET:
                    self.conn.execute(forget, (*line, newest))
                self.put(config, checkpoint, metadata, versions)

        await self._in_thread(store)

    async def _store_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        where = config["configurable"]
        owner = (where["thread_id"], where["checkpoint_ns"], where["checkpoint_id"])

        def store() -> None:
            with self._transaction():
                if self.conn.execute(_IS_THERE, owner).fetchone():
                    self.put_writes(config, writes, task_id, task_path)

        await self._in_thread(store)

    async def _delete(self, thread_id: str) -> None:
        def delete() -> None:
            with self._transaction():
                self.delete_thread(thread_id)

        await self._in_thread(delete)

    async def _in_thread(self, operation: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, operation)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write alone on the file. LangGraph's methods commit; what did not is rolled back."""
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            self.conn.rollback()


@asynccontextmanager
async def open_sqlite(path: str | Path) -> AsyncIterator[FencedSqliteSaver]:
    """Open (and, if need be, make) a checkpoint file. Raises: StoreUnavailable."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1, thread_name_prefix="playhead checkpoints") as thread:
        saver = await loop.run_in_executor(thread, _open_saver, path, thread)
        try:
            yield saver
        finally:
            await saver.finish()
            await loop.run_in_executor(thread, saver.conn.close)


def _open_saver(path: str | Path, thread: ThreadPoolExecutor) -> FencedSqliteSaver:
    try:
        if str(path) != ":memory:" and not Path(path).exists():
            # Private, as is what SQLite puts beside it: the file holds every conversation. Only a file that is not
            # there: closing a descriptor drops the locks that this process has on a file.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        saver = FencedSqliteSaver(connection, thread)
        try:
            # Also switches the file to WAL. Now, since it commits: done by the first operation, it would end that
            # one's transaction between the look and the write.
            saver.setup()
        except sqlite3.Error:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(
            f"the agent's file {path} cannot be opened: {error}; it must be a SQLite database that this user may write,"
            " as must be its directory"
        ) from error
    return saver
