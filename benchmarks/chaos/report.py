"""The figures of a run, as lines and as docs/chaos.md."""

import platform
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.streams import Tally

MUST_BE_ZERO = (
    *("losses", "duplicates", "wrong", "readers stuck"),
    *("reads refused", "readers that disagree", "unexpected ends", "ends known too late"),
    "tracebacks in the servers' logs",
)
_PAGE = """# Chaos

`make chaos` runs three server processes on one store for some minutes, with many streams of known content and several
readers each. Readers are cut at random bytes, mostly in the middle of a frame, and come back to an instance drawn by
lot with their last cursor, event by event or with text joined. Meanwhile seeded dice kill instances (`kill -9`) and
start them again, freeze them (`SIGSTOP`) for longer than their lease, kill Redis (`appendonly yes`, `appendfsync
always`) and freeze it for up to two leases, cut its clients' connections and flush its scripts.

Each reader compares each event with what the stream must say at that offset, and needs the close. All readers of a
stream, and one that comes when it is over, must agree on its last offset and its outcome. A stream that nothing
happened to must be `completed` with all of its events; one whose producer was lost is `interrupted`, and readers know
it within the lease plus 1 s of the loss, or of Redis's return; one whose cancel was acknowledged is `cancelled`.

Not held to that time: readers of an instance that stands still or has for the last second, those who came when the time
was over, and streams whose producer was frozen while Redis was away, because it may be back before anybody can tell.
A stream whose start had to be asked for twice may end `interrupted` as well. All processes run on one machine, where a
killed one is known to be dead at once; the lease itself decides only for the frozen.

The seed draws streams, readers and faults; when exactly each comes depends on the machine. The run below is one of
`{command}` on a small shared machine.

| | |
|---|---|
{facts}

| must be 0 | |
|---|---|
{zeros}
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for, and how long it took."""

    command: str
    store: str
    seed: int
    took_s: float
    lease_s: float


def rows(run: Run, tally: Tally) -> list[tuple[str, str]]:
    ends = sorted(tally.ends_known_s)
    known = f"{ends[-1]:.2f} s (median {ends[len(ends) // 2]:.2f} s, {len(ends):,} readers)" if ends else "none to know"
    return [
        ("store", f"{run.store}, Python {platform.python_version()}"),
        ("seed", str(run.seed)),
        ("duration", f"{run.took_s:.0f} s"),
        ("streams", f"{tally.streams:,}"),
        ("events stored", f"{tally.events:,}"),
        ("readers", f"{tally.attaches:,}"),
        ("connections", f"{tally.reads:,}"),
        ("reconnects: the stream again, from a cursor", f"{tally.reconnects:,}"),
        ("events read and compared", f"{tally.delivered:,}"),
        ("how connections ended", _counted(tally.cuts)),
        ("faults", _counted(tally.faults)),
        ("outcomes", _counted(tally.outcomes)),
        (f"slowest end known after a loss (promised: {run.lease_s + 1:g} s)", known),
    ]


def zeros(tally: Tally) -> list[tuple[str, str]]:
    return [(name, f"{tally.broken[name]:,}") for name in MUST_BE_ZERO]


def show(run: Run, tally: Tally) -> None:
    for name, value in [*rows(run, tally), *zeros(tally)]:
        print(f"{name:<58} {value}")
    if tally.broken:
        print("what was done, and the first of what broke (seconds of the loop's clock):")
        for line in sorted([*tally.timeline, *tally.examples], key=lambda line: float(line.split()[0])):
            print(f"  {line}")


def write(path: Path, run: Run, tally: Tally) -> None:
    facts, none = (
        "\n".join(f"| {name} | {value} |" for name, value in table) for table in (rows(run, tally), zeros(tally))
    )
    path.write_text(_PAGE.format(command=run.command, facts=facts, zeros=none))


def _counted(counter: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counter.items(), key=lambda item: -item[1]))
