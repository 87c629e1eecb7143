"""Readers while their store is away: told once, kept connected, and then they go on. 0 lost, 0 twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from outages import Outages, outages_of_servers
from redis_server import RedisServer
from running_server import WAIT_S, Frame, Frames, Server, eventually, serving
from streaming import PATIENCE_S, Scripted, finished, follow, has_stored, rest, say, tidied, until
from wire import Wire

from playhead import Options, Playhead
from playhead.asgi import EventStream
from playhead.client import AsyncClient, Client, State
from playhead.errors import StoreUnavailable, StreamNotFound
from playhead.many import ManyStreams, Subscription
from playhead.outage import PAUSE_MAX_S, PAUSE_MIN_S, Outage
from playhead.server.chat_frames import CHAT
from playhead.stores.memory import MemoryData, MemoryStore

OWNER = "local"
AWAY = "playhead.reconnecting"


@asynccontextmanager
async def opened(data: MemoryData | None = None, **settings: Any) -> AsyncIterator[tuple[Playhead, Outages]]:
    options = Options(**settings)
    store = Outages(MemoryStore(data or MemoryData(), options=options.store))
    playhead = await Playhead(store, options=options).connect()
    try:
        yield playhead, store
        await until(lambda: tidy_readers(playhead))
    finally:
        store.come_back()
        await playhead.close()
    assert store.is_unwatched


def tidy_readers(playhead: Playhead) -> bool:
    return not (playhead._readers.counts or playhead._readers.feeds)


async def following(playhead: Playhead, stream_id: str = "s", **how: Any) -> EventStream:
    tail = playhead.tail(stream_id)
    await tail.open()
    return EventStream(tail, **how)


def many(playhead: Playhead, *stream_ids: str, thread_id: str | None = None) -> ManyStreams:
    wanted = [Subscription(name, stream_id=name) for name in stream_ids]
    if thread_id is not None:
        wanted.append(Subscription("thread", thread_id=thread_id))
    return ManyStreams(playhead, wanted, principal=None, describe=lambda info: info.stream_id)


def frames(wire: Wire) -> list[Frame]:
    return Frames.of(wire.body.decode()).frames


def kinds(wire: Wire) -> list[str]:
    """Of a native response the events' names, of one for many streams their types."""
    return [one.event if one.event != "message" else one.json()["type"] for one in frames(wire)]


# ---- the pauses -----------------------------------------------------------------------------------------------


def test_pauses_grow_are_spread_and_end_with_patience() -> None:
    longest = Outage(0.0, 1_000.0, chance=lambda: 1.0)
    assert [longest.pause_s(0.0) for _ in range(6)] == [PAUSE_MIN_S, 0.2, 0.4, 0.8, PAUSE_MAX_S, PAUSE_MAX_S]
    shortest = Outage(0.0, 1_000.0, chance=lambda: 0.0)
    assert [shortest.pause_s(0.0) for _ in range(5)] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert Outage(10.0, 5.0).pause_s(14.99) < 0.011
    assert Outage(10.0, 5.0).pause_s(16.0) == 0.0
    assert [Outage(10.0, 5.0).is_too_long(now) for now in (10.0, 14.9, 15.0)] == [False, False, True]


# ---- a tail ---------------------------------------------------------------------------------------------------


async def test_a_tail_whose_store_is_away_stays_where_it_is() -> None:
    async with opened(cache_max_bytes=1) as (playhead, store):
        await playhead.start(say("a", "b", "c"), stream_id="s")
        await finished(playhead, "s")
        async with playhead.tail("s") as tail:
            store.leave()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await tail.ready()
            assert playhead._readers.feeds["s"].readers == 1
            store.come_back()
            assert [event.text for batch in await tail.ready() for event in batch] == ["a", "b", "c"]
            assert await tail.ready() == []
            assert tail.outcome is not None


async def test_a_loop_waits_through_an_outage() -> None:
    data = MemoryData()
    async with opened(data) as (playhead, store), opened(data) as (elsewhere, _):
        source = Scripted("a", then=("b", "c"))
        await elsewhere.start(source, stream_id="s")
        tail = playhead.tail("s")
        assert (await anext(tail)).text == "a"
        store.leave()
        reading = asyncio.create_task(rest(tail))
        late = asyncio.create_task(follow(playhead, "s"))
        source.go_on.set()
        await finished(elsewhere, "s")
        await until(lambda: store.asked >= 4)
        assert not reading.done()
        store.come_back()
        assert [event.text for event in await reading] == ["b", "c"]
        assert [event.text for event in await late] == ["a", "b", "c"]
        assert tail.outcome is not None


