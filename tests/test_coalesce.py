"""Text joined while a reader catches up (``?coalesce=text``): few frames, the same bytes, cursors that fit."""

import asyncio
import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running_server import Frames, Server, serving
from streaming import finished, say

from playhead import Playhead, event
from playhead.asgi import EventStream
from playhead.sse import COALESCED, JOINED_MAX_CHARACTERS
from playhead.testing.sse_parser import ServerSentEvent, ServerSentEvents

THINGS = st.one_of(
    st.text(st.characters(), max_size=5),
    st.sampled_from(
        ["\ud800", "\r\n", "\0", "🐳", "", b"\xff", event("tool_call", {"name": "x"}), event("text", b"\xc3")]
    ),
)


async def body_of(playhead: Playhead, stream_id: str, after: str | None = None) -> list[ServerSentEvent]:
    sent: list[bytes] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sent.append(body)

    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()  # a client that stays says nothing more
        raise AssertionError("unreachable")

    tail = playhead.tail(stream_id, after=after)
    await tail.open()
    await EventStream(tail, COALESCED)({"type": "http", "method": "GET"}, receive, send)  # type: ignore[arg-type]
    return ServerSentEvents().feed(b"".join(sent))


def data_of(frame: ServerSentEvent) -> bytes:
    facts = json.loads(frame.data)
    if facts.get("encoding") == "base64":
        return base64.b64decode(facts["data"])
    return str(facts["data"]).encode("utf-8", "surrogatepass")


@pytest.mark.proves("H7")
@given(things=st.lists(THINGS, max_size=30))
@settings(max_examples=60)
async def test_from_any_cursor_that_was_handed_out_the_rest_follows_exactly(things: list[object]) -> None:
    async with Playhead.open("memory://") as playhead:
        await playhead.start(say(*things), stream_id="s")
        await finished(playhead, "s")
        stored = [one async for one in playhead.events("s")]
        places: list[tuple[str | None, int]] = [(None, 0)]
        while places:
            after, offset = places.pop()
            frames = await body_of(playhead, "s", after) if offset <= len(stored) else []
            for number, frame in enumerate(frames):
                facts = json.loads(frame.data)
                if frame.type == "playhead.close":
                    assert offset == len(stored)
                    continue
                first = facts.get("first", facts["offset"])
                assert first == offset + 1
                span = stored[first - 1 : facts["offset"]]
                assert {one.type for one in span} == {frame.type}
                assert b"".join(one.data for one in span) == data_of(frame)
                offset = facts["offset"]
                if after is None or number == 0:
                    places.append((frame.id, offset))


async def test_neighbours_are_joined_and_only_text(playhead: Playhead) -> None:
    await playhead.start(say("a", "b", event("tool_call", {"x": 1}), "c", b"\xff", "d", "e"), stream_id="s")
    await finished(playhead, "s")
    told = [json.loads(frame.data) for frame in await body_of(playhead, "s")]
    shown = [(one.get("first"), one["offset"], one.get("data")) for one in told]
    assert shown == [
        *((1, 2, "ab"), (None, 3, '{"x":1}'), (None, 4, "c"), (None, 5, "/w=="), (6, 7, "de")),
        (None, 8, None),
    ]


async def test_a_frame_has_a_limit(playhead: Playhead) -> None:
    word = "x" * (JOINED_MAX_CHARACTERS // 4)
    await playhead.start(say(*[word] * 10, word * 5), stream_id="s")
    await finished(playhead, "s")
    sizes = [len(data_of(frame)) for frame in (await body_of(playhead, "s"))[:-1]]
    assert sizes == [4 * len(word), 4 * len(word), 2 * len(word), 5 * len(word)]


@pytest.mark.proves("H7", "H8")
async def test_ten_thousand_words_are_a_handful_of_frames(server: Server) -> None:
    words = [f"word {number} " for number in range(10_000)]
    info = await server.playhead.start(say(*words), owner="local")
    await server.playhead.wait(info.stream_id, principal="local")
    path = f"/v1/streams/{info.stream_id}"
    joined = await server.http.get(f"{path}?coalesce=text")
    frames = Frames.of(joined.text).frames
    assert "".join(frame.json()["data"] for frame in frames[:-1]) == "".join(words)
    assert len(frames) < 10
    plain = await server.http.get(path)
    assert len(Frames.of(plain.text).frames) == 10_001
    assert 5 * len(joined.content) < len(plain.content)
    for answer in (joined, plain):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["playhead-tail"] == "10000"


async def test_what_cannot_be_joined_is_refused(server: Server) -> None:
    info = await server.playhead.start(say("a"), owner="local")
    answer = await server.http.get(f"/v1/streams/{info.stream_id}?coalesce=everything")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.fixture
async def server(tmp_path):  # type: ignore[no-untyped-def]
    async with serving(tmp_path) as server:
        yield server
