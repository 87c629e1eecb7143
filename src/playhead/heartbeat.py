"""Keeps this instance's lease alive from a thread of its own.

A blocked event loop, a stop-the-world pause of some seconds or ten thousand busy streams must not look like a
dead process, so renewal shares neither the loop nor a connection with anything else (P5).
"""

import logging
import threading

from playhead.errors import StoreError
from playhead.store import Store

logger = logging.getLogger("playhead")


class Heartbeat:
    """Renews the store's lease three times per ``lease_s`` until stopped."""

    def __init__(self, store: Store, lease_s: float) -> None:
        self._store = store
        self._pause_s = lease_s / 3
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playhead heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        failing = False
        while not self._stopped.wait(self._pause_s):
            try:
                self._store.renew()
                failing = False
            except StoreError as error:
                if not failing:
                    logger.warning("the lease cannot be renewed: %s", error)
                failing = True
            except Exception:  # whatever it is, without this thread all streams would be lost
                logger.exception("the lease cannot be renewed")

    def stop(self) -> None:
        """Stop, and wait for a renewal that is under way."""
        self._stopped.set()
        self._thread.join()