async def test_a_loop_gives_up_when_patience_is_over() -> None:
    async with opened(store_patience_s=0.3) as (playhead, store):
        await playhead.start(Scripted("a"), stream_id="s")
        tail = playhead.tail("s")
        assert (await anext(tail)).text == "a"
        store.leave()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with pytest.raises(StoreUnavailable):
            await rest(tail)
        assert 0.3 <= loop.time() - began_at < 20
        assert tidy_readers(playhead)
        assert await rest(tail) == []
        with pytest.raises(StoreUnavailable):
            await playhead.tail("s").open()  # who asks for it by name is not kept waiting


async def test_each_outage_has_its_own_patience() -> None:
    async with opened(store_patience_s=3.0) as (playhead, store):
        source = Scripted("a", then=("b",))
        await playhead.start(source, stream_id="s")
        await has_stored(playhead, "s", 1)
        reading = asyncio.create_task(follow(playhead, "s"))
        await until(lambda: bool(playhead._readers.feeds) and bool(playhead._readers.feeds["s"].waiters))
        for _ in range(3):
            store.leave()
            await until(lambda: store.asked >= 3)
            store.come_back()
            await until(lambda: not playhead._readers.feeds["s"].stale)
            await until(lambda: bool(playhead._readers.feeds["s"].waiters))
            await asyncio.sleep(1.2)  # three times this, and the outages, are longer than the patience
        source.go_on.set()
        assert [event.text for event in await reading] == ["a", "b"]


@pytest.mark.proves("P10.1")
async def test_a_loop_that_is_cancelled_during_an_outage_leaves_nothing() -> None:
    async with opened() as (playhead, store):
        await playhead.start(Scripted("a"), stream_id="s")
        await has_stored(playhead, "s", 1)

        async def read() -> None:
            async with playhead.tail("s") as tail:
                await rest(tail)

        readings = [asyncio.create_task(read()) for _ in range(20)]
        await until(lambda: bool(playhead._readers.feeds) and len(playhead._readers.feeds["s"].waiters) == 20)
        store.leave()
        await until(lambda: store.asked >= 3)
        for number, reading in enumerate(readings):
            reading.cancel()
            if number % 5 == 0:
                await asyncio.sleep(0.03)
        await asyncio.wait(readings, timeout=PATIENCE_S)
        assert all(reading.cancelled() for reading in readings)
        assert tidy_readers(playhead)


# ---- responses ------------------------------------------------------------------------------------------------


@pytest.mark.proves("H10")
async def test_each_outage_is_told_of_once_also_when_nothing_happens_in_between() -> None:
    async with opened() as (playhead, store):
        source = Scripted("a", then=("b",))
        await playhead.start(source, stream_id="s")
        await has_stored(playhead, "s", 1)
        wires, native = [Wire(), Wire()], await following(playhead)
        running = [
            asyncio.create_task(wires[0].run(native)),
            asyncio.create_task(wires[1].run(many(playhead, "s"))),
        ]
        await until(lambda: all("text" in kinds(wire) for wire in wires))
        for outages in (1, 2, 3):
            store.leave()
            await until(lambda: native._is_away and store.asked >= 6)
            assert [kinds(wire).count(AWAY) for wire in wires] == [outages, outages]
            store.come_back()
            await until(lambda: not native._is_away)
            await until(lambda outages=outages: kinds(wires[1]).count("playhead.open") == outages + 1)
            await until(lambda: len(playhead._readers.feeds["s"].waiters) == 2)
        source.go_on.set()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait(running[:1])
        await until(lambda: "playhead.close" in kinds(wires[1]))
        wires[1].gone.set()
        await asyncio.wait(running, timeout=PATIENCE_S)
        assert kinds(wires[0]) == ["text", AWAY, AWAY, AWAY, "text", "playhead.close"]
        told = frames(wires[0])[1]
        assert told.id is None
        assert told.json() == {"code": "store-unavailable", "detail": "the store is away, as the test wants it"}
        one = next(frame.json() for frame in frames(wires[1]) if frame.json()["type"] == AWAY)
        assert one.keys() == {"key", "stream_id", "type", "code", "detail"}
        opens = [frame.json() for frame in frames(wires[1]) if frame.json()["type"] == "playhead.open"]
        assert [said["offset"] for said in opens] == [0, 1, 1, 1]


