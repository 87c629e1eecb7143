"""A Redis of the benchmarks' own, on a free loopback port."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent.parent
sys.path.append(str(HERE / "tests"))  # the server of the tests is the server of the benchmarks

from redis_server import RedisServer  # noqa: E402


@contextmanager
def running_redis(*args: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), args=args)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def role(module: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """``python -m <module> <words>`` as a process with pipes; ended by its pid."""
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
