"""How long a process may take from the signal to its end, and what it does when that is over."""

import os
import sys

from playhead.server.settings import Settings

REQUESTS_END_WITHIN_S = 2
"""What ordinary requests get once the readers have gone."""

EXIT_FORCED = 70
_SLACK_S = 1.0


def deadline_s(settings: Settings) -> float:
    return settings.shutdown_grace_s + settings.cancel_grace_s + REQUESTS_END_WITHIN_S + _SLACK_S


def exit_now(why: str) -> None:
    """End without cleaning up, whatever hangs; the next start does it, as after a crash."""
    os.write(sys.stderr.fileno(), f"playhead: {why}; exit at once, answers are closed at the next start\n".encode())
    os._exit(EXIT_FORCED)
