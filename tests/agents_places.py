"""Where the agent's tests keep checkpoints: a SQLite file, and a PostgreSQL server of the test worker's own."""

import asyncio
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

START_S = 30.0


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server on a socket in a directory of its own; yields the URL up to the database's name."""
    binaries = [shutil.which("initdb"), shutil.which("postgres")]
    if not all(binaries):
        pytest.fail("these tests need PostgreSQL: initdb and postgres are not on PATH")
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # as root it refuses to run
    directory = Path(tempfile.mkdtemp(prefix="playhead-pg-"))
    if user:
        account = pwd.getpwnam("postgres")
        os.chown(directory, account.pw_uid, account.pw_gid)
    data = directory / "data"
    subprocess.run(
        [binaries[0], "-D", data, "-U", "playhead", "-A", "trust", "-N", "-E", "UTF8"],
        check=True, capture_output=True, cwd=directory, **user,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries[1], "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory, **user,
    )  # fmt: skip
    try:
        asyncio.run(_answering(f"postgresql://playhead@/postgres?host={directory}", server))
        yield f"postgresql://playhead@/{{}}?host={directory}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(START_S)
        shutil.rmtree(directory)


async def _answering(url: str, server: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(START_S):
        while True:
            assert server.poll() is None, "PostgreSQL ended"
            try:
                await (await psycopg.AsyncConnection.connect(url)).close()
            except psycopg.OperationalError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(postgres: str) -> str:
    """The URL of a fresh database."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.format(name)


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
