"""What may become of a stream, given what was done to its producer; and the figures of the whole run."""

import random
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.chaos.processes import Life, now

SHORTEST_S, LONGEST_S = 5.0, 60.0
EXAMPLES_MAX = 40


@dataclass
class Tally:
    """What the run has seen. All that is in ``broken`` must be zero.

    Attributes:
        timeline: what was done to whom, and when, for whoever looks for the reason of what broke.
        examples: the first of what broke.
    """

    streams: int = 0
    events: int = 0
    attaches: int = 0
    reads: int = 0
    delivered: int = 0
    reconnects: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    timeline: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    ends_known_s: list[float] = field(default_factory=list)

    def breaks(self, kind: str, what: str, count: int = 1) -> None:
        self.broken[kind] += count
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{now():.2f} {kind}: {what}")

    def done(self, what: str) -> None:
        self.timeline.append(f"{now():.2f} {what}")


@dataclass
class Stream:
    """One stream of known content.

    Attributes:
        life: the process that produces it; None when nobody did any more when its start was answered.
        begun_at: when the start that was answered was asked for.
        doubtful: a start was refused before one was answered: an instance may have made it and then let it go.
        cancel_asked, cancel_stored: somebody tried; somebody was told that it is stored.
        end: the offset of the close and its outcome, as the first reader was told.
    """

    stream_id: str
    events: int
    pause_ms: int
    life: Life | None = None
    begun_at: float = 0.0
    doubtful: bool = False
    cancel_asked: bool = False
    cancel_stored: bool = False
    end: tuple[int, str] | None = None
    known_at: float = 0.0

    @classmethod
    def drawn(cls, seed: int, number: int, room_s: float) -> "Stream":
        """``room_s`` is what is left of the run."""
        dice = random.Random(f"{seed}/{number}")
        lasts_s = SHORTEST_S * (LONGEST_S / SHORTEST_S) ** dice.random()
        pause_ms = dice.choice((50, 80, 130, 250, 500))
        return cls(f"s{seed}-{number}", int(max(SHORTEST_S, min(lasts_s, room_s)) * 1e3 / pause_ms), pause_ms)

    @property
    def lasts_s(self) -> float:
        return self.events * self.pause_ms / 1e3

    @property
    def lost_at(self) -> float | None:
        """When its producer was lost, if it was before the first reader knew the end."""
        moments = self.life.lost_at if self.life is not None else [self.begun_at]
        return next((at for at in moments if self.begun_at <= at and (self.end is None or at <= self.known_at)), None)

    def ended(self, offset: int, outcome: str, tally: Tally) -> None:
        """A reader was told the end: it must be the same for all."""
        if self.end is None:
            self.end, self.known_at = (offset, outcome), now()
        elif self.end != (offset, outcome):
            tally.breaks("readers that disagree", f"{self.stream_id}: {self.end}, {(offset, outcome)}")

    def judge(self, tally: Tally) -> None:
        """Is this an end that may be? Called when the first reader knows it."""
        assert self.end is not None
        offset, outcome = self.end
        tally.outcomes[outcome] += 1
        tally.events += offset - 1
        fits = {
            "completed": offset == self.events + 1 and not self.cancel_stored,
            "interrupted": (self.lost_at is not None or self.doubtful) and not self.cancel_stored,
            "cancelled": self.cancel_asked,
        }
        if not fits.get(outcome, False):
            tally.breaks("unexpected ends", f"{self!r}")
