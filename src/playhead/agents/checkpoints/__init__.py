"""Where the graph keeps its state: LangGraph's own checkpointers on SQLite and PostgreSQL, behind one fence (`fence`).

Checkpoints are the agent's working memory, not a thread's history: what the model is sent next.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playhead.errors import InvalidSetting

from .fence import FencedSaver, StaleCheckpoint
from .sqlite import FencedSqliteSaver, open_sqlite

__all__ = ["FencedSaver", "FencedSqliteSaver", "StaleCheckpoint", "open_checkpoints"]

_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


@asynccontextmanager
async def open_checkpoints(where: str | Path) -> AsyncIterator[FencedSaver]:
    """Open (and, if need be, make) the place of the checkpoints; several processes may have it open.

    Args:
        where: A file, ``:memory:``, or the URL of a PostgreSQL database (``postgresql://``, ``postgres://``,
            ``postgresql+psycopg://``).

    Raises:
        InvalidSetting: No such place can be meant.
        StoreUnavailable: It cannot be opened; the message says in one line what and why.
    """
    scheme, separator, rest = str(where).partition("://")
    if isinstance(where, Path) or not separator:
        async with open_sqlite(where) as saver:
            yield saver
    elif scheme in _POSTGRES:
        try:
            from .postgres import open_postgres
        except ImportError as error:
            raise InvalidSetting(
                f"checkpoints in PostgreSQL need the extra `postgres` (pip install 'playhead[postgres]'): {error}",
                setting="database",
            ) from error
        async with open_postgres(f"postgresql://{rest}") as saver:
            yield saver
    else:
        raise InvalidSetting(
            f"checkpoints are kept in a file or in PostgreSQL (postgresql://…), not in {scheme}://", setting="database"
        )
