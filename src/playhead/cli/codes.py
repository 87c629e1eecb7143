"""Exit codes of the command, and how it gives up: one line on standard error."""

import sys
from typing import NoReturn

import typer

from playhead.model import OutcomeKind

DONE = 0
FAILED = 1
USAGE = 2
CANCELLED = 3
INTERRUPTED = 4
UNREACHABLE = 5
NOT_FOUND = 6
INTERRUPTED_BY_KEY = 130

OF_OUTCOME = {
    OutcomeKind.COMPLETED: DONE,
    OutcomeKind.FAILED: FAILED,
    OutcomeKind.CANCELLED: CANCELLED,
    OutcomeKind.INTERRUPTED: INTERRUPTED,
}


def fail(why: object, code: int) -> NoReturn:
    """Say why, and end."""
    print(f"playhead: {why}", file=sys.stderr)
    raise typer.Exit(code)
