"""The pure part of the client: what it makes of answers and bytes, and how long it waits."""

import contextlib
import json
import signal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead import Event, OutcomeKind, PlayheadError, errors
from playhead.client import BadAnswer, Client, ConnectionLost, Limits, Refused, State, StreamState, Tail, Unauthorized
from playhead.client.following import FRUITLESS_MAX, Following, wait_s
from playhead.client.trouble import refusal
from playhead.errors import CursorInvalid, EventTooLarge, InvalidStreamId, StoreCorrupt, StreamNotFound
from playhead.model import COMPLETED
from playhead.sse import problem

LIMITS = Limits()
HEAD = {"content-type": "text/event-stream; charset=utf-8", "playhead-tail": "2"}


def cursor(offset: int) -> str:
    return f"1.abcdefghijk.5.{offset}"


def frame(offset: int, kind: str = "text", *, mark: str | None = None, **said: Any) -> bytes:
    body = {"offset": offset, **({"data": f"e{offset}"} | said if kind != "playhead.close" else said)}
    return f"id: {mark or cursor(offset)}\nevent: {kind}\ndata: {json.dumps(body)}\n\n".encode()


def following(after: str | None = None, **how: Any) -> Following:
    return Following("s", after, LIMITS, now=0.0, **{"chance": lambda: 0.0, **how})


def opened(after: str | None = None, **how: Any) -> Following:
    it = following(after, **how)
    it.call(0.0)
    assert it.opened(HEAD, 0.0)
    return it


def taken(it: Following) -> list[int]:
    offsets = []
    while (event := it.take()) is not None:
        offsets.append(event.offset)
    return offsets


# ------------------------------------------------------------------------------------- states


@pytest.mark.proves("K3")
def test_catching_up_until_it_has_what_was_there() -> None:
    it = following()
    assert it.state is State.CONNECTING
    it.call(0.0)
    it.opened(HEAD, 0.0)
    assert it.state is State.CATCHING_UP
    it.received(frame(1) + frame(2) + frame(3), 0.0)
    assert it.state is State.CATCHING_UP
    assert it.take() == Event(1, "text", b"e1")
    assert it.state is State.CATCHING_UP
    assert it.take() == Event(2, "text", b"e2")
    assert (it.state, it.tail) == (State.LIVE, 3)


def test_closed_only_when_all_was_handed_on() -> None:
    it = opened()
    assert not it.received(frame(1) + frame(2, "playhead.close", outcome="failed", error="why"), 0.0)
    assert (it.outcome, it.is_over) == (None, False)
    assert taken(it) == [1]
    assert it.outcome is not None
    assert (it.outcome.kind, it.outcome.error) == (OutcomeKind.FAILED, "why")
    assert (it.state, it.cursor, it.tail) == (State.CLOSED, cursor(2), 2)


@pytest.mark.proves("K1")
def test_a_lost_connection_is_made_again_with_the_last_cursor() -> None:
    it = opened()
    it.received(frame(1) + frame(2)[:-1], 0.0)
    assert taken(it) == [1]
    it.lost(ConnectionLost("gone"), 1.0)
    assert (it.state, it.call(1.0).headers["last-event-id"]) == (State.RECONNECTING, cursor(1))
    it.opened(HEAD, 2.0)
    it.received(frame(2), 2.0)
    assert taken(it) == [2]
    assert it.state is State.LIVE


def test_what_came_but_was_not_handed_on_is_not_asked_for_again() -> None:
    it = opened()
    it.received(frame(1) + frame(2), 0.0)
    assert it.take() is not None
    it.left(0.0)
    assert it.cursor == cursor(1)
    assert it.call(0.0).headers["last-event-id"] == cursor(2)
    assert taken(it) == [2]


def test_an_interrupt_between_two_steps_loses_nothing_and_repeats_nothing() -> None:
    """Hundreds of interrupts while events are handed on as fast as can be: wherever Python looks at signals."""
    last, interrupts, is_reading = 200_000, 0, False
    got: list[int] = []

    class Interrupt(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupts, is_reading
        if is_reading:
            is_reading = False
            interrupts += 1
            raise Interrupt

    it = opened()
    it._ready.extend((Event(offset, "text", b""), cursor(offset)) for offset in range(1, last + 1))
    it.received(frame(last + 1, "playhead.close", outcome="completed"), 0.0)
    before = signal.signal(signal.SIGALRM, interrupt)
    timer_before = signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)  # it may be the one that ends tests that hang
    try:
        with Client("http://127.0.0.1:9") as client:
            tail = Tail(client, it, None)
            while len(got) < last:
                loop = iter(tail)
                with contextlib.suppress(Interrupt):
                    is_reading = True
                    for each in loop:
                        got.append(each.offset)
                        is_reading = len(got) < last
                        if not is_reading:
                            break
                assert tail.cursor == (cursor(len(got)) if got else None)
            assert list(tail) == []
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
        signal.signal(signal.SIGALRM, before)
    assert got == list(range(1, last + 1))
    assert tail.outcome == COMPLETED
    assert interrupts > 50


