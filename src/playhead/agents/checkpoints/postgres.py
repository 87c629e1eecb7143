"""Checkpoints in PostgreSQL: LangGraph's `AsyncPostgresSaver` with the fence, on a small pool of connections.

Tables are LangGraph's: ``checkpoints`` (thread_id, checkpoint_ns, checkpoint_id, …), ``checkpoint_blobs`` (…, channel,
version: the values that checkpoints point to), ``checkpoint_writes`` (…, checkpoint_id, task_id, idx), and
``checkpoint_migrations``. Whoever writes to a thread holds its advisory lock until the commit, so that the look at the
newest checkpoint and what is stored on top of it are one step, and nothing slips in behind a deletion.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from playhead.errors import InvalidSetting, StoreUnavailable

from .fence import FencedSaver, refuse_stale

POOL_MAX_CONNECTIONS = 5
CONNECT_TIMEOUT_S = 10
PREPARE_TIMEOUT_S = 60.0
PREPARE_RETRY_S = 0.05

_DEFAULTS: dict[str, Any] = {
    "application_name": "playhead",
    "connect_timeout": CONNECT_TIMEOUT_S,
    # A server that is gone without a word is noticed in a minute, not in two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('playhead checkpoints of ' || %s, 0))"
_TRY_PREPARE = "SELECT pg_try_advisory_lock(hashtextextended('playhead checkpoints', 0)) AS mine"
_PREPARED = "SELECT pg_advisory_unlock(hashtextextended('playhead checkpoints', 0))"

_NEWEST = "SELECT max(checkpoint_id) AS newest FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = %s"
_IS_THERE = "SELECT true FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id = %s"
_FORGET = (
    "DELETE FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id < %s",
    "DELETE FROM checkpoint_writes WHERE thread_id = %s AND checkpoint_ns = %s AND checkpoint_id < %s",
)
_FORGET_BLOBS = """
DELETE FROM checkpoint_blobs AS blob
WHERE thread_id = %s AND checkpoint_ns = %s AND NOT EXISTS (
    SELECT 1 FROM checkpoints AS kept
    WHERE kept.thread_id = blob.thread_id AND kept.checkpoint_ns = blob.checkpoint_ns
      AND kept.checkpoint -> 'channel_versions' ->> blob.channel = blob.version
)
"""
"""Values that no checkpoint points to any more."""

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]


class FencedPostgresSaver(FencedSaver, AsyncPostgresSaver):
    """`AsyncPostgresSaver` whose checkpoints form one short line per thread: no two have the same parent."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._pool = pool

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read a checkpoint, a thread's newest by default."""

        async def read() -> CheckpointTuple | None:
            async with self._pool.connection() as connection:
                return await self._on(connection).aget_tuple(config)

        return await self._carry_out(read())

    async def _store(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> None:
        where = config["configurable"]
        line = (where["thread_id"], where["checkpoint_ns"])
        async with self._alone(where["thread_id"]) as connection:
            newest: str | None = await _first(connection, _NEWEST, line)
            refuse_stale(config, checkpoint, newest)
            async with connection.pipeline():
                for forget in _FORGET:
                    await connection.execute(forget, (*line, newest))
                await connection.execute(_FORGET_BLOBS, line)
                await self._on(connection).aput(config, checkpoint, metadata, versions)

    async def _store_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        where = config["configurable"]
        owner = (where["thread_id"], where["checkpoint_ns"], where["checkpoint_id"])
        async with self._alone(where["thread_id"]) as connection:
            if await _first(connection, _IS_THERE, owner):
                await self._on(connection).aput_writes(config, writes, task_id, task_path)

    async def _delete(self, thread_id: str) -> None:
        async with self._alone(thread_id) as connection:
            await self._on(connection).adelete_thread(thread_id)

    @asynccontextmanager
    async def _alone(self, thread_id: str) -> AsyncIterator[Connection]:
        """A transaction in which nobody else writes to the thread."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_LOCK, (thread_id,))
            yield connection

    def _on(self, connection: Connection) -> AsyncPostgresSaver:
        """LangGraph's saver on one connection: by itself it does one thing at a time, however large its pool is."""
        return AsyncPostgresSaver(connection, serde=self.serde)


@asynccontextmanager
async def open_postgres(url: str) -> AsyncIterator[FencedPostgresSaver]:
    """Open the checkpoints in a database, and make their tables. Raises: InvalidSetting, StoreUnavailable."""
    try:
        options = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.ProgrammingError:
        # Neither the text nor the driver's error: both may hold a password.
        raise InvalidSetting(
            "the URL of the database is none that PostgreSQL understands", setting="database"
        ) from None
    options |= {"autocommit": True, "row_factory": dict_row}
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT_S):
            await _prepare(options)
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise _cannot_open(options, error) from error
    pool: Pool = AsyncConnectionPool(
        kwargs=options,
        min_size=1,
        max_size=POOL_MAX_CONNECTIONS,
        open=False,
        timeout=CONNECT_TIMEOUT_S,
        configure=_configure,
        check=AsyncConnectionPool.check_connection,
    )
    async with pool:
        saver = FencedPostgresSaver(pool)
        try:
            yield saver
        finally:
            await saver.finish()


async def _configure(connection: Connection) -> None:
    """The fence looks after it has the lock; a snapshot taken while it waited would not show the newest checkpoint."""
    await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)


async def _prepare(options: dict[str, Any]) -> None:
    """Make LangGraph's tables, one process at a time."""
    connection: Connection
    async with await AsyncConnection.connect(**options) as connection:
        # Not a lock that is waited for: whoever waits in a statement has a snapshot, and LangGraph's CREATE INDEX
        # CONCURRENTLY waits for all of those.
        while not await _first(connection, _TRY_PREPARE):  # noqa: ASYNC110 - the other one is another process
            await asyncio.sleep(PREPARE_RETRY_S)
        await AsyncPostgresSaver(connection).setup()
        await connection.execute(_PREPARED)


async def _first(connection: Connection, query: LiteralString, values: Sequence[str] = ()) -> Any:
    row = await (await connection.execute(query, values)).fetchone()
    return next(iter(row.values())) if row else None


def _cannot_open(options: dict[str, Any], error: Exception) -> StoreUnavailable:
    place = f"{options.get('host', 'localhost')}:{options.get('port', 5432)}/{options.get('dbname', '')}"
    why = (str(error).strip() or "it does not answer").splitlines()[0]
    return StoreUnavailable(f"the agent's checkpoints in PostgreSQL at {place} cannot be opened: {why}")
