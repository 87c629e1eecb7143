"""The commands a user can put in front of a message to the demo model. Pure: text in, words out.

    /long N     exactly N further words, always the same ones     N:  0 to 20,000
    /slow S     wait S seconds before the first word              S:  0 to 600
    /pace MS    MS milliseconds between words (20 by default)     MS: 0 to 60,000
    /tool       call the ``clock`` tool, then answer with its result
    /error      fail in the middle of the answer

They stand at the start of the message, in any order and number: ``/slow 2 /long 50 hello``. An argument that is no
such number gets the usage as its answer. Any other first word, slash or not, begins the message itself.
"""

from dataclasses import dataclass, replace

MAX_LONG_WORDS = 20_000
MAX_SLOW_S = 600.0
MAX_PACE_MS = 60_000.0

USAGE = (
    f"Usage: `/long N` (0 to {MAX_LONG_WORDS} words), `/slow S` (0 to {MAX_SLOW_S:.0f} seconds), "
    f"`/pace MS` (0 to {MAX_PACE_MS:.0f} milliseconds), `/tool`, `/error`; several may stand in a row."
)


@dataclass(frozen=True)
class Commands:
    """What a message asks of the demo model; `message` is what is left of it."""

    message: str
    long_words: int | None = None
    slow_s: float = 0.0
    pace_ms: float | None = None
    tool: bool = False
    error: bool = False
    misused: str | None = None


def read_commands(text: str) -> Commands:
    """Take the commands off the front of a user's message; stop at the first misused one."""
    asked = Commands(text.strip())
    while asked.misused is None:
        command, rest = _first_word(asked.message)
        argument, after = _first_word(rest)
        match command:
            case "/tool":
                asked = replace(asked, tool=True, message=rest)
            case "/error":
                asked = replace(asked, error=True, message=rest)
            case "/long" | "/slow" | "/pace":
                asked = replace(_with_number(asked, command, argument), message=after)
            case _:
                break
    return asked


def _with_number(asked: Commands, command: str, argument: str) -> Commands:
    try:
        number = int(argument) if command == "/long" else float(argument)
    except ValueError:
        number = -1
    # Written so that "nan", which compares false with everything, is refused.
    if command == "/long" and 0 <= number <= MAX_LONG_WORDS:
        return replace(asked, long_words=int(number))
    if command == "/slow" and 0 <= number <= MAX_SLOW_S:
        return replace(asked, slow_s=number)
    if command == "/pace" and 0 <= number <= MAX_PACE_MS:
        return replace(asked, pace_ms=number)
    return replace(asked, misused=f"{command} {argument[:40]}".strip())


def _first_word(text: str) -> tuple[str, str]:
    first, *rest = text.split(maxsplit=1) or [""]
    return first, rest[0] if rest else ""
