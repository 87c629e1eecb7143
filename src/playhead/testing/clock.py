"""A clock that moves only when it is told to."""

from playhead.errors import InvalidSetting

START_S = 1_700_000_000.0


class ManualClock:
    """Goes wherever a ``clock`` is taken: call it for the time, in seconds since the Unix epoch."""

    def __init__(self, now: float = START_S) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises: InvalidSetting when it would pass backwards."""
        if seconds < 0:
            raise InvalidSetting("time passes forwards; use jump to set the clock back", seconds=seconds)
        self._now += seconds

    def jump(self, seconds: float) -> None:
        """Set the clock forward or back, as an administrator or a time server does."""
        self._now += seconds
