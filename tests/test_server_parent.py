"""What the parent of workers decides, with workers that do nothing but live and die; and what --reload sees."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
import worker_targets
from running_server import settings

from playhead.errors import InvalidSetting
from playhead.server import workers
from playhead.server.file_watch import FileWatch
from playhead.server.listening import listen
from playhead.server.stopping import EXIT_FORCED
from playhead.server.worker import Task
from playhead.server.workers import Parent, WorkersFailed

Target = Callable[[Task, Connection], None]


class Run:
    """A parent in this process, until it ends; ``ready`` is called when the first worker is."""

    def __init__(self, directory: Path, target: Target, ready: Callable[[], None], count: int = 1) -> None:
        directory.mkdir()
        self.directory = directory
        self.ready_with: list[str] = []
        mine = settings(data_dir=directory, workers=count)
        self.listening = listen(mine)

        def told(model: str) -> None:
            self.ready_with.append(model)
            ready()

        self.parent = Parent(Task(mine, self.listening), mine, told, target=target)

    def __call__(self) -> None:
        before = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
        try:
            self.parent.run()
        finally:
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
            assert not any(worker.process for worker in self.parent._workers)
            assert not any(psutil.pid_exists(pid) for pid in self.begun)
            self.listening.close()

    @property
    def begun(self) -> list[int]:
        return [int(mark.name) for mark in self.directory.iterdir()]


def tell(number: signal.Signals, times: int = 1) -> Callable[[], None]:
    def send() -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    return send


def never() -> None:
    raise AssertionError("no worker was to be ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    run = Run(tmp_path / "run", worker_targets.serves, tell(number), count=2)
    run()
    assert run.ready_with == ["a model"]
    assert run.listening.fileno() == -1, "else clients would wait in it for nobody"


def test_a_worker_that_died_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "BACKOFF_S", 0.01)
    run = Run(tmp_path / "run", worker_targets.dies_once, tell(signal.SIGTERM))
    run()
    assert len(run.begun) == 2
    assert "worker 1 ended with exit code 3; it starts again in 0.01 s" in caplog.text


def test_a_worker_that_was_told_to_stop_by_somebody_else_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path / "run", worker_targets.is_told_alone, lambda: None)
    run()
    assert len(run.begun) == 2
    assert "worker 1 ended with exit code 0" in caplog.text


def test_after_five_quick_deaths_it_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "BACKOFF_S", 0.01)
    run = Run(tmp_path / "run", worker_targets.dies, never)
    with pytest.raises(WorkersFailed, match="worker 1 died 5 times as soon as it ran; it ended with exit code 3"):
        run()
    assert len(run.begun) == 5
    pauses = [line.rpartition(" in ")[2] for line in caplog.messages if "it starts again in" in line]
    assert pauses == ["0.01 s", "0.02 s", "0.04 s", "0.08 s"]


def test_what_the_first_worker_cannot_begin_with_ends_it(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", worker_targets.refuses, never, count=2)
    with pytest.raises(WorkersFailed, match=r"^the disk is made of cheese$"):
        run()
    assert len(run.begun) == 1
    with pytest.raises(InvalidSetting, match=r"^no such cheese$"):
        Run(tmp_path / "again", worker_targets.refuses_the_setting, never)()


def test_a_worker_that_does_not_end_is_killed_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "deadline_s", lambda _: 0.1)
    run = Run(tmp_path / "run", worker_targets.hangs, tell(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == EXIT_FORCED
    assert "worker 1 does not end; killed" in caplog.text


def test_a_second_signal_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "deadline_s", lambda _: 120.0)
    began = []

    def twice() -> None:
        began.append(time.monotonic())
        tell(signal.SIGINT, times=2)()

    with pytest.raises(SystemExit) as ended:
        Run(tmp_path / "run", worker_targets.hangs, twice)()
    assert ended.value.code == EXIT_FORCED
    assert time.monotonic() - began[0] < 60


def test_a_starting_worker_does_not_hear_ctrl_c(tmp_path: Path) -> None:
    """It goes to the whole terminal; the parent alone decides. Shown of the first process that a process spawns, as
    with it multiprocessing starts a helper, which unblocks SIGINT."""
    script = (
        "import pathlib, signal, sys, worker_targets\n"
        "from test_server_parent import Run, tell\n"
        "Run(pathlib.Path(sys.argv[1]), worker_targets.hears_ctrl_c, tell(signal.SIGTERM))()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# ---- what --reload sees ----------------------------------------------------------------------------


def test_changed_new_and_lost_files_are_seen_once(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "inner" / "page.css").write_text("a")
    watch = FileWatch([package, tmp_path / ".env"])
    assert watch.changed() is None

    (package / "inner" / "page.css").write_text("ab")
    assert watch.changed() == package / "inner" / "page.css"
    assert watch.changed() is None

    (package / "new.py").write_text("")
    assert watch.changed() == package / "new.py"
    os.utime(package / "new.py", ns=(1, 1))
    assert watch.changed() == package / "new.py"
    (package / "new.py").unlink()
    assert watch.changed() == package / "new.py"

    (tmp_path / ".env").write_text("A=1")
    assert watch.changed() == tmp_path / ".env"
    assert watch.changed() is None


def test_what_is_not_the_programs_is_not_seen(tmp_path: Path) -> None:
    watch = FileWatch([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "playhead.db").write_text("")
    assert watch.changed() is None
