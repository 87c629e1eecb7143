"""The words: cursors, what a source may yield, batches, ids."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from playhead.errors import CursorInvalid, InvalidEvent, InvalidStreamId, SourceFailed
from playhead.model import (
    BYTES,
    COMPLETED,
    CURSOR_MAX_BYTES,
    JSON,
    RESERVED,
    TEXT,
    Batch,
    Cursor,
    Draft,
    Event,
    Outcome,
    OutcomeKind,
    Status,
    StreamInfo,
    check_stream_id,
    cursor_prefix,
    draft,
    event,
    stream_mark,
)

# Not st.text: it would make one alphabet of both, in which the few hardly ever come up.
any_text = st.lists(st.characters(exclude_categories=()) | st.sampled_from("\ud800\udfff\0\r\n\u2028")).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)

# ---- cursors ----------------------------------------------------------------------------------------------


@given(any_text, st.floats(), st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
@example("", 0.0, 0, 0)
@example("x" * 1_000, 1_700_000_000.123456, 10**18 - 1, 10**18 - 1)
def test_p2_cursors_come_back(stream_id: str, created_at: float, epoch: int, offset: int) -> None:
    mark = StreamInfo(stream_id, created_at=created_at).mark
    cursor = Cursor(mark, epoch, offset)
    text = str(cursor)
    assert Cursor.parse(text) == cursor
    assert text == cursor_prefix(mark, epoch) + str(offset)
    assert text.isascii()
    assert len(text) <= CURSOR_MAX_BYTES
    assert not set(text) & set(" \r\n\t\"'%&?#/\\,;=+")  # fits into a URL, a header and an SSE frame as it is


MARK = stream_mark("s", 0.0)
GARBAGE = [
    "", "0", "1", "7", "1..", "1...", f"1.{MARK}.1", f"1.{MARK}.1.", f"1.{MARK}..1", f"1.{MARK}.1.1.",
    f"1.{MARK}.1.1.1",
    f"2.{MARK}.1.1", f"01.{MARK}.1.1", f"1.{MARK}.-1.1", f"1.{MARK}.1.-1", f"1.{MARK}.+1.1", f"1.{MARK}.1.1 ",
    f" 1.{MARK}.1.1", f"1.{MARK}.1.1\n", f"1.{MARK}.1.1_0", f"1.{MARK}.1.1e3", f"1.{MARK}.0x1.1", f"1.{MARK}.1.٣",
    f"1.{MARK}.1.²", f"1.{MARK}.1.{10**18}", f"1.{MARK}.{10**18}.1", f"1.{MARK}.1.{'9' * 40}",
    f"1.{MARK}.1.{'0' * 60}1", "null", "undefined", "../..", "\0", "1" * 1_000_000,
]  # fmt: skip


@pytest.mark.proves("P2.2")
@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:40]))
def test_p2_garbage_is_no_cursor(text: str) -> None:
    with pytest.raises(CursorInvalid):
        Cursor.parse(text)


@given(any_text | st.from_regex(r"1\.[^.]*\.[^.]*\.[^.]*"))
def test_p2_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except CursorInvalid:
        return
    assert 0 <= cursor.epoch < 10**18
    assert 0 <= cursor.offset < 10**18
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.proves("P2.2")
def test_p2_marks_belong_to_one_stream_ever() -> None:
    """A deleted stream's id, given to another stream, stands for another mark: its old cursors do not fit."""
    marks = {stream_mark(f"stream {n}", created_at) for n in range(10_000) for created_at in (1.0, 1.000001)}
    assert len(marks) == 20_000
    assert {len(mark) for mark in marks} == {11}
    assert StreamInfo("s", created_at=1.5, epoch=2, tail=3).mark == StreamInfo("s", created_at=1.5).mark


def test_a_states_cursor_includes_the_close() -> None:
    live = StreamInfo("s", epoch=2, tail=5)
    assert live.cursor == str(Cursor(live.mark, 2, 5))
    assert live.but(status=Status.CLOSED, outcome=COMPLETED).cursor == str(Cursor(live.mark, 2, 6))
    assert live.is_live
    assert not live.but(status=Status.EXPIRED).is_live


# ---- what a source yields ---------------------------------------------------------------------------------


@pytest.mark.proves("P1.3")
@given(any_text)
@example("nul \0, line\r\nend, lone \ud800 surrogate, \udfff\ud800 wrong pair, ☃")
def test_p1_text_comes_back(text: str) -> None:
    kind, data = draft(text)
    assert kind == TEXT
    assert Event(1, kind, data).text == text


@pytest.mark.proves("P1.3")
@given(st.binary())
def test_p1_bytes_come_back(data: bytes) -> None:
    for item in (data, bytearray(data), memoryview(data)):
        assert draft(item) == (BYTES, data)
        assert type(draft(item).data) is bytes


