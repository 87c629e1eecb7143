"""The parser of server-sent events: the same events wherever the bytes are cut, and a bound on what it keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playhead.errors import EventTooLarge
from playhead.sse_parser import EventParser, ServerSentEvent

KINDS = ["data: a", "data:ü🙂", "data", "event: e", "id: 7", "retry: 5", ": no", "x: y", "", "", "\ufeffdata: b"]
LINES = st.lists(st.sampled_from(KINDS), max_size=12)


@given(st.data(), LINES)
def test_events_are_the_same_wherever_the_bytes_are_cut(data: st.DataObject, lines: list[str]) -> None:
    stream = "".join(line + data.draw(st.sampled_from(["\n", "\r", "\r\n"])) for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    whole, torn = EventParser(), EventParser()
    events = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += torn.feed(stream[begin:end])
    assert events == whole.feed(stream)
    assert (torn.last_event_id, torn.retry_ms) == (whole.last_event_id, whole.retry_ms)
    assert torn.is_between_frames == whole.is_between_frames


def test_a_carriage_return_ends_a_line_at_once() -> None:
    parser = EventParser()
    assert parser.feed(b"data: a\r\r") == [ServerSentEvent("message", "a", "")]
    assert parser.feed(b"\ndata: b\n\n") == [ServerSentEvent("message", "b", "")]


def test_half_a_frame_is_no_event() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 1\nevent: text\ndata: {}\n") == []
    assert not parser.is_between_frames


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 101, b"data: 4567890\n" * 10, b":" + b"-" * 200], ids=repr)
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_what_it_keeps_is_bounded(stream: bytes, size: int) -> None:
    parser = EventParser(frame_max_bytes=100)

    def feed_all() -> None:
        for at in range(0, len(stream), size):
            parser.feed(stream[at : at + size])

    with pytest.raises(EventTooLarge) as raised:
        feed_all()
    assert raised.value.limit == 100


def test_frames_up_to_the_bound_are_taken_one_after_the_other() -> None:
    parser = EventParser(frame_max_bytes=100)
    frame = b"data: " + b"x" * 90 + b"\n\n"
    assert len(parser.feed(frame * 20)) == 20


def test_bytes_that_are_not_utf_8_are_an_error_not_another_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        EventParser().feed(b"data: \xff\n")


@pytest.mark.parametrize("value", ["²", "-1", "1.5", "9" * 5_000, ""])
def test_a_retry_that_is_no_sensible_number_is_none(value: str) -> None:
    parser = EventParser()
    parser.feed(f"retry: 7\nretry: {value}\n".encode())
    assert parser.retry_ms == 7