# ------------------------------------------------------------------------------- what has come


@given(st.lists(st.integers(1, 6), max_size=30))
def test_whatever_comes_each_event_is_handed_on_once_and_in_order(offsets: list[int]) -> None:
    it = opened()
    got: list[int] = []
    for offset in offsets:
        if not it._is_connected:
            it.opened(HEAD, 0.0)
        it.received(frame(offset), 0.0)
        got += taken(it)
        if it.is_over:
            break
    assert got == list(range(1, len(got) + 1))


@pytest.mark.proves("K2")
def test_a_gap_is_never_handed_on_and_fails_when_it_stays() -> None:
    it = opened()
    it.received(frame(1), 0.0)
    for _ in range(FRUITLESS_MAX):
        assert not it.received(frame(3), 0.0)
        assert taken(it) == ([1] if not _ else [])
        assert it.state is State.RECONNECTING
        it.opened(HEAD, 0.0)
    it.received(frame(3), 0.0)
    assert taken(it) == []
    assert isinstance(it.failure, BadAnswer)


def test_joined_events_that_overlap_are_asked_for_again() -> None:
    it = opened(cursor(2), coalesce=True)
    assert it.call(0.0).params == {"coalesce": "text"}
    assert it.received(frame(4, first=3), 0.0)
    assert not it.received(frame(6, first=4), 0.0)
    assert taken(it) == [4]
    assert it.state is State.RECONNECTING


@pytest.mark.parametrize(
    "broken",
    [
        b"id: 1\ndata: {\n\n",
        b"id: 1\ndata: 5\n\n",
        b"id: 1\ndata: []\n\n",
        b'id: 1\ndata: {"data":"x"}\n\n',
        b'id: 1\ndata: {"offset":true,"data":"x"}\n\n',
        b'id: 1\ndata: {"offset":"1","data":"x"}\n\n',
        b'id: 1\ndata: {"offset":1}\n\n',
        b'id: 1\ndata: {"offset":1,"data":5}\n\n',
        b'id: 1\ndata: {"offset":1,"data":"x","encoding":"rot13"}\n\n',
        b'id: 1\ndata: {"offset":1,"data":"\xc3\xbc","encoding":"base64"}\n\n',
        b'data: {"offset":1,"data":"x"}\n\n',
        b'id: \xc3\xbc\ndata: {"offset":1,"data":"x"}\n\n',
        b'id: 1\nevent: playhead.close\ndata: {"offset":1,"outcome":"odd"}\n\n',
        b"id: 1\ndata: " + b"[" * 100_000 + b"\n\n",
    ],
    ids=range(14),
)
def test_what_no_server_says_fails_and_what_came_before_is_kept(broken: bytes) -> None:
    it = opened()
    assert not it.received(frame(1) + broken.replace(b'"offset":1', b'"offset":2'), 0.0)
    assert it.failure is None
    assert taken(it) == [1]
    assert isinstance(it.failure, BadAnswer)
    assert it.state is State.FAILED


def test_bytes_that_are_no_text_fail() -> None:
    it = opened()
    assert not it.received(b"id: 1\ndata: \xff\n\n", 0.0)
    assert taken(it) == []
    assert isinstance(it.failure, BadAnswer)


def test_facts_may_have_any_name() -> None:
    body = {**problem(StreamNotFound("why")), "message": "m", "self": 1}
    assert refusal(404, json.dumps(body).encode()).facts == {"message": "m", "self": 1}


def test_kinds_of_frames_of_later_versions_are_passed_over() -> None:
    it = opened()
    it.received(frame(9, "playhead.news") + b"event: playhead.more\ndata: {}\n\n" + frame(1), 0.0)
    assert taken(it) == [1]


def test_a_frame_that_is_too_large_fails() -> None:
    it = Following("s", None, Limits(frame_max_bytes=100), now=0.0)
    it.opened(HEAD, 0.0)
    it.received(b"data: " + b"x" * 101, 0.0)
    assert taken(it) == []
    assert isinstance(it.failure, EventTooLarge)


def test_surrogates_in_json_are_kept() -> None:
    it = opened()
    it.received(frame(1, data="\ud83d"), 0.0)
    event = it.take()
    assert event is not None
    assert event.text == "\ud83d"


# ------------------------------------------------------------------------------------ trouble


def _every_error() -> list[type[PlayheadError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PlayheadError)]
    return sorted(set(kinds) - {PlayheadError}, key=lambda kind: kind.code)