@pytest.mark.proves("H10")
async def test_keep_alives_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.asgi.KEEP_ALIVE_S", 0.15)
    monkeypatch.setattr("playhead.asgi._TICK_S", 0.02)
    async with opened() as (playhead, store):
        source = Scripted("a")
        await playhead.start(source, stream_id="s")
        wires = [Wire(), Wire()]
        running = [
            asyncio.create_task(wires[0].run(await following(playhead))),
            asyncio.create_task(wires[1].run(many(playhead, "s"))),
        ]
        await until(lambda: all("text" in kinds(wire) for wire in wires))
        store.leave()
        await until(lambda: all(AWAY in kinds(wire) for wire in wires))
        told = [len(wire.body) for wire in wires]
        await until(
            lambda: all(wire.body[at:].count(b": keep-alive\n") >= 3 for wire, at in zip(wires, told, strict=True))
        )
        assert [kinds(wire).count(AWAY) for wire in wires] == [1, 1]
        for wire in wires:
            wire.gone.set()  # who leaves meanwhile is noticed
        await asyncio.wait_for(asyncio.gather(*running), PATIENCE_S)


@pytest.mark.proves("H10")
async def test_when_patience_is_over_the_response_ends_and_its_cursor_goes_on() -> None:
    async with opened(store_patience_s=0.3) as (playhead, store):
        source = Scripted("a", "b", then=("c",))
        await playhead.start(source, stream_id="s")
        await has_stored(playhead, "s", 2)
        native, chat, follower = Wire(), Wire(), Wire()
        running = [
            asyncio.create_task(native.run(await following(playhead))),
            asyncio.create_task(chat.run(await following(playhead, encoder=CHAT))),
        ]
        many_running = asyncio.create_task(follower.run(many(playhead, "s")))
        await until(lambda: all(wire.body.count(b"data: ") >= 2 for wire in (native, chat, follower)))
        store.leave()
        await asyncio.wait_for(asyncio.gather(*running), PATIENCE_S)
        assert kinds(native) == ["text", "text", AWAY]
        assert native.is_complete
        assert [frame.event for frame in frames(chat)] == ["chunk", "chunk"]
        assert chat.body.endswith(b"\n\n: reconnecting, store-unavailable\n")
        await until(lambda: "playhead.error" in kinds(follower))
        error = frames(follower)[-1].json()
        assert (error["code"], error["retryable"], error["stream_id"]) == ("store-unavailable", True, "s")
        follower.gone.set()
        await asyncio.wait_for(many_running, PATIENCE_S)
        assert tidy_readers(playhead)
        store.come_back()
        source.go_on.set()
        cursor = frames(native)[1].id
        assert [event.text for event in await follow(playhead, "s", after=cursor)] == ["c"]