@given(json_values.filter(lambda value: not isinstance(value, str)))
def test_p1_json_comes_back(value: Any) -> None:
    kind, data = draft(value)
    assert kind == JSON
    assert Event(1, kind, data).json() == value
    assert json.loads(data) == value


def test_bytes_are_a_copy() -> None:
    mine = bytearray(b"before")
    made = draft(mine)
    mine[:] = b"after!"
    assert made.data == b"before"


def test_json_is_compact() -> None:
    assert draft({"a": [1, "ü"]}).data == '{"a":[1,"ü"]}'.encode()


@pytest.mark.parametrize(
    "item", [object(), {1, 2}, float("nan"), float("inf"), {"a": b"x"}, {(1, 2): 3}, [10**5_000]], ids=type
)
def test_what_is_neither_text_nor_bytes_nor_json_is_refused(item: object) -> None:
    with pytest.raises(InvalidEvent):
        draft(item)


def test_endless_json_is_refused() -> None:
    around: list[object] = []
    around.append(around)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for item in (around, deep):
        with pytest.raises(InvalidEvent):
            draft(item)


def test_events_have_a_type_of_their_own() -> None:
    assert event("tool call", "ü") == Draft("tool call", "ü".encode())
    assert event("done") == Draft("done", b"")
    assert event("json", [1]) == Draft("json", b"[1]")
    assert event("ü" * 127, b"\0").data == b"\0"
    assert draft(event("x", b"y")) == Draft("x", b"y")


@pytest.mark.parametrize("name", [RESERVED, RESERVED + "x"])
def test_reserved_types_are_not_for_sources(name: str) -> None:
    with pytest.raises(InvalidEvent):
        event(name, b"")


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "\0", "\ud800", "x" * 256, "ü" * 128, "\u2028"])
def test_types_are_short_printable_text(name: str) -> None:
    for make in (lambda: event(name, b""), lambda: draft(Draft(name, b""))):
        with pytest.raises(InvalidEvent):
            make()


# ---- batches ----------------------------------------------------------------------------------------------

batches = st.builds(
    lambda first, rows, one: Batch(first, 3, "one" if one else [name for name, _ in rows], [data for _, data in rows]),
    st.integers(1, 1_000),
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.binary(max_size=5)), min_size=1),
    st.booleans(),
)


@given(batches)
def test_p2_a_batch_numbers_its_events(batch: Batch) -> None:
    names = [batch.types] * len(batch.datas) if isinstance(batch.types, str) else batch.types
    offsets = range(batch.first, batch.first + len(batch.datas))
    assert batch.events == list(zip(offsets, names, batch.datas, strict=True))
    assert all(type(item) is Event for item in batch.events)
    assert batch.last == batch.events[-1].offset
    assert batch.size_bytes == sum(len(item.data) for item in batch.events)


@given(batches, st.integers(-5, 1_200))
def test_p2_the_rest_of_a_batch(batch: Batch, offset: int) -> None:
    rest = batch.after(offset)
    assert rest.events == [item for item in batch.events if item.offset > offset]
    assert (rest.epoch, rest.size_bytes) == (batch.epoch, sum(len(item.data) for item in rest.events))
    if offset < batch.first:
        assert rest is batch


def test_p8_a_batch_is_encoded_once_for_all() -> None:
    calls: list[int] = []

    def encode(batch: Batch) -> bytes:
        calls.append(batch.first)
        return b"frame %d" % len(calls)

    batch = Batch(1, 1, TEXT, [b"x"])
    assert [batch.encoded(encode, "sse") for _ in range(3)] == [b"frame 1"] * 3
    assert batch.encoded(encode, ("sse", 2)) == b"frame 2"
    assert calls == [1, 1]


# ---- the rest ---------------------------------------------------------------------------------------------


def test_only_completed_streams_do_not_fail() -> None:
    COMPLETED.raise_for_failure()
    for outcome, words in {
        Outcome(OutcomeKind.FAILED, error="broken"): "stream failed: broken",
        Outcome(OutcomeKind.CANCELLED, by="ann"): "stream cancelled: ann",
        Outcome(OutcomeKind.INTERRUPTED, reason="shutdown"): "stream interrupted: shutdown",
        Outcome(OutcomeKind.INTERRUPTED): "stream interrupted",
    }.items():
        with pytest.raises(SourceFailed) as failed:
            outcome.raise_for_failure()
        assert (str(failed.value), failed.value.outcome) == (words, str(outcome.kind))


@pytest.mark.parametrize("stream_id", ["a", " ", "ü☃𝄞", "x" * 1_000, "../..", "'\";--"])
def test_stream_ids(stream_id: str) -> None:
    assert check_stream_id(stream_id) == stream_id


@pytest.mark.parametrize("stream_id", ["", "x" * 1_001, "a\nb", "\0", "\ud800", "\u200b", "\x7f"])
def test_what_is_no_stream_id(stream_id: str) -> None:
    with pytest.raises(InvalidStreamId):
        check_stream_id(stream_id)