@pytest.mark.parametrize("kind", _every_error(), ids=lambda kind: kind.code)
def test_every_error_of_the_engine_comes_back_as_itself(kind: type[PlayheadError]) -> None:
    error = refusal(kind.http_status, json.dumps(problem(kind("why", stream_id="s"))).encode())
    assert (type(error), str(error), error.facts) == (kind, "why", {"stream_id": "s"})


@pytest.mark.proves("K4")
def test_an_error_that_stays_is_the_end() -> None:
    it = following()
    it.refused(404, {}, json.dumps(problem(StreamNotFound("gone"))).encode(), 0.0)
    assert it.take() is None
    assert (it.state, type(it.failure)) == (State.FAILED, StreamNotFound)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5", b'{"detail": 7}', b'{"code": ["x"]}', b"[" * 100_000])
@pytest.mark.parametrize(("status", "kind"), [(404, Refused), (302, Refused), (401, Unauthorized)])
def test_answers_of_somebody_else_are_refusals(status: int, kind: type[PlayheadError], body: bytes) -> None:
    error = refusal(status, body)
    assert type(error) is kind
    assert str(error)


def test_an_error_frame_ends_it_or_is_waited_out() -> None:
    it = opened()
    assert not it.received(
        b"event: playhead.error\ndata: " + json.dumps(problem(StoreCorrupt("x"))).encode() + b"\n\n", 0
    )
    assert taken(it) == []
    assert isinstance(it.failure, StoreCorrupt)
    it = opened()
    unavailable = json.dumps(problem(errors.StoreUnavailable("x"))).encode()
    assert not it.received(b"event: playhead.error\ndata: " + unavailable + b"\n\n", 0)
    assert (taken(it), it.state) == ([], State.RECONNECTING)
    assert isinstance(it.trouble, errors.StoreUnavailable)


AWAY = b'event: playhead.reconnecting\ndata: {"code":"store-unavailable","detail":"no answer"}\n\n'


@pytest.mark.proves("K6")
def test_a_store_that_is_away_is_no_lost_connection_and_no_progress() -> None:
    it = opened()
    assert it.received(frame(1) + AWAY, 0.0)
    assert (taken(it), it.state, it.cursor, it.tail) == ([1], State.RECONNECTING, cursor(1), 2)
    assert isinstance(it.trouble, errors.StoreUnavailable)
    assert str(it.trouble) == "no answer"
    assert it.received(b": keep-alive\n", 10.0)
    assert it.state is State.RECONNECTING
    assert it.received(frame(2), 20.0)
    assert (taken(it), it.state, it.trouble) == ([2], State.LIVE, None)
    assert it.received(AWAY, 21.0)
    assert it.state is State.RECONNECTING
    assert not it.received(frame(3, "playhead.close", outcome="completed"), 22.0)
    assert (taken(it), it.state, it.trouble) == ([], State.CLOSED, None)


@pytest.mark.proves("K6")
def test_an_outage_is_over_for_a_client_with_the_next_connection() -> None:
    it = opened()
    it.received(AWAY, 0.0)
    assert it.state is State.RECONNECTING
    for attempt in range(1, 4):  # waits grow: being told of an outage is no progress
        it.lost(ConnectionLost("the response ended"), 1.0)
        assert it.due_at == 1.0 + LIMITS.backoff_min_s * 2 ** (attempt - 1)
        it.opened(HEAD, 1.0)
        assert (it.state, it.trouble) == (State.CATCHING_UP, None)
        it.received(AWAY, 1.0)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 599])
def test_trouble_that_passes_is_waited_out(status: int) -> None:
    it = following()
    it.refused(status, {"retry-after": "7"}, b"", 100.0)
    assert (it.take(), it.state, it.due_at) == (None, State.RECONNECTING, 107.0)
    assert isinstance(it.trouble, Refused)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "3600"}, 60.0),
        ({"retry-after": "9" * 400}, 0.5),
        ({"retry-after": "-5"}, 0.5),
        ({"retry-after": "soon"}, 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:09 GMT"}, 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:09 -0000", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.5),
    ],
)
def test_retry_after_is_obeyed_within_reason(headers: dict[str, str], wait: float) -> None:
    it = following()
    it.refused(503, headers, b"", 0.0)
    assert it.due_at == wait


def test_retry_is_the_least_wait_and_is_bounded() -> None:
    for retry, wait in ((4_000, 4.0), (100, 0.5), (999_999_999, 60.0)):
        it = opened()
        it.received(f"retry: {retry}\n".encode() + frame(1), 0.0)
        taken(it)
        it.lost(ConnectionLost("gone"), 10.0)
        assert it.due_at == 10.0 + wait


