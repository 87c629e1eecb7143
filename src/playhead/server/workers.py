"""The parent of worker processes, for ``--workers N`` and for ``--reload``. It serves nothing itself.

parent    holds the listening socket, which all workers accept from; a connection that comes while a worker is being
          replaced waits in it, or goes to another worker
worker    one process (``worker``), started afresh (spawn): waiting ─► starting ─► ready ─► stopping ─► ended

what happens                         what the parent does
the first worker is ready            says so, and starts the others, which find files and tables made
the first worker cannot begin        ends, with the worker's reason
a worker dies                        starts it again: at once if it had served for a while, else after a growing
                                     pause; after 5 quick deaths in a row it ends, and says so
SIGTERM, SIGINT                      closes the socket, passes SIGTERM on, waits; kills at the deadline
a second signal                      kills at once
a watched file changes (--reload)    SIGTERM to the worker; a new one when it has ended. One that dies by itself is
                                     left alone until the next change, which may mend it
the parent itself is killed          nothing more; its workers notice and end cleanly
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from playhead.errors import InvalidSetting, PlayheadError
from playhead.server.file_watch import FileWatch
from playhead.server.settings import Settings
from playhead.server.stopping import EXIT_FORCED, deadline_s
from playhead.server.worker import Failed, Ready, Task, work

QUICK_S = 5.0
"""Who dies sooner after it was ready, or before, died quickly."""

QUICK_DEATHS_MAX = 5
BACKOFF_S = 0.25
LOOK_EVERY_S = 0.3
RELOAD_GRACE_S = 0.5
_SLACK_S = 1.0

_spawn = multiprocessing.get_context("spawn")
logger = logging.getLogger("playhead")


class WorkersFailed(PlayheadError):
    """No worker could begin, or one kept dying."""

    code = "workers-failed"


def serve_with_workers(settings: Settings, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve with ``settings.workers`` processes until told to stop; ``ready`` gets the model's name.

    Raises: InvalidSetting, WorkersFailed; SystemExit when the end was not a clean one.
    """
    if settings.store_url.startswith("memory:") or _is_in_memory(settings.database_url):
        raise InvalidSetting(
            "several workers share one store and one database, and what is in memory belongs to one process: choose"
            " files (PLAYHEAD_STORE, PLAYHEAD_DATABASE), or one worker",
            setting="workers",
        )
    Parent(Task(settings, listening), settings, ready).run()


def serve_and_reload(
    given: Mapping[str, Any], settings: Settings, listening: socket.socket, ready: Callable[[str], None]
) -> None:
    """Serve in one worker that is replaced whenever a file of this package, or ``.env``, changes.

    Args:
        given: the options of the command, so that each new worker reads ``.env`` anew.
    Raises: as ``serve_with_workers``.
    """
    if settings.workers > 1:
        raise InvalidSetting("reloading is for development, with one worker", setting="workers")
    watch = FileWatch([Path(__file__).parents[1], Path(".env")])
    Parent(Task(dict(given), listening, RELOAD_GRACE_S), settings, ready, watch=watch).run()


class Worker:
    """A place for a worker process: the one that runs there now, or none."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: SpawnProcess | None = None
        self.news: Connection | None = None
        self.start_at: float | None = None
        self.kill_at: float | None = None
        self.ready_at: float | None = None
        self.quick_deaths = 0

    def start(self, target: Callable[[Task, Connection], None], task: Task) -> None:
        self.start_at = self.kill_at = self.ready_at = None
        self.news, theirs = _spawn.Pipe(duplex=False)
        self.process = _spawn.Process(
            target=target, args=(task, theirs), name=f"playhead worker {self.number}", daemon=True
        )
        # The first process that is spawned begins with a helper of multiprocessing's, which unblocks SIGINT.
        resource_tracker.ensure_running()
        # Inherited: until the new process can say that it ignores Ctrl-C, it must not hear of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            theirs.close()

    def stop(self, within_s: float) -> None:
        if self.process is not None and self.kill_at is None:
            self.kill_at = time.monotonic() + within_s
            self.process.terminate()

    def ended(self) -> int:
        """Clear up after the process; its exit code."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        if self.news is not None:
            self.news.close()
        self.process = self.news = None
        return code or 0

    def wakes_at(self) -> float | None:
        return min((at for at in (self.start_at, self.kill_at) if at is not None), default=None)


