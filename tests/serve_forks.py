"""Many ``playhead serve`` processes in little time: forked from one process that has imported everything already.

Each runs the command's own ``main``, in a directory and an environment of its own, and is killed, frozen and thawed
like any other process. Run as a program this file is the one that forks: a line of JSON on standard input is an order,
the new process's id on standard output the answer; at the end of its input it ends what it has forked.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn, Self

START_S = 120.0
LOG = "serve.log"
IMPORTED = (
    *("playhead.cli", "playhead.cli.serve", "playhead.server.serve", "playhead.stores.redis", "uvloop", "httptools"),
    *("playhead.agents.checkpoints.postgres", "playhead.conversations.database", "psycopg", "alembic.command"),
)


class Instance:
    """One server; what it prints is in a file in its directory."""

    def __init__(self, pid: int, directory: Path) -> None:
        self.pid = pid
        self.directory = directory
        self.url = ""

    @property
    def output(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / LOG).read_text()
        return ""

    def wait(self) -> Self:
        """Until it takes requests."""
        until = time.monotonic() + START_S
        while "\n  access " not in self.output:
            assert time.monotonic() < until, f"the server did not start:\n{self.output}"
            time.sleep(0.01)
        found = re.search(r"Playhead is at (http://\S+)", self.output)
        assert found is not None
        self.url = found[1]
        return self

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Forks:
    """Starts servers. Their ids stay theirs until the end, so that no signal meets a stranger."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def serve(self, directory: Path, *, on_another_machine: bool = False, **environment: str) -> Instance:
        """Begin to start one; see ``Instance.wait``.

        ``on_another_machine``: others cannot see that its process has ended, as if it ran there.
        """
        directory.mkdir(parents=True)
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("PLAYHEAD_", "OPENAI_"))}
        order = {
            "directory": str(directory),
            "environment": {**keep, "PLAYHEAD_PORT": "0", **environment},
            "on_another_machine": on_another_machine,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Instance(int(self._process.stdout.readline()), directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(START_S)
        self._process.stdout.close()


# ---- the program ---------------------------------------------------------------------------------------


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads must not be forked"
    forked: list[int] = []
    try:
        for line in sys.stdin:
            order = json.loads(line)
            if (pid := os.fork()) == 0:
                _serve(order)
            forked.append(pid)
            print(pid, flush=True)
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _serve(order: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        os.chdir(order["directory"])
        os.environ.clear()
        os.environ.update(order["environment"])
        for number, (path, how) in enumerate([(os.devnull, os.O_RDONLY), (LOG, os.O_WRONLY | os.O_CREAT)]):
            os.dup2(os.open(path, how, 0o600), number)
        os.dup2(1, 2)
        if order["on_another_machine"]:
            from playhead.stores.redis import presence

            name = os.urandom(6).hex()[:11]
            presence._machine = lambda: name  # type: ignore[assignment]
        from playhead.cli import main as command

        sys.argv = ["playhead", "serve"]
        command()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
