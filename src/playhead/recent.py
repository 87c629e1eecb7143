"""What a producer has appended lately, in case its store loses it: a failover takes the last moments along (P1)."""

import time
from collections import deque
from itertools import pairwise

from playhead.model import Batch

KEPT_MAX_BYTES = 256 * 1024
_BATCH_BYTES = 500  # what a batch's objects take, besides its data


class Recent:
    """The newest batches of one stream, for ``kept_s`` and within KEPT_MAX_BYTES."""

    __slots__ = ("_batches", "_kept_s", "_size_bytes")

    def __init__(self, kept_s: float) -> None:
        self._kept_s = kept_s
        self._batches: deque[tuple[float, Batch]] = deque()
        self._size_bytes = 0

    def add(self, batch: Batch) -> None:
        now, batches = time.monotonic(), self._batches
        batches.append((now, batch))
        self._size_bytes += batch.size_bytes + _BATCH_BYTES
        while self._size_bytes > KEPT_MAX_BYTES or batches[0][0] < now - self._kept_s:
            self._size_bytes -= batches.popleft()[1].size_bytes + _BATCH_BYTES
            if not batches:
                break

    def after(self, tail: int) -> list[Batch] | None:
        """All batches after an offset, oldest first; None when they do not go on exactly there."""
        found = [batch for _, batch in self._batches if batch.last > tail]
        if not found or found[0].first != tail + 1 or any(a.last + 1 != b.first for a, b in pairwise(found)):
            return None
        return found
