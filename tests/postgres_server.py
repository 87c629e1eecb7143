"""A PostgreSQL server of the test worker's own, on a socket in a directory of its own; a fresh database per test."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

START_S = 60.0
ASKED = "asked"
"""A role whose members are asked for their password; all others are let in."""
FIND = Path(__file__).parent.parent / "scripts" / "postgres"


def _binaries() -> Path:
    """Where initdb and postgres are; the tests fail with a clear line where they are not."""
    found = subprocess.run([FIND], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(found.stderr.strip())
    return Path(found.stdout.strip())


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server on a socket in a directory of its own; yields the URL up to the database's name."""
    binaries = _binaries()
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # as root it refuses to run
    directory = Path(tempfile.mkdtemp(prefix="playhead-pg-"))
    if user:
        account = pwd.getpwnam("postgres")
        os.chown(directory, account.pw_uid, account.pw_gid)
    data = directory / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "playhead", "-A", "trust", "-N", "-E", "UTF8"],
        check=True, capture_output=True, cwd=directory, **user,
    )  # fmt: skip
    rules = data / "pg_hba.conf"
    rules.write_text(f"local all +{ASKED} scram-sha-256\n" + rules.read_text())  # the first that matches counts
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off",
         "-c", "max_connections=300"],  # 20 servers and more share it
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory, **user,
    )  # fmt: skip
    try:
        _prepare(f"postgresql://playhead@/postgres?host={directory}", server)
        yield f"postgresql://playhead@/{{}}?host={directory}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(START_S)
        shutil.rmtree(directory)


def _prepare(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Wait until it answers, and make the role that all its databases share."""
    until = time.monotonic() + START_S
    while True:
        assert server.poll() is None, "PostgreSQL ended"
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"CREATE ROLE {ASKED}")
        except psycopg.OperationalError:
            assert time.monotonic() < until, "PostgreSQL does not answer"
            time.sleep(0.05)
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
