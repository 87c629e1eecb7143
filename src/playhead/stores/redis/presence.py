"""This process instance, as others see it: a member of ``instances`` whose score is the end of its lease.

Times are Redis's, never this machine's. A negative score is a goodbye. A name tells where its process runs, so that
on the same machine the operating system can say that it has ended, long before its lease runs out (P5).

The lease is renewed on a connection and a loop of its own, so that neither a blocked event loop nor a busy
connection lose it.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError as FutureCancelled
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from playhead.errors import StoreUnavailable
from playhead.stores.redis.address import Address
from playhead.stores.redis.keys import Keys, decoded
from playhead.stores.redis.router import ASK, Router
from playhead.stores.redis.wire import Word

_CANCELS_MAX = 1_000
_RENEW_MAX_S = 10.0

T = TypeVar("T")


class Clock:
    """Redis's time, kept between two looks at it by this machine's monotonic clock. Thread-safe."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def __call__(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time() if self._ahead_s is None else time.monotonic() + self._ahead_s

    def set(self, redis_s: float, asked_at: float) -> None:
        """Redis said ``redis_s`` to a question asked at the monotonic time ``asked_at``."""
        self._ahead_s = redis_s - (asked_at + time.monotonic()) / 2


async def look_at_clock(router: Router, keys: Keys, clock: Callable[[], float]) -> None:
    if isinstance(clock, Clock):
        asked_at = time.monotonic()
        seconds, micros = await router.ask(ASK, keys.instances, "TIME")
        clock.set(int(seconds) + int(micros) / 1e6, asked_at)


class Presence:
    """Renews the lease. ``begin``, ``end`` and ``renew`` block; call them from any thread but its own."""

    def __init__(
        self,
        address: Address,
        keys: Keys,
        lease_s: float,
        clock: Callable[[], float],
        cancelled: Callable[[list[str]], object],
    ) -> None:
        self.instance_id = new_instance_id()
        self._address, self._keys, self._lease_s, self._clock = address, keys, lease_s, clock
        self._cancelled = cancelled
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="playhead lease", daemon=True)
        self._router: Router | None = None
        self._ended = False

    def begin(self) -> None:
        """Raises: StoreError."""
        self._thread.start()
        self._run(self._begin())

    def renew(self) -> None:
        """Raises: StoreError."""
        self._run(self._renew())

    def end(self) -> None:
        """Say goodbye. What fails here is made good by time."""
        with contextlib.suppress(StoreUnavailable):
            self._run(self._end())
        self._ended = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._ended:
            work.close()
            raise StoreUnavailable("the store is not open")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(_RENEW_MAX_S)
        except (TimeoutError, FutureCancelled):
            raise StoreUnavailable(f"Redis at {self._address} did not answer in time") from None

    async def _begin(self) -> None:
        self._router = Router(self._address)
        await self._router.learn()
        await self._renew()

    async def _renew(self) -> None:
        router, keys = self._opened(), self._keys
        await look_at_clock(router, keys, self._clock)
        until = self._clock() + self._lease_s
        await router.ask(ASK, keys.instances, "ZADD", keys.instances, repr(until), self.instance_id)
        mailbox = keys.cancels(self.instance_id)
        found = await router.ask(ASK, mailbox, "SPOP", mailbox, _CANCELS_MAX)
        if found:
            self._cancelled([decoded(stream_id) for stream_id in found])

    async def _end(self) -> None:
        router, self._router = self._opened(), None
        try:
            said: list[Word] = ["ZADD", self._keys.instances, repr(-self._clock()), self.instance_id]
            await router.ask(ASK, self._keys.instances, *said)
        finally:
            await router.close()

    def _opened(self) -> Router:
        if self._router is None:
            raise StoreUnavailable("the store is not open")
        return self._router


# ---- where a process runs ----------------------------------------------------------------------------


def new_instance_id() -> str:
    """``<machine>.<process id>.<when the process started>.<random>``."""
    pid = os.getpid()
    return f"{_machine()}.{pid}.{_started(pid) or 0}.{uuid.uuid4().hex[:12]}"


def has_ended(instance_id: str) -> bool:
    """Whether this machine's operating system knows that the instance's process has ended."""
    machine, _, rest = instance_id.partition(".")
    pid, _, rest = rest.partition(".")
    started = rest.partition(".")[0]
    if machine != _machine() or not (pid.isdecimal() and started.isdecimal()) or started == "0":
        return False
    return _started(int(pid)) != int(started)


@cache
def _machine() -> str:
    """This boot of this machine, and the process ids that are seen here: eleven letters. Else nobody's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return uuid.uuid4().hex[:11]
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:11]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when there is no such process, or a dead one not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
