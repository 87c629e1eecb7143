"""``/chat/stream``: its frames, and which stream of the thread a request means."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import Frame, Frames, Server, frames_of, serving

from playhead import Outcome, OutcomeKind, Query, Writer, event
from playhead.server import thread_stream

OWNER = "local"
PATH = "/v1/chat/stream"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
def thread_id() -> str:
    return str(uuid.uuid4())


async def produce(server: Server, thread_id: str) -> Writer:
    return await server.playhead.produce(thread_id=thread_id, owner=OWNER)


async def written(server: Server, thread_id: str, *items: object, outcome: Outcome | None = None) -> None:
    writer = await produce(server, thread_id)
    await writer.append(*items)
    await writer.close(outcome or Outcome(OutcomeKind.COMPLETED))


async def follow(server: Server, thread_id: str, cursor: str | None = None) -> list[Frame]:
    headers = {} if cursor is None else {"last-event-id": cursor}
    return await frames_of(server.http, PATH, params={"thread_id": thread_id}, headers=headers)


def shape(frames: list[Frame]) -> list[tuple[str, str]]:
    return [(frame.event, frame.data) for frame in frames]


async def following(server: Server, thread_id: str) -> tuple["asyncio.Task[list[Frame]]", asyncio.Event]:
    """A reader in the background, and the event that its first frame is here."""
    begun = asyncio.Event()

    async def read() -> list[Frame]:
        seen = Frames()
        async with server.http.stream("GET", PATH, params={"thread_id": thread_id}) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if seen.feed_line(line):
                    begun.set()
        return seen.frames

    return asyncio.create_task(read()), begun


async def waiting(server: Server, thread_id: str, monkeypatch: pytest.MonkeyPatch) -> "asyncio.Task[list[Frame]]":
    """A reader who was here before the stream that it is to follow, and waits for it however long that takes."""
    monkeypatch.setattr(thread_stream, "PATIENCE_S", 600)
    looked = asyncio.Event()
    watch = server.playhead.watch_thread

    async def watched(*given: Any, **more: Any) -> Any:
        found = await watch(*given, **more)
        looked.set()
        return found

    server.playhead.watch_thread = watched  # type: ignore[method-assign]
    reading, _ = await following(server, thread_id)
    await asyncio.wait_for(looked.wait(), 60)
    return reading


@pytest.mark.proves("C2")
async def test_text_and_tool_calls_are_framed_line_by_line(server: Server, thread_id: str) -> None:
    writer = await produce(server, thread_id)
    await writer.append("plain")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    await writer.append(
        " leading and trailing ",
        "a\r\nb\rc\nd",
        "data: x\n\nevent: system\ndata: end",
        "",
        "\n",
        "lone \ud800",
        event("tool_call", {"name": "clock", "id": "call_1"}),
        event("tool_result", {"name": "clock", "id": "call_1", "content": "noon"}),
        event("tool_call", "no object"),
        {"json": 1},
        b"\xff",
        event("chunk", "not the chat's"),
    )
    await writer.close()
    frames = await reading
    assert shape(frames) == [
        ("chunk", "plain"),
        ("chunk", " leading and trailing "),
        ("chunk", "a\nb\nc\nd"),
        ("chunk", "data: x\n\nevent: system\ndata: end"),
        ("chunk", ""),
        ("chunk", "\n"),
        ("chunk", "lone ���"),
        ("tool_call", "clock"),
        ("system", "message_ended"),
        ("system", "end"),
    ]
    assert [frame.id is None for frame in frames] == 8 * [False] + [True, False]
    latest = await server.playhead.latest(thread_id, principal=OWNER)
    assert latest
    assert frames[-1].id == latest.cursor


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (OutcomeKind.COMPLETED, "message_ended"),
        (OutcomeKind.FAILED, "error"),
        (OutcomeKind.CANCELLED, "cancelled"),
        (OutcomeKind.INTERRUPTED, "interrupted"),
    ],
)
@pytest.mark.proves("C2")
async def test_every_outcome_has_its_word_and_end_is_last(
    server: Server, thread_id: str, kind: OutcomeKind, word: str
) -> None:
    writer = await produce(server, thread_id)
    await writer.append("one")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    await writer.close(Outcome(kind))
    assert shape(await reading) == [("chunk", "one"), ("system", word), ("system", "end")]


async def test_resuming_after_any_cursor_gives_exactly_the_rest(server: Server, thread_id: str) -> None:
    writer = await produce(server, thread_id)
    await writer.append("one", event("tool_call", {"name": "clock"}), event("tool_result", {}), "two", "three")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    await writer.close()
    everything = await reading
    for had, frame in enumerate(everything, start=1):
        if frame.id and everything[had:]:
            assert await follow(server, thread_id, frame.id) == everything[had:]


async def test_a_cursor_at_the_close_is_204_at_once(
    server: Server, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(server, thread_id, "one")
    latest = await server.playhead.latest(thread_id, principal=OWNER)
    assert latest
    monkeypatch.setattr(thread_stream, "PATIENCE_S", 600)
    answer = await asyncio.wait_for(server.http.get(PATH, params={"thread_id": thread_id, "after": latest.cursor}), 60)
    assert answer.status_code == 204


@pytest.mark.parametrize("finished_before", [False, True])
@pytest.mark.proves("C3")
async def test_without_cursor_and_live_stream_it_is_204_after_patience(
    server: Server, thread_id: str, finished_before: bool
) -> None:
    if finished_before:
        await written(server, thread_id, "old")
    before = time.monotonic()
    answer = await server.http.get("/chat/stream", params={"thread_id": thread_id}, headers={"last-event-id": ""})
    assert answer.status_code == 204
    assert time.monotonic() - before > thread_stream.PATIENCE_S * 0.9


@pytest.mark.proves("C3")
async def test_a_stream_request_may_be_here_before_the_message(
    server: Server, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await written(server, thread_id, "an old answer")
    reading = await waiting(server, thread_id, monkeypatch)
    started = await server.http.post("/chat/message", json={"message": "/pace 1 hello", "thread_id": thread_id})
    assert started.status_code == 200
    frames = await asyncio.wait_for(reading, 60)
    assert frames[0].event == "chunk"
    assert shape(frames)[-2:] == [("system", "message_ended"), ("system", "end")]


async def test_a_stream_that_comes_and_goes_at_once_is_followed_all_the_same(
    server: Server, thread_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = await waiting(server, thread_id, monkeypatch)
    await written(server, thread_id, "quick")
    assert shape(await asyncio.wait_for(reading, 60)) == [
        ("chunk", "quick"),
        ("system", "message_ended"),
        ("system", "end"),
    ]


@pytest.mark.proves("C3")
async def test_a_cursor_of_an_earlier_stream_is_finished_first_then_the_next_ones_follow(
    server: Server, thread_id: str
) -> None:
    writer = await produce(server, thread_id)
    await writer.append("first 1", "first 2")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    await writer.close()
    first = await reading
    await written(server, thread_id, "second")
    live = await produce(server, thread_id)
    await live.append("third")
    await live.flush()
    # A browser that lost its connection in the first answer, and then comes back again and again.
    rest = await follow(server, thread_id, first[0].id)
    assert shape(rest) == [("chunk", "first 2"), ("system", "message_ended"), ("system", "end")]
    second = await follow(server, thread_id, rest[-1].id)
    assert shape(second) == [("chunk", "second"), ("system", "message_ended"), ("system", "end")]
    third = asyncio.create_task(follow(server, thread_id, second[-1].id))
    await live.close()
    assert shape(await third) == [("chunk", "third"), ("system", "message_ended"), ("system", "end")]
    end = (await third)[-1].id
    assert (await server.http.get(PATH, params={"thread_id": thread_id, "after": end})).status_code == 204


async def test_cursors_of_other_threads_and_garbage_are_named_errors(server: Server, thread_id: str) -> None:
    await written(server, thread_id, "mine")
    await written(server, str(uuid.uuid4()), "other")
    [other, _] = await server.playhead.find(Query(), principal=OWNER)
    for cursor, code in [(other.cursor, "cursor-of-another-stream"), ("garbage", "cursor-invalid")]:
        answer = await server.http.get(PATH, params={"thread_id": thread_id, "after": cursor})
        assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_a_thread_of_many_streams_finds_the_cursor_of_the_oldest(server: Server, thread_id: str) -> None:
    await written(server, thread_id, "oldest", "end")
    oldest = await server.playhead.latest(thread_id, principal=OWNER)
    assert oldest
    for _ in range(210):
        await written(server, thread_id, "more")
    first_event = oldest.cursor.rpartition(".")[0] + ".1"
    frames = await follow(server, thread_id, first_event)
    assert shape(frames)[0] == ("chunk", "end")
    assert shape(await follow(server, thread_id, frames[-1].id))[0] == ("chunk", "more")


async def test_a_strangers_thread_has_nothing_to_follow(server: Server, thread_id: str) -> None:
    writer = await server.playhead.produce(thread_id=thread_id, owner="ann")
    await writer.append("secret")
    assert (await server.http.get(PATH, params={"thread_id": thread_id})).status_code == 204
    await writer.close()


async def test_draining_sends_readers_away_with_200_and_no_end(server: Server, thread_id: str) -> None:
    writer = await produce(server, thread_id)
    await writer.append("one")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    draining = asyncio.create_task(server.playhead.drain(5))
    assert shape(await asyncio.wait_for(reading, 15)) == [("chunk", "one")]
    answer = await server.http.get(PATH, params={"thread_id": thread_id})
    assert (answer.status_code, Frames.of(answer.text).retry_ms) == (200, 1_000)
    assert Frames.of(answer.text).frames == []
    await writer.close()
    await draining


async def test_a_stream_that_vanishes_ends_with_error_and_end(server: Server, thread_id: str) -> None:
    writer = await produce(server, thread_id)
    await writer.append("one")
    reading, begun = await following(server, thread_id)
    await asyncio.wait_for(begun.wait(), 60)
    await server.playhead.delete(writer.stream_id, principal=OWNER)
    assert shape(await reading) == [("chunk", "one"), ("system", "error"), ("system", "end")]


async def test_headers_say_that_nobody_may_keep_or_hold_back_the_stream(server: Server, thread_id: str) -> None:
    writer = await produce(server, thread_id)
    async with server.http.stream("GET", PATH, params={"thread_id": thread_id}) as answer:
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["x-accel-buffering"] == "no"
    await writer.close()


async def test_the_thread_id_is_needed(server: Server) -> None:
    for method, path in [("GET", PATH), ("GET", "/thread"), ("POST", "/chat/cancel")]:
        answer: httpx.Response = await server.http.request(method, path)
        assert answer.status_code == 422
        assert json.loads(answer.text)["errors"][0]["where"] == ["query", "thread_id"]
