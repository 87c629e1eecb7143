"""A busy event loop must not starve the store's threads of the interpreter.

CPython takes the interpreter (the GIL) away from a thread that has held it for 5 ms without a break. A loop that is
never idle breaks off for microseconds at each poll, which starts the 5 ms anew, and is back before a waiting thread
is awake: that thread may wait for seconds (measured: 3 s, with a loop that polls every 0.2 ms).

So the loop that hands work to a thread looks after it: when the thread has not finished anything for a while, and the
loop itself was running most of that while, the loop stands aside until the thread has, for some milliseconds at most.
A thread that still finishes nothing is not starved, it waits for the disk or a lock: then the loop asks less often.
"""

import asyncio
import threading
import time

LOOK_AFTER_S = 0.005
LOOK_AFTER_MAX_S = 0.08
STAND_ASIDE_S = 0.005
_BUSY_SHARE = 0.5


class Turns:
    """What one loop and one thread know of each other. Each method says who calls it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.times_aside = 0
        self._loop = loop
        self._given = 0  # items; written by the loop only
        self._done = 0  # items; written by the thread only
        self._done_before = 0
        self._progress = threading.Event()
        self._pause_s = LOOK_AFTER_S
        self._timer: asyncio.TimerHandle | None = None
        self._since_s = self._ran_s = 0.0

    def given(self) -> None:
        """On the loop: one more item was handed over."""
        self._given += 1
        if self._timer is None:
            self._look_later()

    def done(self, count: int) -> None:
        """In the thread: so many items are finished."""
        self._done += count
        self._progress.set()

    def stop(self) -> None:
        """On the loop: nothing more is handed over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._done_before = self._done
        self._since_s, self._ran_s = time.monotonic(), time.thread_time()
        self._timer = self._loop.call_later(self._pause_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._done == self._given:
            self._pause_s = LOOK_AFTER_S
            return
        ran_s, passed_s = time.thread_time() - self._ran_s, time.monotonic() - self._since_s
        if self._done != self._done_before:
            self._pause_s = LOOK_AFTER_S
        elif ran_s > _BUSY_SHARE * passed_s:
            self._stand_aside()
        self._look_later()

    def _stand_aside(self) -> None:
        self.times_aside += 1
        self._progress.clear()
        helped = self._done != self._done_before or self._progress.wait(STAND_ASIDE_S)
        self._pause_s = LOOK_AFTER_S if helped else min(2 * self._pause_s, LOOK_AFTER_MAX_S)
