"""``POST /v1/follow``: many streams and threads over one connection."""

import asyncio
import gc
import json
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from running_server import WAIT_S, Server, ServerProcess, eventually, serving
from streaming import Scripted, has_stored, say

from playhead import Playhead

OWNER = "local"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, store=None) as server:
        yield server


class Following:
    """One connection that follows; keeps every frame, and can wait for one."""

    def __init__(self, http: httpx.AsyncClient, *subscriptions: dict[str, Any]) -> None:
        self._http = http
        self._body = {"subscriptions": list(subscriptions)}
        self.frames: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        async with self._http.stream("POST", "/v1/follow", json=self._body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self.frames.append(json.loads(line[6:]))

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled() and (error := self.task.exception()):
            raise error

    def of(self, type_: str, **facts: Any) -> list[dict[str, Any]]:
        wanted = {"type": type_, **facts}.items()
        return [frame for frame in self.frames if wanted <= frame.items()]

    async def until(self, type_: str, **facts: Any) -> dict[str, Any]:
        found: list[dict[str, Any]] = await eventually(lambda: self.of(type_, **facts), f"{type_} {facts}")
        return found[0]

    def said(self, key: str, stream_id: str) -> str:
        """What a key was told of a stream; its frames must follow each other without a gap or a repeat."""
        frames = self.of("text", key=key, stream_id=stream_id)
        offset = self.of("playhead.open", key=key, stream_id=stream_id)[0]["offset"]
        for frame in frames:
            assert frame.get("first", frame["offset"]) == offset + 1
            offset = frame["offset"]
        return "".join(frame["data"] for frame in frames)


@pytest.mark.proves("H9")
async def test_streams_and_threads_each_from_a_cursor_of_its_own(server: Server) -> None:
    done = await server.playhead.start(say("a", "b", "c"), owner=OWNER)
    await server.playhead.wait(done.stream_id, principal=OWNER)
    source = Scripted("d", "e", then=("f",))
    live = await server.playhead.start(source, owner=OWNER, thread_id="t")
    await has_stored(server.playhead, live.stream_id, 2, principal=OWNER)
    async with Following(server.http, {"key": "1", "stream_id": done.stream_id}) as first:
        close = await first.until("playhead.close")
    assert first.said("1", done.stream_id) == "abc"
    assert (close["outcome"], close["offset"]) == ("completed", 4)
    cursor = server.playhead.tail(live.stream_id, principal=OWNER)
    await anext(cursor)
    async with Following(
        server.http,
        {"key": "again", "stream_id": done.stream_id, "after": close["cursor"]},
        {"key": "listed", "thread_id": "t", "streams": {live.stream_id: cursor.cursor}},
        {"key": "found", "thread_id": "t"},
        {"key": "wrong", "stream_id": live.stream_id, "after": close["cursor"]},
        {"key": "nothing", "stream_id": "unknown"},
        {"key": "later", "thread_id": "nobody's yet"},
    ) as second:
        assert (await second.until("playhead.close", key="again"))["offset"] == 4
        opened = await second.until("playhead.open", key="listed")
        assert (opened["offset"], opened["tail"], opened["stream"]["status"]) == (1, 2, "live")
        assert (await second.until("playhead.error", key="nothing"))["code"] == "stream-not-found"
        assert (await second.until("playhead.error", key="wrong"))["code"] == "cursor-of-another-stream"
        assert (await second.until("playhead.thread", key="found"))["latest"] == live.stream_id
        assert (await second.until("playhead.thread", key="later"))["latest"] is None
        source.go_on.set()
        await second.until("playhead.close", key="listed")
        await second.until("playhead.close", key="found")
        assert second.said("listed", live.stream_id) == "ef"
        assert second.said("found", live.stream_id) == "def"
        late = await server.playhead.start(say("x", "y"), owner=OWNER, thread_id="nobody's yet")
        await second.until("playhead.close", key="later")
        assert second.said("later", late.stream_id) == "xy"
        assert not second.task.done()
    await cursor.aclose()


@pytest.mark.proves("H9")
async def test_what_begins_in_another_process_is_followed_within_half_a_second(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.news.LOOK_EVERY_S", 120)  # the store's wake-up alone can be as quick as this
    async with (
        Playhead.open(f"sqlite:///{tmp_path / 'var' / 'playhead.db'}") as elsewhere,
        Following(server.http, {"key": "k", "thread_id": "t"}) as following,
    ):
        await following.until("playhead.thread")
        for number in range(5):
            info = await elsewhere.start(say("from ", "elsewhere ", str(number)), owner=OWNER, thread_id="t")
            async with asyncio.timeout(30):
                await following.until("playhead.close", stream_id=info.stream_id)
            assert following.said("k", info.stream_id) == f"from elsewhere {number}"
        assert len(following.of("playhead.open")) == 5


@pytest.mark.proves("H9", "P12.1")
async def test_strangers_streams_are_not_told_of(server: Server) -> None:
    secret = await server.playhead.start(say("secret"), owner="ann", thread_id="t")
    async with Following(
        server.http, {"key": "t", "thread_id": "t"}, {"key": "s", "stream_id": secret.stream_id}
    ) as following:
        assert (await following.until("playhead.error", key="s"))["code"] == "stream-not-found"
        assert (await following.until("playhead.thread"))["latest"] is None
        await server.playhead.wait(secret.stream_id, principal="ann")
        await server.playhead.start(say("more"), owner="ann", thread_id="t")
        mine = await server.playhead.start(say("mine"), owner=OWNER, thread_id="other")
        async with Following(server.http, {"key": "m", "stream_id": mine.stream_id}) as other:
            await other.until("playhead.close")
        assert [frame["type"] for frame in following.frames if frame["key"] == "t"] == ["playhead.thread"]


@pytest.mark.proves("H9", "P8.1")
async def test_much_to_catch_up_with_does_not_keep_a_live_stream_waiting(server: Server) -> None:
    large = await server.playhead.start(say(*["x" * 10_000] * 2_000), owner=OWNER)
    await server.playhead.wait(large.stream_id, principal=OWNER)
    source = Scripted("now")
    live = await server.playhead.start(source, owner=OWNER)
    await has_stored(server.playhead, live.stream_id, 1, principal=OWNER)
    async with Following(
        server.http, {"key": "large", "stream_id": large.stream_id}, {"key": "live", "stream_id": live.stream_id}
    ) as following:
        await following.until("text", key="live")
        assert len(following.said("large", large.stream_id)) < 20_000_000
        await following.until("playhead.close", key="large")
        assert len(following.said("large", large.stream_id)) == 20_000_000
    await server.playhead.cancel(live.stream_id, principal=OWNER)


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"subscriptions": []}, [], {"subscriptions": [{"key": "k"}]}),
        {"subscriptions": [{"key": "k", "stream_id": "s", "thread_id": "t"}]},
        {"subscriptions": [{"key": "k", "stream_id": "s"}, {"key": "k", "stream_id": "r"}]},
        {"subscriptions": [{"key": str(n), "stream_id": "s"} for n in range(65)]},
        {"subscriptions": [{"key": "", "stream_id": "s"}]},
        {"subscriptions": [{"key": "k", "stream_id": "s", "after": "1" * 100}]},
    ],
)
async def test_a_bad_body_is_a_problem_document(server: Server, body: Any) -> None:
    answer = await server.http.post("/v1/follow", json=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_garbage_cursor_ends_only_its_own_subscription(server: Server) -> None:
    info = await server.playhead.start(say("a"), owner=OWNER)
    async with Following(
        server.http,
        {"key": "bad", "stream_id": info.stream_id, "after": "garbage"},
        {"key": "good", "stream_id": info.stream_id},
    ) as following:
        assert (await following.until("playhead.error", key="bad"))["code"] == "cursor-invalid"
        await following.until("playhead.close", key="good")


@pytest.mark.proves("P11.1", "H9")
async def test_a_draining_server_ends_the_response_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.asgi._TICK_S", 60)  # it does not wait for the ticker to notice
    async with Following(server.http, {"key": "k", "thread_id": "t"}) as following:
        await following.until("playhead.thread")
        draining = asyncio.create_task(server.playhead.drain(0))
        async with asyncio.timeout(15):
            await following.task
        await draining


@pytest.mark.proves("P11.3")
async def test_a_server_stops_with_followers_attached(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as process:
        async with (
            httpx.AsyncClient(base_url=process.url, timeout=WAIT_S) as http,
            Following(http, {"key": "k", "thread_id": "t"}) as following,
        ):
            await following.until("playhead.thread")
            process.process.terminate()
            async with asyncio.timeout(15):
                await following.task
            assert await asyncio.to_thread(process.ended) == 0


@pytest.mark.proves("P10.1")
async def test_readers_who_leave_at_any_moment_leave_nothing_behind(server: Server) -> None:
    source = Scripted(*map(str, range(200)))
    live = await server.playhead.start(source, owner=OWNER, thread_id="t")
    dice = random.Random(7)
    before = len(asyncio.all_tasks())

    async def come_and_go() -> None:
        subscriptions = (
            {"key": "a", "stream_id": live.stream_id},
            {"key": "b", "thread_id": "t"},
            {"key": "c", "thread_id": str(uuid.uuid4())},
        )
        async with httpx.AsyncClient(base_url=server.url) as http, Following(http, *subscriptions):
            await asyncio.sleep(dice.random() * 0.05)

    for _ in range(8):
        await asyncio.gather(*(come_and_go() for _ in range(10)))

    loop = asyncio.get_running_loop()
    collect_at_s = loop.time()

    def tidy() -> bool:
        nonlocal collect_at_s
        if loop.time() >= collect_at_s:  # seldom: it holds up the very work that is waited for
            gc.collect()
            collect_at_s = loop.time() + 0.5
        news, readers = server.playhead._news, server.playhead._readers
        return not (news._told or news._looking or readers.feeds or len(asyncio.all_tasks()) > before)

    await eventually(tidy)
    await server.playhead.cancel(live.stream_id, principal=OWNER)
