"""Where the agent's tests keep checkpoints: a SQLite file, or PostgreSQL."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres_server import database, postgres  # noqa: F401 - fixtures


def _rows(place: str, thread_id: str | None) -> dict[str, int]:
    if "://" in place:
        with psycopg.connect(place) as connection:
            tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
            return {table: _count(connection, table, thread_id) for table in tables}
    with closing(sqlite3.connect(place)) as file:
        return {table: _count(file, table, thread_id) for table in ("checkpoints", "writes")}


def _count(connection: Any, table: str, thread_id: str | None) -> int:
    where = "" if thread_id is None else f" WHERE thread_id = '{thread_id}'"
    return int(connection.execute(f"SELECT count(*) FROM {table}{where}").fetchone()[0])


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for checkpoints, as `open_checkpoints` takes it."""
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    return str(tmp_path / "checkpoints.sqlite")


@pytest.fixture
def count_rows(place: str) -> Callable[..., dict[str, int]]:
    """Count the rows of each of the agent's tables, of one thread or of all."""
    return lambda thread_id=None: _rows(place, thread_id)
