"""One worker: a process that serves on its parent's socket, and ends when the parent says so or is gone."""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from pydantic import ValidationError

from playhead.errors import InvalidSetting, PlayheadError
from playhead.server.logs import log_to_stderr
from playhead.server.settings import Settings, complaints

EXIT_FAILED = 1
EXIT_USAGE = 2

logger = logging.getLogger("playhead")


class Ready(NamedTuple):
    """A worker takes requests."""

    model: str


class Failed(NamedTuple):
    """A worker could not begin, and says why; it has ended, or is about to."""

    why: str
    is_setting: bool


class Task(NamedTuple):
    """What a worker is to do.

    Attributes:
        settings: as they are, or the options of the command, to be read together with the environment and ``.env``.
        grace_max_s: a shorter ``shutdown_grace_s``, for reloads.
    """

    settings: Settings | Mapping[str, Any]
    listening: socket.socket
    grace_max_s: float | None = None


def work(task: Task, news: Connection) -> None:
    """The whole life of a worker process; ``news`` gets one ``Ready`` or ``Failed``."""
    # Ctrl-C in a terminal goes to all its processes. The parent hears it, and decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, name="playhead parent", daemon=True).start()
    try:
        settings = task.settings if isinstance(task.settings, Settings) else Settings(**task.settings)
        if task.grace_max_s is not None:
            grace_s = min(settings.shutdown_grace_s, task.grace_max_s)
            settings = settings.model_copy(update={"shutdown_grace_s": grace_s})
        log_to_stderr(settings)
        from playhead.server.serve import serve  # takes a second or two

        serve(settings, task.listening, lambda model: news.send(Ready(model)), is_worker=True)
    except ValidationError as error:
        news.send(Failed("; ".join(complaints(error)), is_setting=True))
        sys.exit(EXIT_USAGE)
    except InvalidSetting as error:
        news.send(Failed(str(error), is_setting=True))
        sys.exit(EXIT_USAGE)
    except (PlayheadError, OSError) as error:
        news.send(Failed(str(error), is_setting=False))
        sys.exit(EXIT_FAILED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a kill -9 of it ends this wait too
        logger.warning("the parent process is gone; this worker ends")
        os.kill(os.getpid(), signal.SIGTERM)
