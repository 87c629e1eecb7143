"""The rules as tables: state × command × facts → what becomes of it. The tables cover every branch of log.py."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from playhead import log
from playhead.errors import (
    AppendGap,
    AppendRepeat,
    CursorAhead,
    CursorOfAnotherStream,
    Diverged,
    Fenced,
    IdempotencyMismatch,
    PlayheadError,
    ProducerActive,
    StreamClosed,
    StreamExpired,
    StreamIdTaken,
    StreamNotFound,
    StreamTooLarge,
    ThreadBusy,
    TooManyLiveStreams,
)
from playhead.log import (
    Claim,
    Close,
    CloseDead,
    Command,
    Create,
    Delete,
    Expire,
    Facts,
    Head,
    Release,
    RequestCancel,
    Settle,
    Watched,
)
from playhead.model import COMPLETED, Cancel, Cursor, Outcome, OutcomeKind, Status, StreamInfo

NOW = 1_000.0
ALIVE, DEAD = Facts(NOW, producer_alive=True), Facts(NOW, producer_alive=False)
FAILED = Outcome(OutcomeKind.FAILED, error="broken")
LOST = Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")
ABANDONED = Outcome(OutcomeKind.INTERRUPTED, reason="abandoned")
CANCELLED = Outcome(OutcomeKind.CANCELLED, by="bob", reason="why")

LIVE = StreamInfo(
    "s", thread_id="t", owner="ann", producer="p", epoch=3, tail=5, size_bytes=50, created_at=100.0, fingerprint="f",
    retention_s=60.0,
)  # fmt: skip
ASKED = LIVE.but(cancel=Cancel("bob", 900.0, "why"))
FREE = LIVE.but(producer=None, due_at=1_060.0)
CLOSED = LIVE.but(status=Status.CLOSED, producer=None, outcome=COMPLETED, closed_at=940.0, due_at=1_000.0)
UNSETTLED = CLOSED.but(settled=False)
EXPIRED = CLOSED.but(status=Status.EXPIRED, due_at=1_000.0)
STATES = {
    "unknown": None, "live": LIVE, "cancel asked": ASKED, "released": FREE, "closed": CLOSED, "unsettled": UNSETTLED,
    "expired": EXPIRED,
}  # fmt: skip


def ended(state: StreamInfo, outcome: Outcome, **changes: Any) -> StreamInfo:
    """``state`` closed just now."""
    facts = {"status": Status.CLOSED, "producer": None, "outcome": outcome, "closed_at": NOW, "due_at": NOW + 60.0}
    return state.but(**{**facts, **changes})


class Row(NamedTuple):
    state: str
    command: Command
    facts: Facts
    becomes: StreamInfo | type[PlayheadError] | str | None  # a string: "same"


MAKE = Create("p", thread_id="t", owner="ann", fingerprint="f")
MADE = StreamInfo("s", thread_id="t", owner="ann", producer="p", epoch=1_000_001, created_at=NOW, fingerprint="f")
FULL = Create(
    "p", thread_id="t", owner="ann", idempotency_key="k", fingerprint="f", metadata={"a": 1}, retention_s=7.0,
    unwatched_after_s=2.0, needs_settling=True, live_per_owner_max=3,
)  # fmt: skip
FULLY_MADE = MADE.but(
    idempotency_key="k", metadata={"a": 1}, retention_s=7.0, unwatched_after_s=2.0, settled=False
)  # fmt: skip
STEP = Expire(expired_for_s=30.0, settle_within_s=5_000.0)

TABLE = [
    # ---- Create
    Row("unknown", MAKE, Facts(NOW), MADE),
    Row("unknown", FULL, Facts(NOW, live_of_owner=2), FULLY_MADE),
    Row("unknown", FULL, Facts(NOW, live_of_owner=3), TooManyLiveStreams),
    Row("unknown", FULL, Facts(NOW, live_of_owner=4), TooManyLiveStreams),
    Row("unknown", MAKE, Facts(NOW, live_of_owner=10**6), MADE),
    Row("unknown", MAKE, Facts(NOW, live_on_thread="x"), ThreadBusy),
    Row("live", MAKE, ALIVE, "same"),
    Row("live", MAKE, Facts(NOW, True, live_on_thread="s", live_of_owner=99), "same"),
    Row("live", Create("q", thread_id="t", owner="ann", fingerprint="f", retention_s=1), DEAD, "same"),
    Row("live", Create("p", thread_id="t", owner="eve", fingerprint="f"), ALIVE, StreamIdTaken),
    Row("live", Create("p", thread_id="t", owner=None, fingerprint="f"), ALIVE, StreamIdTaken),
    Row("live", Create("p", thread_id="u", owner="ann", fingerprint="f"), ALIVE, IdempotencyMismatch),
    Row("live", Create("p", thread_id="t", owner="ann", fingerprint="g"), ALIVE, IdempotencyMismatch),
    Row("cancel asked", MAKE, ALIVE, "same"),
    Row("released", MAKE, DEAD, "same"),
    Row("closed", MAKE, DEAD, "same"),
    Row("unsettled", MAKE, DEAD, "same"),
    Row("expired", MAKE, DEAD, StreamExpired),
    # ---- Claim
    Row("unknown", Claim("q"), DEAD, StreamNotFound),
    Row("live", Claim("q"), ALIVE, ProducerActive),
    Row("live", Claim("q"), DEAD, LIVE.but(producer="q", epoch=4)),
    Row("live", Claim("q", take_over=True), ALIVE, LIVE.but(producer="q", epoch=4)),
    Row("cancel asked", Claim("q"), DEAD, ASKED.but(producer="q", epoch=4)),
    Row("released", Claim("q"), DEAD, LIVE.but(producer="q", epoch=4)),
    Row("closed", Claim("q", take_over=True), DEAD, StreamClosed),
    Row("unsettled", Claim("q", take_over=True), DEAD, StreamClosed),
    Row("expired", Claim("q", take_over=True), DEAD, StreamExpired),
    # ---- Release
    Row("unknown", Release(3), DEAD, StreamNotFound),
    Row("live", Release(3), ALIVE, LIVE.but(producer=None, epoch=4, due_at=NOW + 60.0)),
    Row("live", Release(3), DEAD, LIVE.but(producer=None, epoch=4, due_at=NOW + 60.0)),
    Row("live", Release(2), ALIVE, Fenced),
    Row("live", Release(4), ALIVE, Fenced),
    Row("cancel asked", Release(3), ALIVE, ended(ASKED, CANCELLED)),
    Row("released", Release(2), DEAD, Fenced),
    Row("closed", Release(3), DEAD, StreamClosed),
    Row("unsettled", Release(2), DEAD, Fenced),
    Row("expired", Release(3), DEAD, StreamClosed),
    # ---- Close
    Row("unknown", Close(3, COMPLETED), DEAD, StreamNotFound),
    Row("live", Close(3, COMPLETED), ALIVE, ended(LIVE, COMPLETED)),
    Row("live", Close(3, COMPLETED, LIVE.tail), ALIVE, ended(LIVE, COMPLETED)),
    Row("live", Close(3, COMPLETED, LIVE.tail + 1), ALIVE, AppendGap),
    Row("live", Close(3, FAILED), DEAD, ended(LIVE, FAILED)),
    Row("live", Close(2, COMPLETED), ALIVE, Fenced),
    Row("live", Close(4, COMPLETED), ALIVE, Fenced),
    Row("cancel asked", Close(3, COMPLETED), ALIVE, ended(ASKED, CANCELLED)),
    Row("cancel asked", Close(3, FAILED), ALIVE, ended(ASKED, CANCELLED._replace(error="broken"))),
    Row("released", Close(3, COMPLETED), DEAD, ended(FREE, COMPLETED)),
    Row("closed", Close(3, FAILED), DEAD, "same"),
    Row("closed", Close(2, FAILED), DEAD, Fenced),
    Row("unsettled", Close(3, FAILED), DEAD, "same"),
    Row("expired", Close(3, FAILED), DEAD, "same"),
    # ---- CloseDead
    Row("unknown", CloseDead(), DEAD, StreamNotFound),
    Row("live", CloseDead(), ALIVE, ProducerActive),
    Row("live", CloseDead(), DEAD, ended(LIVE, LOST, epoch=4)),
    Row("cancel asked", CloseDead(), ALIVE, ProducerActive),
    Row("cancel asked", CloseDead(), DEAD, ended(ASKED, CANCELLED, epoch=4)),
    Row("released", CloseDead(), DEAD, ProducerActive),
    Row("closed", CloseDead(), DEAD, "same"),
    Row("unsettled", CloseDead(), DEAD, "same"),
    Row("expired", CloseDead(), DEAD, "same"),
    # ---- RequestCancel
    Row("unknown", RequestCancel("bob"), DEAD, StreamNotFound),
    Row("live", RequestCancel("bob", "why"), ALIVE, LIVE.but(cancel=Cancel("bob", NOW, "why"))),
    Row("live", RequestCancel(), ALIVE, LIVE.but(cancel=Cancel(None, NOW, None))),
    Row("live", RequestCancel("bob", "why"), DEAD,
        ended(LIVE, CANCELLED, epoch=4, cancel=Cancel("bob", NOW, "why"))),
    Row("live", RequestCancel(), DEAD,
        ended(LIVE, Outcome(OutcomeKind.CANCELLED), epoch=4, cancel=Cancel(None, NOW, None))),
    Row("cancel asked", RequestCancel("eve"), ALIVE, "same"),
    Row("cancel asked", RequestCancel("eve"), DEAD, ended(ASKED, CANCELLED, epoch=4)),
    Row("released", RequestCancel("bob", "why"), DEAD,
        ended(FREE, CANCELLED, epoch=4, cancel=Cancel("bob", NOW, "why"))),
    Row("closed", RequestCancel("bob"), DEAD, "same"),
    Row("unsettled", RequestCancel("bob"), DEAD, "same"),
    Row("expired", RequestCancel("bob"), DEAD, StreamExpired),
    # ---- Settle
    Row("unknown", Settle(), DEAD, StreamNotFound),
    Row("live", Settle(), ALIVE, "same"),
    Row("cancel asked", Settle(), ALIVE, "same"),
    Row("released", Settle(), DEAD, "same"),
    Row("closed", Settle(), DEAD, "same"),
    Row("unsettled", Settle(), DEAD, UNSETTLED.but(settled=True)),
    Row("expired", Settle(), DEAD, "same"),
    # ---- Watched (the streams of this table go on when nobody watches; see below for the others)
    Row("unknown", Watched(), DEAD, StreamNotFound),
    Row("live", Watched(), ALIVE, "same"),
    Row("cancel asked", Watched(), ALIVE, "same"),
    Row("released", Watched(), DEAD, "same"),
    Row("closed", Watched(), DEAD, "same"),
    Row("unsettled", Watched(), DEAD, "same"),
    Row("expired", Watched(), DEAD, "same"),
    # ---- Expire
    Row("unknown", STEP, DEAD, StreamNotFound),
    Row("live", STEP, Facts(10**9), "same"),
    Row("cancel asked", STEP, Facts(10**9), "same"),
    Row("released", STEP, Facts(1_059.9), "same"),
    Row("released", STEP, Facts(1_060.0),
        ended(FREE, ABANDONED, epoch=4, closed_at=1_060.0, due_at=1_120.0)),
    Row("closed", STEP, Facts(999.9), "same"),
    Row("closed", STEP, Facts(NOW), CLOSED.but(status=Status.EXPIRED, due_at=NOW + 30.0)),
    Row("unsettled", STEP, Facts(999.9), "same"),
    Row("unsettled", STEP, Facts(NOW), UNSETTLED.but(due_at=NOW + log.SETTLE_RETRY_S)),
    Row("unsettled", STEP, Facts(5_999.9), UNSETTLED.but(due_at=6_000.0)),
    Row("unsettled", STEP, Facts(6_000.0), UNSETTLED.but(status=Status.EXPIRED, due_at=6_030.0)),
    Row("expired", STEP, Facts(999.9), "same"),
    Row("expired", STEP, Facts(NOW), None),
    # ---- Delete
    Row("unknown", Delete(), DEAD, StreamNotFound),
    *[Row(name, Delete(), facts, None) for name, facts in product(STATES, (ALIVE, DEAD)) if name != "unknown"],
]  # fmt: skip


def _name(row: Row) -> str:
    return f"{type(row.command).__name__} when {row.state}"


@pytest.mark.parametrize("row", TABLE, ids=_name)
def test_table_of_decisions(row: Row) -> None:
    state = STATES[row.state]
    if isinstance(row.becomes, type):
        with pytest.raises(row.becomes) as refused:
            log.decide("s", state, row.command, row.facts)
        assert type(refused.value) is row.becomes
    elif row.becomes == "same":
        assert log.decide("s", state, row.command, row.facts) is state
    else:
        assert log.decide("s", state, row.command, row.facts) == row.becomes


def test_table_of_unknown_commands() -> None:
    with pytest.raises(AssertionError):
        log.decide("s", LIVE, "delete", ALIVE)  # type: ignore[arg-type]


def test_the_table_has_every_command_in_every_state() -> None:
    rows = {(type(row.command), row.state) for row in TABLE}
    assert rows == set(product(get_args(Command), STATES))


class WatchRow(NamedTuple):
    state: StreamInfo
    now: float
    watched_at: float | None


MINDED = LIVE.but(unwatched_after_s=10.0)
WATCHED_TABLE = [
    WatchRow(MINDED, NOW, NOW),
    WatchRow(MINDED.but(watched_at=990.0), NOW, NOW),
    WatchRow(MINDED.but(watched_at=1_010.0), NOW, 1_010.0),  # the clock was set back
    WatchRow(CLOSED.but(unwatched_after_s=10.0), NOW, None),
]


@pytest.mark.parametrize("row", WATCHED_TABLE)
def test_table_of_watched(row: WatchRow) -> None:
    assert log.decide("s", row.state, Watched(), Facts(row.now)) == row.state.but(watched_at=row.watched_at)


def test_table_of_facts_in_errors() -> None:
    cases: list[tuple[StreamInfo | None, Command, Facts, dict[str, object]]] = [
        (None, MAKE, Facts(NOW, live_on_thread="x"), {"stream_id": "x", "thread_id": "t"}),
        (None, FULL, Facts(NOW, live_of_owner=3), {"limit": 3}),
        (None, Delete(), DEAD, {"stream_id": "s"}),
        (LIVE, Close(2, COMPLETED), ALIVE, {"stream_id": "s", "epoch": 2}),
        (CLOSED, Claim("q"), DEAD, {"stream_id": "s", "outcome": "completed"}),
        (CLOSED.but(outcome=None), Claim("q"), DEAD, {"stream_id": "s", "outcome": None}),
        (EXPIRED, Claim("q"), DEAD, {"stream_id": "s"}),
        (LIVE, Claim("q"), ALIVE, {"stream_id": "s"}),
        (LIVE, CloseDead(), ALIVE, {"stream_id": "s"}),
    ]
    for state, command, facts, expected in cases:
        with pytest.raises(PlayheadError) as refused:
            log.decide("s", state, command, facts)
        assert refused.value.facts == expected


# ---- append -----------------------------------------------------------------------------------------------


class AppendRow(NamedTuple):
    """An append under epoch 3 of events first to last, 10 bytes in all, where a stream may hold 60."""

    head: Head | None
    first: int
    last: int
    becomes: Head | type[PlayheadError]


HEAD = Head(is_live=True, epoch=3, tail=5, size_bytes=50)
APPEND_TABLE = [
    AppendRow(None, 1, 1, StreamNotFound),
    AppendRow(HEAD._replace(tail=0, size_bytes=0), 1, 1, Head(True, 3, 1, 10)),
    AppendRow(HEAD, 6, 6, Head(True, 3, 6, 60)),
    AppendRow(HEAD, 6, 9, Head(True, 3, 9, 60)),
    AppendRow(HEAD, 7, 7, AppendGap),
    AppendRow(HEAD, 5, 6, AppendGap),
    AppendRow(HEAD, 5, 5, AppendRepeat),
    AppendRow(HEAD, 1, 5, AppendRepeat),
    AppendRow(HEAD, 6, 5, AppendRepeat),  # an empty batch
    AppendRow(HEAD, 7, 6, AppendGap),
    AppendRow(HEAD._replace(size_bytes=51), 6, 6, StreamTooLarge),
    AppendRow(HEAD._replace(epoch=4), 6, 6, Fenced),
    AppendRow(HEAD._replace(epoch=2), 6, 6, Fenced),
    AppendRow(HEAD._replace(is_live=False), 6, 6, StreamClosed),
    # Which error, when there are several to choose from: the producer must learn first that it is none any more.
    AppendRow(HEAD._replace(is_live=False, epoch=4), 1, 1, Fenced),
    AppendRow(HEAD._replace(is_live=False), 1, 1, StreamClosed),
    AppendRow(HEAD._replace(size_bytes=60), 5, 5, AppendRepeat),
    AppendRow(HEAD._replace(size_bytes=60), 7, 7, AppendGap),
]


@pytest.mark.proves("P2.5", "P6.1")
@pytest.mark.parametrize("row", APPEND_TABLE)
def test_p2_table_of_appends(row: AppendRow) -> None:
    def append() -> Head:
        return log.decide_append(
            "s", row.head, epoch=3, first=row.first, last=row.last, size_bytes=10, stream_max_bytes=60
        )

    if isinstance(row.becomes, type):
        with pytest.raises(row.becomes) as refused:
            append()
        assert type(refused.value) is row.becomes
    else:
        assert append() == row.becomes


# ---- cursors ----------------------------------------------------------------------------------------------


class CursorRow(NamedTuple):
    """A cursor (epoch, offset) of a reader; under which epoch the event at its offset is stored, if one is."""

    state: StreamInfo
    epoch: int
    offset: int
    there: int | None
    error: type[PlayheadError] | None


CURSOR_TABLE = [
    CursorRow(LIVE, 3, 0, None, None),
    CursorRow(LIVE, 99, 0, None, None),
    CursorRow(LIVE, 3, 5, 3, None),
    CursorRow(LIVE, 1, 2, 1, None),
    CursorRow(LIVE, 3, 6, None, CursorAhead),
    CursorRow(LIVE, 2, 6, None, Diverged),  # seen under epoch 2, lost, and epoch 3 began at 5
    CursorRow(LIVE, 4, 6, None, Diverged),  # the store forgot epoch 4
    CursorRow(LIVE, 4, 5, 3, Diverged),
    CursorRow(LIVE, 2, 5, 3, Diverged),  # somebody else's event took the place of the one seen
    CursorRow(LIVE, 3, 5, 2, None),  # info.cursor, after a claim and before its first append
    CursorRow(CLOSED, 3, 5, 3, None),
    CursorRow(CLOSED, 3, 6, None, None),  # at the close
    CursorRow(CLOSED, 2, 6, None, Diverged),
    CursorRow(CLOSED, 4, 6, None, Diverged),
    CursorRow(CLOSED, 3, 7, None, CursorAhead),
    CursorRow(CLOSED.but(tail=0), 3, 1, None, None),
]


@pytest.mark.proves("P1.4", "P2.2")
@pytest.mark.parametrize("row", CURSOR_TABLE)
def test_p2_table_of_cursors(row: CursorRow) -> None:
    cursor = Cursor(row.state.mark, row.epoch, row.offset)
    if row.error is None:
        log.check_cursor(row.state, cursor, row.there)
        return
    with pytest.raises(row.error) as refused:
        log.check_cursor(row.state, cursor, row.there)
    expected = {"offset": row.offset, "tail": row.state.tail} if row.error is CursorAhead else {"stream_id": "s"}
    assert refused.value.facts == expected


@pytest.mark.proves("P2.2")
def test_p2_table_of_cursors_of_other_streams() -> None:
    for offset, other in product((0, 5), (LIVE.but(stream_id="another"), LIVE.but(created_at=101.0))):
        with pytest.raises(CursorOfAnotherStream) as refused:
            log.check_cursor(LIVE, Cursor(other.mark, 3, offset), 3)
        assert refused.value.facts == {"stream_id": "s"}


@pytest.mark.parametrize("state", [LIVE, ASKED, FREE, CLOSED, UNSETTLED, EXPIRED.but(tail=0)])
def test_table_of_a_states_own_cursors(state: StreamInfo) -> None:
    """What ``info.cursor`` gives out is taken back, whoever wrote the newest event."""
    for there in range(1, state.epoch + 1):
        at_event = state.tail and not state.outcome
        log.check_cursor(state, Cursor.parse(state.cursor), there if at_event else None)


@pytest.mark.proves("P2.4")
@pytest.mark.parametrize("state", [LIVE, CLOSED, EXPIRED])
def test_table_of_readable(state: StreamInfo) -> None:
    if state.status is Status.EXPIRED:
        with pytest.raises(StreamExpired):
            log.check_readable(state)
    else:
        log.check_readable(state)


# ---- all of it --------------------------------------------------------------------------------------------


def test_the_tables_cover_every_branch(tmp_path: Path) -> None:
    target = Path(log.__file__)
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "COVERAGE_FILE": str(tmp_path / "coverage")}
    coverage = [sys.executable, "-m", "coverage"]
    pytest_run = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "table_of", __file__]
    subprocess.run(
        [*coverage, "run", f"--rcfile={os.devnull}", "--branch", f"--include={target}", *pytest_run],
        env=environment, check=True, timeout=150, capture_output=True,
    )  # fmt: skip
    report = tmp_path / "coverage.json"
    subprocess.run(
        [*coverage, "json", f"--rcfile={os.devnull}", "-o", report],
        env=environment, check=True, timeout=150, capture_output=True,
    )  # fmt: skip
    (covered,) = json.loads(report.read_text())["files"].values()
    assert (covered["missing_lines"], covered["missing_branches"]) == ([], [])
    assert covered["summary"]["num_branches"] > 40