@pytest.mark.proves("P10.1", "P11.1")
@pytest.mark.parametrize("how", ["cancel", "drain"])
async def test_a_response_that_ends_during_an_outage_leaves_nothing(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.outage.PAUSE_MIN_S", 10.0)  # nobody waits to the end of that
    async with opened() as (playhead, store):
        await playhead.start(Scripted("a"), stream_id="s")
        wires = [Wire(), Wire()]
        running = [
            asyncio.create_task(wires[0].run(await following(playhead))),
            asyncio.create_task(wires[1].run(many(playhead, "s"))),
        ]
        await until(lambda: all("text" in kinds(wire) for wire in wires))
        store.leave()
        await until(lambda: [kinds(wire)[-1] for wire in wires] == [AWAY, AWAY])
        if how == "cancel":
            for task in running:
                task.cancel()
        else:
            playhead._readers.drain()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await asyncio.wait(running, timeout=PATIENCE_S)
        assert loop.time() - began_at < 4  # a pause is 5 s at least
        assert [task.cancelled() for task in running] == [how == "cancel"] * 2
        assert [kinds(wire)[-1] for wire in wires] == [AWAY, AWAY]
        assert tidy_readers(playhead)


async def test_a_stream_that_is_gone_when_the_store_is_back_is_an_error() -> None:
    data = MemoryData()
    async with opened(data) as (playhead, store), opened(data) as (elsewhere, _):
        await elsewhere.start(Scripted("a"), stream_id="s")
        await has_stored(elsewhere, "s", 1)
        wire = Wire()
        running = asyncio.create_task(wire.run(await following(playhead)))
        await until(lambda: kinds(wire) == ["text"])
        store.leave()
        await until(lambda: AWAY in kinds(wire))
        await elsewhere.delete("s")
        store.come_back()
        await asyncio.wait_for(running, PATIENCE_S)
        assert kinds(wire) == ["text", AWAY, "playhead.error"]
        assert frames(wire)[-1].json()["code"] == StreamNotFound.code


async def test_one_of_many_streams_may_begin_during_an_outage() -> None:
    data = MemoryData()
    async with opened(data) as (playhead, store), opened(data) as (elsewhere, _):
        source = Scripted("a", then=("b",))
        await elsewhere.start(source, stream_id="s")
        await has_stored(elsewhere, "s", 1)
        wire = Wire()
        store.leave()
        running = asyncio.create_task(wire.run(many(playhead, "s", "none")))
        await until(lambda: store.asked >= 6)
        assert sorted(kinds(wire)) == [AWAY, AWAY]
        store.come_back()
        source.go_on.set()
        await until(lambda: {"playhead.close", "playhead.error"} <= set(kinds(wire)))
        mine = [frame.json() for frame in frames(wire) if frame.json()["key"] == "s"]
        assert [said["type"] for said in mine][:2] == [AWAY, "playhead.open"]
        assert "".join(said["data"] for said in mine if said["type"] == "text") == "ab"
        assert [frame.json()["code"] for frame in frames(wire) if frame.json()["key"] == "none"][1:] == [
            StreamNotFound.code
        ]
        wire.gone.set()
        await asyncio.wait_for(running, PATIENCE_S)


async def test_of_a_stream_of_a_thread_nothing_is_said_before_it_may_be_read() -> None:
    """The outage begins when the stream was found, and before it was opened."""
    async with opened() as (playhead, store):
        wire = Wire()
        running = asyncio.create_task(wire.run(many(playhead, thread_id="t")))
        await until(lambda: kinds(wire) == ["playhead.thread"])
        source = Scripted("a")
        await playhead.start(source, thread_id="t")
        store.leave()  # before the pump's first step
        await until(lambda: store.asked >= 2)
        assert kinds(wire) == ["playhead.thread"]
        store.come_back()
        source.go_on.set()
        await until(lambda: "playhead.close" in kinds(wire))
        assert kinds(wire) == ["playhead.thread", "playhead.open", "text", "playhead.close"]
        wire.gone.set()
        await asyncio.wait_for(running, PATIENCE_S)


# ---- over HTTP ------------------------------------------------------------------------------------------------


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Outages]]:
    """The stores that servers open, each with outages on command."""
    made = outages_of_servers(monkeypatch)
    yield made
    for store in made:
        assert store.is_unwatched


