"""An outage of the store, as one reader waits it out (PROTOCOL.md, H10). Pure: the time is given."""

import random
from collections.abc import Callable

PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 1.0


class Outage:
    """How long to wait before the store is asked again: longer each time, and spread, for readers are many."""

    __slots__ = ("_chance", "_pause_s", "_until")

    def __init__(self, now: float, patience_s: float, chance: Callable[[], float] = random.random) -> None:
        self._until = now + patience_s
        self._pause_s = PAUSE_MIN_S
        self._chance = chance

    def pause_s(self, now: float) -> float:
        """Before the next attempt; the last one is made when patience ends."""
        longest, self._pause_s = self._pause_s, min(2 * self._pause_s, PAUSE_MAX_S)
        return max(0.0, min(longest * (1 + self._chance()) / 2, self._until - now))

    def is_too_long(self, now: float) -> bool:
        return now >= self._until