@pytest.mark.parametrize("can_refresh", [True, False])
def test_a_token_is_asked_for_once_more(can_refresh: bool) -> None:
    it = following(can_refresh=can_refresh)
    it.refused(401, {}, b"", 5.0)
    it.take()
    if can_refresh:
        assert (it.failure, it.due_at) == (None, 5.0)
        it.refused(401, {}, b"", 5.0)
        it.take()
    assert isinstance(it.failure, Unauthorized)


def test_a_token_that_expires_again_later_is_asked_for_again() -> None:
    it = following(can_refresh=True)
    for _ in range(3):
        it.refused(401, {}, b"", 0.0)
        it.opened(HEAD, 0.0)
        it.left(0.0)
    for _ in range(3):
        it.refused(401, {}, b"", 0.0)
        it.lost(ConnectionLost("gone"), 0.0)
    assert it.take() is None
    assert it.failure is None


def test_an_answer_that_is_no_stream_fails() -> None:
    it = following()
    assert not it.opened({"content-type": "text/html"}, 0.0)
    it.take()
    assert isinstance(it.failure, BadAnswer)


def test_nothing_to_follow_in_a_live_stream_is_trouble() -> None:
    state = dict.fromkeys(("thread_id", "closed_at", "cancel_requested", "outcome"))
    known = {"stream_id": "s", "status": "live", "epoch": 1, "tail": 3, "size_bytes": 0, "cursor": "c", "metadata": {}}
    it = following()
    it.finished(StreamState.of({**state, **known, "created_at": "2026-01-01T00:00:00Z"}), 0.0)
    assert (it.take(), it.state) == (None, State.RECONNECTING)


# ------------------------------------------------------------------------------------ waiting


@pytest.mark.proves("K1")
def test_waits_grow_are_bounded_and_are_spread() -> None:
    waits = [wait_s(attempts, 0.0, LIMITS, 0.0) for attempts in range(10)]
    assert waits[0] == LIMITS.backoff_min_s
    assert all(after == min(2 * before, LIMITS.backoff_max_s / 2) for before, after in pairwise(waits))
    for attempts in (0, 3, 10_000):
        least, most = (wait_s(attempts, 0.0, LIMITS, chance) for chance in (0.0, 1.0))
        assert most == 2 * least <= LIMITS.backoff_max_s
    assert wait_s(0, 1.0, LIMITS, 0.5) == 1.25


def test_waits_begin_anew_after_an_event_and_not_after_an_empty_answer() -> None:
    it = following()

    def wait() -> float:
        it.lost(ConnectionLost("gone"), 0.0)
        return it.due_at

    assert [wait(), wait()] == [0.5, 1.0]
    it.opened(HEAD, 0.0)
    assert wait() == 2.0
    it.opened(HEAD, 0.0)
    it.received(frame(1), 0.0)
    assert wait() == 0.5
    it.opened(HEAD, -20.0)  # it was open for long, and had nothing to say
    assert wait() == 0.5


def test_it_gives_up_after_so_long_without_a_connection() -> None:
    it = following(give_up_after_s=10.0)
    it.call(100.0)
    it.lost(ConnectionLost("first"), 101.0)
    it.lost(ConnectionLost("second"), 108.5)
    assert it.due_at == 109.5
    assert it.connect_s(108.5) == 1.5
    it.lost(ConnectionLost("third"), 109.5)
    assert it.due_at == 110.0
    it.lost(ConnectionLost("last"), 110.0)
    assert it.take() is None
    assert isinstance(it.failure, ConnectionLost)
    assert "last" in str(it.failure)


def test_a_connection_stops_the_clock_of_giving_up() -> None:
    it = following(give_up_after_s=10.0)
    it.call(0.0)
    it.opened(HEAD, 5.0)
    it.lost(ConnectionLost("later"), 1_000.0)
    assert it.due_at == 1_000.5
    assert it.take() is None
    assert it.failure is None


# -------------------------------------------------------------------------- what cannot be asked


def test_ids_and_cursors_that_cannot_be_sent_are_refused_at_once() -> None:
    for stream_id in ("", "a\nb", "x" * 1_001):
        with pytest.raises(InvalidStreamId):
            Following(stream_id, None, LIMITS, now=0.0)
    for bad in ("a b", "a\r\nx: y", "ü", "x" * 65):
        with pytest.raises(CursorInvalid):
            Following("s", bad, LIMITS, now=0.0)


def test_a_cursor_of_an_unknown_form_is_the_servers_to_judge() -> None:
    it = opened("opaque")
    assert it.call(0.0).headers["last-event-id"] == "opaque"
    it.received(frame(41) + frame(42), 0.0)
    assert taken(it) == [41, 42]
