"""What the workers of tests do instead of serving; importable by the processes that are spawned."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from playhead.server.worker import Failed, Ready, Task


def _begun(task: Task) -> int:
    """How many have begun before; leaves a mark in the data directory."""
    folder = task.settings.data_dir  # type: ignore[union-attr]
    before = len(list(folder.iterdir()))
    (folder / str(os.getpid())).touch()
    return before


def _serve(news: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    news.send(Ready("a model"))
    time.sleep(60)


def serves(task: Task, news: Connection) -> None:
    _begun(task)
    _serve(news)


def dies(task: Task, news: Connection) -> None:
    _begun(task)
    os._exit(3)


def dies_once(task: Task, news: Connection) -> None:
    if _begun(task) == 0:
        os._exit(3)
    _serve(news)


def is_told_alone(task: Task, news: Connection) -> None:
    """The first one is told to stop; the second one has the parent told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    before = _begun(task)
    news.send(Ready("a model"))
    os.kill(os.getppid() if before else os.getpid(), signal.SIGTERM)
    time.sleep(60)


def refuses(task: Task, news: Connection) -> None:
    _begun(task)
    news.send(Failed("the disk is made of cheese", is_setting=False))


def refuses_the_setting(task: Task, news: Connection) -> None:
    news.send(Failed("no such cheese", is_setting=True))


def hangs(task: Task, news: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    news.send(Ready("a model"))
    time.sleep(60)


def hears_ctrl_c(task: Task, news: Connection) -> None:
    """Ready while it would die of an inherited SIGINT that it is sent."""
    os.kill(os.getpid(), signal.SIGINT)
    serves(task, news)
