"""Where the graph keeps its state: LangGraph's SQLite checkpointer, with a fence.

Two server processes may share one file. LangGraph reads a thread's newest checkpoint, runs, and writes a newer one;
it never looks whether somebody else wrote in between. A process that was suspended in mid-answer, lost its stream and
woke up again would then bury the turns that followed. So each checkpoint is written only on top of the newest one
(compare and set, in one SQLite transaction); a writer that comes too late gets `StaleCheckpoint`.

Each checkpoint holds the whole thread, so keeping them all would grow with the square of its length. Nothing here
goes back in time: the newest and its parent stay, older ones are deleted as they are succeeded.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

BUSY_TIMEOUT_S = 10.0
_NEWEST = "SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?"
_FORGET = (
    "DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?",
    "DELETE FROM writes WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id < ?",
)


class StaleCheckpoint(RuntimeError):
    """Somebody else moved the thread on since this run read it; what it would write is refused."""


class FencedSqliteSaver(AsyncSqliteSaver):
    """`AsyncSqliteSaver` whose checkpoints form one short line per thread: no two have the same parent."""

    def __init__(self, conn: aiosqlite.Connection) -> None:
        super().__init__(conn)
        # One connection is one transaction: nobody may write between the look and the commit.
        self._writing = asyncio.Lock()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint if its parent is still the thread's newest.

        Raises:
            StaleCheckpoint: It is not; nothing was stored.
        """
        where = config["configurable"]
        line = (where["thread_id"], where["checkpoint_ns"])
        async with self._transaction():
            await self.conn.execute("BEGIN IMMEDIATE")
            async with self.conn.execute(_NEWEST, line) as rows:
                [newest] = [row[0] async for row in rows]
            if newest not in (where.get("checkpoint_id"), checkpoint["id"]):
                raise StaleCheckpoint(f"thread {where['thread_id']} has moved on to checkpoint {newest}")
            for forget in _FORGET:
                await self.conn.execute(forget, (*line, newest))
            return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task of a checkpoint wrote; needs no fence, since it belongs to that checkpoint only."""
        async with self._transaction():
            await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread; a run that is still under way in it can write no more."""
        async with self._transaction():
            await super().adelete_thread(thread_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """Write alone on the connection; a write that was cancelled half-way leaves no open transaction."""
        async with self._writing:
            try:
                yield
            except BaseException:
                await self.conn.rollback()
                raise


@asynccontextmanager
async def open_checkpoints(path: str | Path) -> AsyncIterator[FencedSqliteSaver]:
    """Open (and, if need be, make) a checkpoint file; several processes may have it open."""
    if str(path) != ":memory:" and not Path(path).exists():  # noqa: ASYNC240 - one look, at start
        # Private, as is what SQLite puts beside it: the file holds every conversation. Only a file that is not there:
        # closing a descriptor drops the locks that this process has on a file.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    # Opened here: where aiosqlite's own thread fails to open a file it goes on talking to a loop that may be gone.
    file = await asyncio.to_thread(sqlite3.connect, path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    async with aiosqlite.Connection(lambda: file, iter_chunk_size=64) as connection:
        saver = FencedSqliteSaver(connection)
        await saver.setup()  # this also switches the file to WAL
        yield saver
