"""An app of a user's under uvicorn, in a process of its own."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

WAIT_S = 60.0


def complaints_of(stderr: str) -> list[str]:
    """What a process should not have said; slow callbacks (debug mode, on a busy machine) do not count."""
    return [line for line in stderr.splitlines() if not re.fullmatch(r"Executing <.* took [0-9.]+ seconds", line)]


class AppProcess:
    """``app.py`` of a directory, started there. What it says is kept in ``lines``."""

    def __init__(self, source: Path, directory: Path, **environment: str) -> None:
        keep = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "KV_URL")}
        command = [sys.executable, "-X", "dev", "-m", "uvicorn", "app:app", "--port", "0", "--app-dir", str(source)]
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            env={**keep, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._told.wait(WAIT_S)
        found = re.search(r"running on (http://\S+)", self.output)
        if found is None:
            self.end()
            raise AssertionError(f"the app did not start:\n{self.output}")
        self.url = found[1]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if "running on" in line:
                self._told.set()
        self._told.set()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM, and wait until it is gone; its exit code."""
        self._process.terminate()
        return self._gone()

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._gone()

    def _gone(self) -> int:
        code = self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def end(self) -> None:
        """Killed if need be, and everything given back. Idempotent."""
        if self._process.poll() is None:
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
