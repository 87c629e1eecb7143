"""Keeps this instance's lease alive from a thread of its own.

A blocked event loop, a stop-the-world pause of some seconds or ten thousand busy streams must not look like a
dead process, so renewal shares neither the loop nor a connection with anything else (P5).
"""

import logging
import threading
import time
from collections.abc import Callable

from playhead.errors import StoreError
from playhead.store import Store

logger = logging.getLogger("playhead")


RETRY_S = 0.25


class Heartbeat:
    """Renews the store's lease three times per ``lease_s`` until stopped; more often while that fails.

    ``is_over``: whether nothing can run here any more, although nobody stopped it: the event loop was closed. Then
    others must not take this instance for alive.
    """

    def __init__(self, store: Store, lease_s: float, is_over: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._is_over = is_over
        self._pause_s = lease_s / 3
        self._renewed_at = self._steady_since = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playhead heartbeat", daemon=True)
        self._thread.start()

    @property
    def steady_since(self) -> float:
        """Since when (monotonic seconds) every renewal was on time; this moment, while one is not.

        When ours come late the store was away, or we were: then others' may be late as well, and no leases of theirs
        prove anything yet (P6).
        """
        return time.monotonic() if self.is_late else self._steady_since

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._renewed_at > 2 * self._pause_s

    def _run(self) -> None:
        failing = False
        while not self._stopped.wait(min(self._pause_s, RETRY_S) if failing else self._pause_s):
            if self._is_over():
                return
            try:
                self._store.renew()
                now = time.monotonic()
                if failing:
                    logger.info("the lease is renewed again, after %.1f s", now - self._renewed_at)
                if failing or now - self._renewed_at > 2 * self._pause_s:
                    self._steady_since = now
                self._renewed_at = now
                failing = False
            except StoreError as error:
                if not failing:
                    logger.warning("the lease cannot be renewed: %s", error)
                failing = True
                self._steady_since = time.monotonic()
            except Exception:  # whatever it is, without this thread all streams would be lost
                failing = True
                self._steady_since = time.monotonic()
                logger.exception("the lease cannot be renewed")

    def stop(self) -> None:
        """Stop, and wait for a renewal that is under way."""
        self._stopped.set()
        self._thread.join()