class Asked:
    """ASGI middleware that counts the requests of each path."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


class Reading:
    """One response, read as it comes."""

    def __init__(self, server: Server, door: str) -> None:
        self.seen = Frames()
        self.door = door
        self._server = server
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        method, path, how = {
            "native": ("GET", "/v1/streams/s", {}),
            "coalesced": ("GET", "/v1/streams/s?coalesce=text", {}),
            "chat": ("GET", "/v1/chat/stream?thread_id=t", {}),
            "follow": ("POST", "/v1/follow", {"json": {"subscriptions": [{"key": "k", "stream_id": "s"}]}}),
        }[self.door]
        async with self._server.http.stream(method, path, **how) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                frame = self.seen.feed_line(line)
                if frame is not None and self.door == "follow" and frame.json()["type"] == "playhead.close":
                    return

    @property
    def text(self) -> str:
        return "".join(data for kind, data in self.said if kind == "text")

    @property
    def said(self) -> list[tuple[str, str]]:
        """(kind, text) of each frame."""
        if self.door == "chat":
            return [("text" if one.event == "chunk" else one.data, one.data) for one in self.seen.frames]
        if self.door == "follow":
            return [(one.json()["type"], str(one.json().get("data"))) for one in self.seen.frames]
        return [(one.event, str(one.json().get("data"))) for one in self.seen.frames]

    @property
    def times_told(self) -> int:
        if self.door == "chat":
            return self.seen.comments.count("reconnecting, store-unavailable")
        return [kind for kind, _ in self.said].count(AWAY)

    @property
    def offsets(self) -> list[int]:
        """Of all events, joined ones too."""
        found = []
        for one in self.seen.frames:
            said = one.json()
            kind = said["type"] if self.door == "follow" else one.event
            if kind in ("text", "playhead.close"):
                found += range(said.get("first", said["offset"]), said["offset"] + 1)
        return found


@pytest.mark.proves("H10")
@pytest.mark.parametrize("door", ["native", "coalesced", "follow", "chat"])
async def test_readers_before_during_and_after_an_outage(door: str, tmp_path: Path, stores: list[Outages]) -> None:
    async with serving(tmp_path) as server:
        store, source = stores[0], Scripted("a", "b", then=tuple("cdefgh"))
        await server.playhead.start(source, stream_id="s", thread_id="t", owner=OWNER)
        await has_stored(server.playhead, "s", 2, principal=OWNER)
        before = [Reading(server, door) for _ in range(5)]
        await eventually(lambda: all(one.text == "ab" for one in before))
        store.leave()
        await eventually(lambda: all(one.times_told for one in before), "the readers are told")
        source.go_on.set()
        await eventually(lambda: store.failed > 0 and store.asked >= 4, "producer and readers ask in vain")
        if door == "follow":
            during = [Reading(server, door) for _ in range(5)]
            await eventually(lambda: all(one.times_told for one in during), "those who come meanwhile are told")
        else:  # no response has begun: it comes back with its cursor
            during = []
            answer = await server.http.get("/v1/streams/s")
            assert (answer.status_code, answer.text) == (200, "retry: 1000\n: store-unavailable\n")
        assert all(not one.task.done() for one in before)
        store.come_back()
        after = [Reading(server, "follow" if door == "follow" else "native") for _ in range(5)]
        readings = [*before, *during, *after]
        await asyncio.wait_for(asyncio.gather(*[one.task for one in readings]), WAIT_S)
        assert {one.text for one in readings} == {"abcdefgh"}
        assert {one.times_told for one in [*before, *during]} == {1}
        assert {one.times_told for one in after} <= {0}
        if door == "chat":
            assert [kind for kind, _ in before[0].said][-2:] == ["message_ended", "end"]
        else:
            assert [one.offsets for one in readings] == [list(range(1, 10))] * len(readings)
        await tidied(server.playhead)


@pytest.mark.proves("K6", "K2")
@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_a_client_is_reconnecting_and_stays_connected(kind: str, tmp_path: Path, stores: list[Outages]) -> None:
    asked: list[Asked] = []

    def counted(app: Any) -> Asked:
        asked.append(Asked(app))
        return asked[0]

    async with serving(tmp_path, counted) as server:
        store, source = stores[0], Scripted("a", "b", then=("c", "d"))
        await server.playhead.start(source, stream_id="s", owner=OWNER)
        await has_stored(server.playhead, "s", 2, principal=OWNER)
        states: list[State] = []
        troubles: list[Any] = []
        got: list[tuple[int, str]] = []

        def told(state: State) -> None:
            states.append(state)
            troubles.append(tail.trouble)

        if kind == "async":
            client: Any = AsyncClient(server.url)
            tail: Any = client.tail("s", on_state=told)

            async def read() -> None:
                async with client:
                    got.extend([(event.offset, event.text) async for event in tail])

            reading = asyncio.create_task(read())
        else:
            client = Client(server.url)
            tail = client.tail("s", on_state=told)

            def read_blocking() -> None:
                with client:
                    got.extend((event.offset, event.text) for event in tail)

            reading = asyncio.create_task(asyncio.to_thread(read_blocking))
        await eventually(lambda: states[-1:] == [State.LIVE])
        store.leave()
        await eventually(lambda: states[-1:] == [State.RECONNECTING])
        assert isinstance(troubles[-1], StoreUnavailable)
        assert tail.cursor.endswith(".2")
        source.go_on.set()
        await eventually(lambda: store.failed > 0)
        store.come_back()
        await asyncio.wait_for(reading, WAIT_S)
        assert got == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        assert states[-3:] == [State.RECONNECTING, State.LIVE, State.CLOSED]
        assert troubles[-2:] == [None, None]
        assert states.count(State.RECONNECTING) == 1
        assert asked[0].paths == ["/v1/streams/s"]


@pytest.mark.proves("H10")
async def test_readers_stay_while_a_real_redis_is_killed_and_started_again(
    make_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.stores.redis.wire.REPLY_MAX_S", 30.0)  # a slow reply would be one more outage
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    async with serving(tmp_path, store=redis.url) as server:
        source = Scripted("a", "b", then=tuple("cdefgh"))
        await server.playhead.start(source, stream_id="s", owner=OWNER)
        await has_stored(server.playhead, "s", 2, principal=OWNER)
        readings = [Reading(server, door) for door in ("native", "coalesced", "follow")]
        await eventually(lambda: all(one.text == "ab" for one in readings))
        await asyncio.to_thread(redis.kill)
        await eventually(lambda: all(one.times_told for one in readings), "the readers are told")
        source.go_on.set()
        await asyncio.to_thread(redis.start)
        await asyncio.wait_for(asyncio.gather(*[one.task for one in readings]), WAIT_S)
        assert [one.text for one in readings] == ["abcdefgh"] * 3
        assert [one.offsets for one in readings] == [list(range(1, 10))] * 3
        assert [one.times_told for one in readings] == [1, 1, 1]
