"""Plant faults one by one; the tests named for each must fail. Proves that the suite bites.

    make mutants                        all faults of mutants_list.py
    .venv/bin/python tests/mutants.py cursor   those with "cursor" in their name

Works on copies of src, never on src itself. Before the first fault all the named tests must pass.
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants_list import FAULTS, Fault

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
TIMEOUT_S = 90
TESTS_FAILED = 1
PYTEST = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "mutants_profile"]
PYTEST += ["--timeout", "60"]


class Copy:
    """A copy of src that the tests import instead of the real one."""

    def __init__(self, folder: Path) -> None:
        self.src = folder / "src"
        shutil.copytree(ROOT / "src", self.src, ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.src), str(ROOT / "tests")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        }
        found = self._run([sys.executable, "-c", "import playhead.log; print(playhead.log.__file__)"]).stdout.strip()
        if found != str(self.src / "playhead" / "log.py"):
            raise SystemExit(f"the tests would import {found}, not the copy")

    def _run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, timeout=TIMEOUT_S, capture_output=True, text=True
        )  # fmt: skip

    def test(self, names: list[str]) -> "subprocess.CompletedProcess[str]":
        return self._run([*PYTEST, *names])

    def plant(self, fault: Fault) -> str:
        """Plant, test, take out again. Returns: caught, survived, or why neither is known."""
        path = self.src / "playhead" / fault.file
        sound = path.read_text()
        if sound.count(fault.old) != 1:
            return f"broken: its text occurs {sound.count(fault.old)} times in {fault.file}"
        path.write_text(sound.replace(fault.old, fault.new))
        try:
            code = self.test(fault.tests).returncode
        except subprocess.TimeoutExpired:
            return "caught"  # the tests hang
        finally:
            path.write_text(sound)
        if code == TESTS_FAILED:
            return "caught"
        return "survived" if code == 0 else f"broken: pytest ended with {code}"


def main() -> int:
    chosen = [fault for fault in FAULTS if all(word in fault.name for word in sys.argv[1:])]
    results: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for n in range(WORKERS):
            copies.put(Copy(Path(folder) / str(n)))
        baseline = copies.get()
        sound = baseline.test(sorted({name for fault in chosen for name in fault.tests}))
        copies.put(baseline)
        if sound.returncode:
            print(sound.stdout[-3_000:], "the tests must pass before the first fault is planted", sep="\n")
            return 1

        def check(fault: Fault) -> str:
            copy, began = copies.get(), time.monotonic()
            result = copy.plant(fault)
            copies.put(copy)
            print(f"{result:10} {fault.name} ({fault.file}, {time.monotonic() - began:.1f} s)", flush=True)
            return result

        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(check, chosen))
    failed = sum(result != "caught" for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
