"""Frames, byte for byte, and through a strict parser."""

import base64
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playhead import Cursor, Outcome, OutcomeKind, Status, StreamInfo
from playhead.errors import CursorAhead, PlayheadError, StreamExpired, StreamNotFound
from playhead.model import Batch, cursor_prefix
from playhead.sse import CLOSE_EVENT, KEEP_ALIVE, NATIVE, close_frame, data_lines, error_frame, frames, opening, problem
from playhead.testing.sse_parser import ServerSentEvent, ServerSentEvents

INFO = StreamInfo("s", epoch=3, created_at=1_700_000_000.0)
PREFIX = cursor_prefix(INFO.mark, 3)
TYPES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60) | st.sampled_from(["a b", " x"])
DATAS = st.binary(max_size=200) | st.text(st.characters(), max_size=200).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


def parsed(stream: bytes, cuts: list[int] | None = None) -> tuple[list[ServerSentEvent], ServerSentEvents]:
    parser = ServerSentEvents()
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts or []), len(stream)]
    events = []
    for start, end in pairwise(borders):
        events += parser.feed(stream[start:end])
    assert parser.is_between_frames
    assert parser.empty_dispatches == 0
    assert parser.unknown_fields == []
    return events, parser


def data_of(event: ServerSentEvent) -> bytes:
    value: dict[str, Any] = json.loads(event.data)
    if value.get("encoding") == "base64":
        return base64.b64decode(value["data"])
    return value["data"].encode()


def test_frames_are_these_bytes() -> None:
    batch = Batch(7, 3, ["text", "bytes", "tool"], ['Hé\n"'.encode(), b"\xff\0", b'{"a":1}'])
    assert (
        frames(INFO, batch)
        == (
            f'id: {PREFIX}7\nevent: text\ndata: {{"offset":7,"data":"Hé\\n\\""}}\n\n'
            f'id: {PREFIX}8\nevent: bytes\ndata: {{"offset":8,"data":"/wA=","encoding":"base64"}}\n\n'
            f'id: {PREFIX}9\nevent: tool\ndata: {{"offset":9,"data":"{{\\"a\\":1}}"}}\n\n'
        ).encode()
    )
    assert opening(1000) == b"retry: 1000\n"
    assert KEEP_ALIVE == b": keep-alive\n"


@pytest.mark.parametrize(
    ("outcome", "data"),
    [
        (Outcome(OutcomeKind.COMPLETED), '{"offset":10,"outcome":"completed"}'),
        (Outcome(OutcomeKind.FAILED, error="x\ny"), '{"offset":10,"outcome":"failed","error":"x\\ny"}'),
        (
            Outcome(OutcomeKind.CANCELLED, by="ann", reason="r"),
            '{"offset":10,"outcome":"cancelled","by":"ann","reason":"r"}',
        ),
        (
            Outcome(OutcomeKind.INTERRUPTED, reason="shutdown"),
            '{"offset":10,"outcome":"interrupted","reason":"shutdown"}',
        ),
        (
            Outcome(OutcomeKind.FAILED, error="\ud800\0\r"),
            '{"offset":10,"outcome":"failed","error":"\\ud800\\u0000\\r"}',
        ),
    ],
)
def test_the_close_is_the_last_frame_for_all_outcomes(outcome: Outcome, data: str) -> None:
    info = INFO.but(status=Status.CLOSED, tail=9, outcome=outcome)
    assert close_frame(info) == f"id: {PREFIX}10\nevent: playhead.close\ndata: {data}\n\n".encode()
    assert Cursor.parse(f"{PREFIX}10").offset == 10


@pytest.mark.proves("H1", "H5")
@settings(max_examples=300)
@given(
    events=st.lists(st.tuples(TYPES, DATAS), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_h1_every_byte_survives(events: list[tuple[str, bytes]], cuts: list[int]) -> None:
    batch = Batch(5, 3, [kind for kind, _ in events], [data for _, data in events])
    close = close_frame(INFO.but(tail=batch.last, outcome=Outcome(OutcomeKind.COMPLETED)))
    stream = opening(1000) + NATIVE.encode(INFO, [batch]) + KEEP_ALIVE + KEEP_ALIVE + close
    got, parser = parsed(stream, cuts)
    assert [(event.type, data_of(event), event.id) for event in got[:-1]] == [
        (kind, data, f"{PREFIX}{5 + n}") for n, (kind, data) in enumerate(events)
    ]
    assert [json.loads(event.data)["offset"] for event in got] == list(range(5, batch.last + 2))
    assert got[-1].type == CLOSE_EVENT
    assert parser.last_event_id == f"{PREFIX}{batch.last + 1}"
    assert parser.retry_ms == 1000


@settings(max_examples=200)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    cuts=st.lists(st.integers(0, 1000), max_size=10),
)
def test_data_lines_carry_any_text_but_for_the_kind_of_line_end(text: str, cuts: list[int]) -> None:
    got, _ = parsed((data_lines(text) + "\n").encode(), cuts)
    assert got == [ServerSentEvent("message", text.replace("\r\n", "\n").replace("\r", "\n"), "")]


def test_a_batch_is_encoded_once_per_door() -> None:
    batch = Batch(1, 3, "text", [b"x"])
    assert NATIVE.encode(INFO, [batch]) == NATIVE.encode(INFO, [batch])
    assert len(batch._encoded) == 1


@pytest.mark.proves("H4")
def test_h4_errors_are_problem_documents() -> None:
    error = CursorAhead("too far", offset=9, tail=5, owner=None)
    expected = {
        "offset": 9,
        "tail": 5,
        "type": "urn:playhead:cursor-ahead",
        "title": "Cursor ahead",
        "status": 416,
        "detail": "too far",
        "code": "cursor-ahead",
        "retryable": False,
    }
    assert problem(error) == expected
    (event,), _ = parsed(error_frame(error))
    assert (event.type, json.loads(event.data), event.id) == ("playhead.error", expected, "")
    assert problem(StreamNotFound("x"))["status"] == 404
    assert problem(StreamExpired("x"))["status"] == 410


def test_facts_never_hide_what_a_problem_must_say() -> None:
    error = PlayheadError("x", type="fact", status="fact", detail="fact", title="fact", code="fact")
    assert problem(error)["type"] == "urn:playhead:internal"
    assert problem(error)["status"] == 500


# ---- the parser itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_the_parser_knows_the_specification(end: str) -> None:
    text = (
        ": comment|data: a|data:b|data|data:  c|id: 1|event: e||"
        "data: no type||id: 2\0||data: x|id||retry: 12|retry: 1x|fruit: y|event: lost||data: z|||data: unfinished"
    )
    for size in (1, 2, 3, 1000):
        parser = ServerSentEvents()
        stream = ("\ufeff" + text.replace("|", end)).encode()
        got = []
        for at in range(0, len(stream), size):
            got += parser.feed(stream[at : at + size])
        assert got == [
            ServerSentEvent("e", "a\nb\n\n c", "1"),
            ServerSentEvent("message", "no type", "1"),
            ServerSentEvent("message", "x", ""),
            ServerSentEvent("message", "z", ""),
        ]
        assert parser.comments == ["comment"]
        assert parser.retry_ms == 12
        assert parser.unknown_fields == ["fruit"]
        assert parser.empty_dispatches == 3
        assert not parser.is_between_frames
