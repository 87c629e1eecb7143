"""The native door over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from running_server import Frames, Server, eventually, frames_of, serving

from playhead import Outcome, OutcomeKind, Query

OWNER = "local"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


async def write(server: Server, stream_id: str, *items: object, thread_id: str | None = None) -> None:
    async with await server.playhead.produce(stream_id, thread_id=thread_id, owner=OWNER) as out:
        await out.append(*items)


ODD_IDS = [
    "plain",
    "a/b",
    "a/info",
    "info",
    "a/cancel/info",
    "/",
    "a//b",
    "100% & ?#+ü=é",
    "日本語/",
    "%2F",
    "x" * 1_000,
]


@pytest.mark.parametrize("stream_id", ODD_IDS)
async def test_any_printable_id_works_when_it_is_percent_encoded(server: Server, stream_id: str) -> None:
    await write(server, stream_id, "hello")
    path = "/v1/streams/" + quote(stream_id, safe="")
    assert (await server.http.get(path + "/info")).json()["stream_id"] == stream_id
    frames = await frames_of(server.http, path)
    assert [frame.event for frame in frames] == ["text", "playhead.close"]
    assert (await server.http.post(path + "/cancel")).json()["stream_id"] == stream_id
    assert (await server.http.delete(path)).status_code == 204
    assert (await server.http.get(path + "/info")).status_code == 404


async def test_a_slash_that_is_no_verbs_may_stay_as_it_is(server: Server) -> None:
    await write(server, "a/b", "hello")
    assert (await server.http.get("/v1/streams/a/b")).status_code == 200
    assert (await server.http.get("/v1/streams/a/b/info")).json()["stream_id"] == "a/b"


@pytest.mark.parametrize("encoded", ["%FF", "%00", "%0A", "x" * 1_001, "%ED%A0%80"])
async def test_what_is_no_id_is_refused_by_name(server: Server, encoded: str) -> None:
    answer = await server.http.get(f"/v1/streams/{encoded}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid-stream-id")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.proves("H1", "H2")
async def test_every_byte_survives_and_the_close_is_the_last_frame(server: Server) -> None:
    items = ["a\r\nb\0\u2028", "", "\ud800", b"\xff\x00", {"n": [1, "é"]}]
    await write(server, "s", *items)
    frames = await frames_of(server.http, "/v1/streams/s")
    values = [frame.json() for frame in frames]
    assert [frame.event for frame in frames] == ["text", "text", "text", "bytes", "json", "playhead.close"]
    assert [value["offset"] for value in values] == [1, 2, 3, 4, 5, 6]
    assert values[0]["data"] == items[0]
    assert values[1]["data"] == ""
    assert (values[2]["encoding"], values[2]["data"]) == ("base64", "7aCA")
    assert (values[3]["encoding"], values[3]["data"]) == ("base64", "/wA=")
    assert values[4]["data"] == '{"n":[1,"é"]}'
    assert values[5]["outcome"] == "completed"


@pytest.mark.proves("P2.1", "H3")
async def test_resuming_after_any_cursor_gives_exactly_the_rest(server: Server) -> None:
    await write(server, "s", *[f"word{n} " for n in range(20)])
    everything = await frames_of(server.http, "/v1/streams/s")
    for had, frame in enumerate(everything, start=1):
        assert frame.id
        rest = everything[had:]
        headers = {"last-event-id": frame.id}
        if rest:
            assert await frames_of(server.http, "/v1/streams/s", headers=headers) == rest
            assert await frames_of(server.http, "/v1/streams/s", params={"after": frame.id}) == rest
        else:
            assert (await server.http.get("/v1/streams/s", headers=headers)).status_code == 204


async def test_last_event_id_wins_over_after_and_an_empty_one_counts_as_none(server: Server) -> None:
    await write(server, "s", "one", "two", "three")
    everything = await frames_of(server.http, "/v1/streams/s")
    path = f"/v1/streams/s?after={everything[0].id}"
    assert await frames_of(server.http, path, headers={"last-event-id": everything[1].id or ""}) == everything[2:]
    assert await frames_of(server.http, path, headers={"last-event-id": ""}) == everything[1:]
    assert await frames_of(server.http, "/v1/streams/s?after=") == everything


@pytest.mark.parametrize(
    ("cursor", "status", "code"),
    [("nonsense", 400, "cursor-invalid"), ("1.a.b.c", 400, "cursor-invalid"), ("9" * 100, 400, "cursor-invalid")],
)
async def test_garbage_cursors_are_named_errors(server: Server, cursor: str, status: int, code: str) -> None:
    await write(server, "s", "one")
    answer = await server.http.get("/v1/streams/s", headers={"last-event-id": cursor})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_cursors_of_another_stream_and_ahead_of_the_tail_are_named_errors(server: Server) -> None:
    await write(server, "s", "one")
    await write(server, "other", "one")
    other = (await frames_of(server.http, "/v1/streams/other"))[0].id
    answer = await server.http.get("/v1/streams/s", params={"after": other})
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-of-another-stream")
    mine = (await frames_of(server.http, "/v1/streams/s"))[0].id
    assert mine
    answer = await server.http.get("/v1/streams/s", params={"after": mine.rpartition(".")[0] + ".99"})
    assert (answer.status_code, answer.json()["code"]) == (416, "cursor-ahead")


async def test_unknown_streams_are_404_on_every_verb(server: Server) -> None:
    for method, path in [("GET", ""), ("GET", "/info"), ("POST", "/cancel"), ("DELETE", "")]:
        answer = await server.http.request(method, "/v1/streams/nobody" + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "stream-not-found")


@pytest.mark.proves("P12.1")
async def test_other_owners_streams_look_like_unknown_ones(server: Server) -> None:
    async with await server.playhead.produce("theirs", owner="ann") as out:
        await out.append("secret")
    for method, path in [("GET", ""), ("GET", "/info"), ("POST", "/cancel"), ("DELETE", "")]:
        theirs = await server.http.request(method, "/v1/streams/theirs" + path)
        nobodys = await server.http.request(method, "/v1/streams/nobodys" + path)
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace("theirs", "nobodys") == nobodys.text
    assert (await server.http.get("/v1/streams")).json() == {"streams": []}


async def test_a_live_stream_is_followed_and_cancelled_over_http(server: Server) -> None:
    stopped = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await server.playhead.start(source, stream_id="live", owner=OWNER)
    seen = Frames()
    async with server.http.stream("GET", "/v1/streams/live") as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if seen.feed_line(line):
                break
        assert seen.frames[0].json() == {"offset": 1, "data": "first"}
        assert seen.retry_ms == 1_000
        cancelled = await server.http.post("/v1/streams/live/cancel")
        assert cancelled.status_code in (200, 202)
        assert cancelled.json()["cancel_requested"]["by"] == OWNER
        async for line in lines:
            seen.feed_line(line)
    assert seen.frames[-1].event == "playhead.close"
    assert seen.frames[-1].json() == {"offset": 2, "outcome": "cancelled", "by": OWNER}
    assert stopped.is_set()
    again = await server.http.post("/v1/streams/live/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "closed")


async def test_info_tells_everything_public_and_nothing_else(server: Server) -> None:
    info = await server.playhead.start(
        _one_word, stream_id="s", thread_id="t", owner=OWNER, idempotency_key="key", metadata={"a": ["\ud800é", 1]}
    )
    await server.playhead.wait("s", principal=OWNER)
    body = (await server.http.get("/v1/streams/s/info")).json()
    assert set(body) == {
        *("stream_id", "thread_id", "status", "epoch", "tail", "size_bytes", "created_at", "closed_at"),
        *("cancel_requested", "outcome", "cursor", "metadata"),
    }
    assert (body["status"], body["tail"], body["size_bytes"]) == ("closed", 1, 4)
    assert body["outcome"] == {"kind": "completed", "error": None, "by": None, "reason": None}
    assert body["created_at"].endswith("Z")
    assert body["metadata"] == {"a": ["�é", 1]}
    assert info.producer
    assert info.producer not in str(body)


async def _one_word() -> AsyncIterator[str]:
    yield "word"


async def test_the_list_is_filtered_paged_and_newest_first(server: Server) -> None:
    for number in range(5):
        await write(server, f"s{number}", "x", thread_id="even" if number % 2 == 0 else "odd")
    writer = await server.playhead.produce("live", thread_id="even", owner=OWNER)

    async def ids(query: str) -> list[str]:
        return [one["stream_id"] for one in (await server.http.get(f"/v1/streams?{query}")).json()["streams"]]

    assert await ids("") == ["live", "s4", "s3", "s2", "s1", "s0"]
    assert await ids("thread_id=even&status=closed") == ["s4", "s2", "s0"]
    assert await ids("status=live") == ["live"]
    assert await ids("limit=2") == ["live", "s4"]
    assert await ids("limit=2&before=s4") == ["s3", "s2"]
    assert await ids("thread_id=unknown") == []
    await writer.close()
    for bad in ("status=odd", "limit=0", "limit=x", "limit=100000", f"before={'x' * 2000}"):
        assert (await server.http.get(f"/v1/streams?{bad}")).status_code == 422


@pytest.mark.proves("P11.1")
async def test_while_draining_readers_get_200_and_retry_others_a_problem(server: Server) -> None:
    writer = await server.playhead.produce("s", owner=OWNER)
    await writer.append("one")
    await writer.close()
    await server.playhead.drain(0)
    answer = await server.http.get("/v1/streams/s")
    assert answer.status_code == 200
    seen = Frames.of(answer.text)
    assert (seen.frames, seen.retry_ms, seen.comments) == ([], 1_000, ["draining"])
    ready = await server.http.get("/ready")
    assert (ready.status_code, ready.json()["code"], ready.headers["retry-after"]) == (503, "draining", "1")
    assert (await server.http.get("/health")).json() == {"status": "ok"}
    answer = await server.http.post("/v1/chat/message", json={"message": "hello"})
    assert (answer.status_code, answer.json()["code"]) == (503, "draining")


async def test_too_many_readers_are_asked_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, readers_per_owner_max=1) as server:
        writer = await server.playhead.produce("s", owner=OWNER)
        await writer.append("one")
        await writer.flush()
        async with server.http.stream("GET", "/v1/streams/s") as first:
            assert first.status_code == 200
            await anext(first.aiter_lines())
            second = await server.http.get("/v1/streams/s")
            assert (second.status_code, Frames.of(second.text).comments) == (200, ["too-many-readers"])
        await writer.close(Outcome(OutcomeKind.COMPLETED))


async def test_a_reader_that_leaves_stops_nothing(server: Server) -> None:
    writer = await server.playhead.produce("s", owner=OWNER)
    await writer.append("one")
    async with server.http.stream("GET", "/v1/streams/s") as answer:
        await anext(answer.aiter_lines())
    await writer.append("two")
    await writer.close()
    assert len(await frames_of(server.http, "/v1/streams/s")) == 3


async def test_ready_asks_the_store(server: Server) -> None:
    assert (await server.http.get("/ready")).json() == {"status": "ready"}


async def test_deleting_a_live_stream_tells_its_readers(server: Server) -> None:
    writer = await server.playhead.produce("s", owner=OWNER)
    await writer.append("one")
    seen = Frames()
    async with server.http.stream("GET", "/v1/streams/s") as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if seen.feed_line(line):
                break
        assert (await server.http.delete("/v1/streams/s")).status_code == 204
        async for line in lines:
            seen.feed_line(line)
    assert (seen.frames[-1].event, seen.frames[-1].json()["code"]) == ("playhead.error", "stream-not-found")
    found = await eventually(lambda: _none_live(server))
    assert found


async def _none_live(server: Server) -> bool:
    return not await server.playhead.find(Query(), principal=OWNER)