class Parent:
    """Starts, watches and ends the workers. ``target`` is what they run; tests have others."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        ready: Callable[[str], None],
        *,
        watch: FileWatch | None = None,
        target: Callable[[Task, Connection], None] = work,
    ) -> None:
        self._task = task
        self._ready = ready
        self._watch = watch
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._target = target
        grace_s = settings.shutdown_grace_s if task.grace_max_s is None else task.grace_max_s
        self._stop_within_s = deadline_s(settings.model_copy(update={"shutdown_grace_s": grace_s})) + _SLACK_S
        self._workers = [Worker(number + 1) for number in range(settings.workers)]
        self._told = 0
        self._stopping = False
        self._began = False
        self._failure: PlayheadError | None = None
        self._forced = False

    def run(self) -> None:
        """Raises: WorkersFailed, InvalidSetting; SystemExit when a worker had to be killed."""
        self._workers[0].start_at = time.monotonic()
        try:
            with self._signals() as woken:
                while not self._stopping or any(worker.process for worker in self._workers):
                    self._turn(woken)
        finally:
            self._kill_all()
        if self._failure is not None:
            raise self._failure
        if self._forced:
            sys.exit(EXIT_FORCED)

    def _turn(self, woken: socket.socket) -> None:
        """Do what is due, then wait for something to happen, and see to it."""
        self._do_what_is_due(time.monotonic())
        happened = wait(self._waited_for(woken), self._pause_s())
        if woken in happened:
            woken.recv(64)
            self._signalled()
        for worker in self._workers:
            if worker.news in happened:
                self._told_by(worker)
            if worker.process is not None and worker.process.sentinel in happened:
                self._told_by(worker)
                self._died(worker)

    def _do_what_is_due(self, now: float) -> None:
        for worker in self._workers:
            if worker.start_at is not None and now >= worker.start_at and not self._stopping:
                worker.start(self._target, self._task)
            if worker.kill_at is not None and now >= worker.kill_at and worker.process is not None:
                logger.error("worker %d does not end; killed", worker.number)
                self._forced = self._stopping
                worker.kill_at = None
                worker.process.kill()
        if self._watch is not None and not self._stopping and now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            if changed := self._watch.changed():
                self._reload(changed)

    def _waited_for(self, woken: socket.socket) -> list[Any]:
        news = [worker.news for worker in self._workers if worker.news is not None and worker.ready_at is None]
        return [woken, *news, *(worker.process.sentinel for worker in self._workers if worker.process)]

    def _pause_s(self) -> float | None:
        due = [at for worker in self._workers if (at := worker.wakes_at()) is not None]
        if self._watch is not None:
            due.append(self._look_at)
        return max(min(due) - time.monotonic(), 0) if due else None

    # ---- what happens ------------------------------------------------------------------------------

    def _told_by(self, worker: Worker) -> None:
        if worker.news is None or worker.ready_at is not None or not worker.news.poll():
            return
        try:
            news: Ready | Failed = worker.news.recv()
        except EOFError:  # it died without a word
            worker.news.close()
            worker.news = None
            return
        if isinstance(news, Ready):
            self._is_ready(worker, news)
        elif self._began or self._watch is not None:
            logger.error("worker %d cannot begin: %s", worker.number, news.why)
        else:
            self._end(InvalidSetting(news.why) if news.is_setting else WorkersFailed(news.why))

    def _is_ready(self, worker: Worker, news: Ready) -> None:
        now = worker.ready_at = time.monotonic()
        if self._began:
            logger.info("worker %d is ready", worker.number)
            return
        self._began = True
        self._ready(news.model)
        for other in self._workers:
            if other is not worker:
                other.start_at = now

    def _died(self, worker: Worker) -> None:
        stopped, ready_at = worker.kill_at is not None, worker.ready_at
        code = worker.ended()
        if self._stopping:
            # Told to stop before it listened to signals, it is ended by the signal itself: nothing had begun.
            self._forced |= code != 0 and not (code == -signal.SIGTERM and ready_at is None) and self._failure is None
            return
        now = time.monotonic()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if self._watch is not None:
            if stopped:
                worker.start_at = now
            else:
                logger.error("the server %s; it starts again when a file changes", how)
            return
        is_quick = ready_at is None or now - ready_at < QUICK_S
        worker.quick_deaths = worker.quick_deaths + 1 if is_quick else 0
        if worker.quick_deaths >= QUICK_DEATHS_MAX:
            self._end(
                WorkersFailed(f"worker {worker.number} died {worker.quick_deaths} times as soon as it ran; it {how}")
            )
            return
        pause_s = BACKOFF_S * 2 ** (worker.quick_deaths - 1) if worker.quick_deaths else 0.0
        worker.start_at = now + pause_s
        logger.warning("worker %d %s; it starts again in %g s", worker.number, how, pause_s)

    def _reload(self, changed: Path) -> None:
        worker = self._workers[0]
        logger.warning("%s has changed: reloading", os.path.relpath(changed))
        if worker.process is None:
            worker.start_at = time.monotonic()
        else:
            worker.stop(self._stop_within_s)

    # ---- the end -----------------------------------------------------------------------------------

    def _end(self, failure: PlayheadError | None = None) -> None:
        self._failure = self._failure or failure
        if not self._stopping:
            self._stopping = True
            self._task.listening.close()  # else clients would wait in it for nobody
            for worker in self._workers:
                worker.start_at = None
                worker.stop(self._stop_within_s)

    def _signalled(self) -> None:
        if not self._told:
            return
        self._end()
        if self._told > 1:
            self._forced = True
            self._kill_all()

    def _kill_all(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                worker.ended()

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """SIGTERM and SIGINT are counted, and make the given socket readable."""
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        before = {number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM)}
        descriptor_before = signal.set_wakeup_fd(wakes.fileno())
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(descriptor_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            woken.close()
            wakes.close()

    def _count(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._told += 1


def _is_in_memory(url: str) -> bool:
    """Whether an SQL database of this URL is in memory, and so of one process only."""
    scheme, _, rest = url.partition("://")
    return scheme.startswith("sqlite") and rest.partition("?")[0] in ("", "/", "/:memory:")
