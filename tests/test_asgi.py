"""The response on a socket: frames, endings, keep-alives, readers who leave or stall."""

import asyncio
import json
import random
from itertools import pairwise
from typing import Any

import pytest
from conftest import OpenPlayhead
from serving import Client, serving
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from streaming import Scripted, finished, follow, has_stored, say, until
from wire import Wire

from playhead import Cursor, Playhead
from playhead.asgi import EventStream, Problem, _Ticker
from playhead.errors import StreamNotFound, TooManyReaders
from playhead.testing.sse_parser import ServerSentEvents

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.asgi.KEEP_ALIVE_S", 0.15)
    monkeypatch.setattr("playhead.asgi._TICK_S", 0.02)


async def opened(playhead: Playhead, stream_id: str = "s", **how: Any) -> EventStream:
    tail = playhead.tail(stream_id, **how)
    await tail.open()
    return EventStream(tail)


@pytest.mark.proves("H2")
async def test_h2_a_whole_stream_byte_for_byte(playhead: Playhead) -> None:
    await playhead.start(say("Hello\n", b"\xff"), stream_id="s")
    await finished(playhead, "s")
    wire = Wire()
    await wire.run(await opened(playhead))
    tail = [(b"playhead-tail", b"2")]
    assert wire.sent[0] == {"type": "http.response.start", "status": 200, "headers": HEADERS + tail}
    info = await playhead.info("s")
    prefix = f"1.{info.mark}.{info.epoch}"
    assert (
        wire.body
        == (
            f'retry: 1000\nid: {prefix}.1\nevent: text\ndata: {{"offset":1,"data":"Hello\\n"}}\n\n'
            f'id: {prefix}.2\nevent: bytes\ndata: {{"offset":2,"data":"/w==","encoding":"base64"}}\n\n'
            f'id: {prefix}.3\nevent: playhead.close\ndata: {{"offset":3,"outcome":"completed"}}\n\n'
        ).encode()
    )
    assert wire.is_complete
    assert not playhead._readers.counts


@pytest.mark.proves("H3")
async def test_h3_204_exactly_at_the_close(playhead: Playhead) -> None:
    await playhead.start(say("a", "b"), stream_id="s")
    await finished(playhead, "s")
    info = await playhead.info("s")
    at_the_close = Wire()
    await at_the_close.run(await opened(playhead, after=info.cursor))
    assert at_the_close.sent == [
        {"type": "http.response.start", "status": 204, "headers": [*HEADERS[1:], (b"playhead-tail", b"2")]},
        {"type": "http.response.body", "body": b""},
    ]
    one_before = Wire()
    await one_before.run(await opened(playhead, after=str(Cursor(info.mark, info.epoch, 2))))
    assert one_before.sent[0]["status"] == 200
    (close,) = ServerSentEvents().feed(one_before.body)
    assert close.type == "playhead.close"
    assert not playhead._readers.counts


async def test_head_has_the_headers_only(playhead: Playhead) -> None:
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    wire = Wire("HEAD")
    await wire.run(await opened(playhead))
    assert wire.sent[0]["headers"][:-1] == HEADERS
    assert wire.body == b""
    assert wire.is_complete
    assert not playhead._readers.counts


@pytest.mark.proves("H4")
async def test_h4_errors_before_the_first_byte_and_after(playhead: Playhead) -> None:
    wire = Wire()
    await wire.run(Problem(StreamNotFound("there is no such stream", stream_id="x"), [(b"x-extra", b"1")]))
    assert wire.sent[0]["status"] == 404
    headers = dict(wire.sent[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-extra"] == b"1"
    assert int(headers[b"content-length"]) == len(wire.body)
    assert b"retry-after" not in headers
    assert json.loads(wire.body)["type"] == "urn:playhead:stream-not-found"
    busy = Wire()
    await busy.run(Problem(TooManyReaders("later", limit=1)))
    assert (b"retry-after", b"1") in busy.sent[0]["headers"]

    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    after = Wire()
    running = asyncio.create_task(after.run(await opened(playhead)))
    await until(lambda: b'"data":"a"' in after.body)
    await playhead.delete("s")
    await asyncio.wait_for(running, 15)
    events = ServerSentEvents().feed(after.body)
    assert [event.type for event in events] == ["text", "playhead.error"]
    assert json.loads(events[1].data)["code"] == "stream-not-found"
    assert events[1].id == events[0].id  # the error is no place in the stream
    assert after.is_complete


@pytest.mark.proves("H5")
async def test_h5_keep_alives_come_only_when_idle_and_form_no_event(playhead: Playhead, in_a_hurry: None) -> None:
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    wire = Wire()
    running = asyncio.create_task(wire.run(await opened(playhead)))
    await until(lambda: wire.body.count(b": keep-alive\n") >= 3)
    source.go_on.set()
    await asyncio.wait_for(running, 15)
    parser = ServerSentEvents()
    events = parser.feed(wire.body)
    assert [event.type for event in events] == ["text", "text", "playhead.close"]
    assert parser.empty_dispatches == 0
    assert set(parser.comments) == {"keep-alive"}
    assert b": keep-alive\n\n" not in wire.body
    keep_alives = [message["body"] for message in wire.sent if b"keep-alive" in message.get("body", b"")]
    assert set(keep_alives) == {b": keep-alive\n"}


class Timed(Wire):
    """Knows when each message was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    async def send(self, message: Any) -> None:
        self.at.append(asyncio.get_running_loop().time())
        await super().send(message)


async def test_h5_a_busy_stream_has_no_keep_alives(playhead: Playhead, in_a_hurry: None) -> None:
    async def busy():
        for _ in range(60):
            yield "x"
            await asyncio.sleep(0.01)

    await playhead.start(busy, stream_id="s")
    wire = Timed()
    await wire.run(await opened(playhead))
    for (before, _), (at, message) in pairwise(zip(wire.at, wire.sent, strict=True)):
        # A machine that stands still makes a silence, too; what ignores the traffic comes 0.01 s after an event.
        assert b"keep-alive" not in message.get("body", b"") or at - before >= 0.1
    assert wire.body.count(b"event: text") == 60


@pytest.mark.proves("P11.1")
async def test_p11_draining_ends_the_response_without_a_close(playhead: Playhead) -> None:
    source = Scripted("a")
    await playhead.start(source, stream_id="s")
    await has_stored(playhead, "s", 1)
    async with serving(playhead) as port:
        client = await Client.get(port, "s")
        first = await client.event()
        assert first
        draining = asyncio.create_task(playhead.drain(grace_s=5))
        assert await client.rest() == []  # a proper end: no torn chunk, no error, no close
        assert not draining.done()
        assert client.parser.is_between_frames
        assert client.parser.last_event_id == first.id
        refused = await Client.get(port, "s", cursor=first.id)
        assert refused.status == 503
        assert await refused.event() is None
        assert json.loads(refused.body)["code"] == "draining"
        source.go_on.set()
        await draining


# ---- real sockets --------------------------------------------------------------------------------------


@pytest.mark.proves("P2.1", "P3.1")
async def test_p2_readers_over_http_lose_their_connection_again_and_again(playhead: Playhead) -> None:
    chance = random.Random(11)
    items = [chance.choice(["x", "\n\n", "\r", b"\xff\x00", "ü" * 50, "", {"a": [1, None]}]) for _ in range(400)]

    async def source():
        for number, item in enumerate(items):
            yield item
            if number % 10 == 0:
                await asyncio.sleep(0.002)

    await playhead.start(source, stream_id="s")
    async with serving(playhead) as port:

        async def read_it() -> list[tuple[str, str, str]]:
            got: list[tuple[str, str, str]] = []
            cursor = None
            while True:
                client = await Client.get(port, "s", cursor=cursor)
                if client.status == 204:
                    client.leave()
                    return got
                for _ in range(chance.randrange(1, 40)):
                    event = await client.event()
                    if event is None:
                        break
                    got.append((event.type, event.data, event.id))
                    cursor = event.id
                assert client.parser.empty_dispatches == 0
                client.leave()

        everything = await asyncio.wait_for(asyncio.gather(*[read_it() for _ in range(12)]), 60)
        expected = await follow(playhead, "s")
        for got in everything:
            assert got == everything[0]
        assert [json.loads(data)["offset"] for _, data, _ in got] == list(range(1, 402))
        assert [kind for kind, _, _ in got] == [event.type for event in expected] + ["playhead.close"]
        await until(lambda: not playhead._readers.counts)


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("layers", [0, 3])
async def test_a_reader_who_left_is_noticed_on_an_idle_stream(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    rounds, tick = 0, _Ticker._tick

    def counted(ticker: _Ticker) -> None:
        nonlocal rounds
        rounds += 1
        tick(ticker)

    monkeypatch.setattr(_Ticker, "_tick", counted)
    source = Scripted("a")
    await playhead.start(source, stream_id="s")

    def wrap(app: Any) -> Any:
        for _ in range(layers):
            app = PassOn(app)
        return app

    async with serving(playhead, wrap) as port:
        clients = [await Client.get(port, "s") for _ in range(20)]
        for client in clients:
            await client.event()
        assert playhead._readers.counts.total() == 20
        for client in clients[:10]:
            client.leave()
        left_at = rounds
        await until(lambda: playhead._readers.counts.total() == 10)
        assert rounds - left_at <= 4  # it looks every 2 s, at a tick a second
        source.go_on.set()
        for client in clients[10:]:
            assert [event.type for event in await client.rest()] == ["playhead.close"]
    assert (await playhead.info("s")).outcome.kind == "completed"
    assert not playhead._readers.counts


async def test_p8_a_stalled_reader_is_given_up_and_delays_nobody(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.asgi._TICK_S", 0.05)
    source = Scripted("a", then=("x" * 100_000,) * 200)
    await playhead.start(source, stream_id="s")
    async with serving(playhead) as port:
        stalled = [await Client.get(port, "s") for _ in range(3)]
        quick = await Client.get(port, "s")
        assert playhead._readers.counts.total() == 4
        source.go_on.set()
        assert len(await asyncio.wait_for(quick.rest(), 60)) == 202
        await until(lambda: playhead._readers.counts.total() == 3)
        monkeypatch.setattr("playhead.asgi.STALLED_S", 0.5)
        await until(lambda: not playhead._readers.counts)
        for client in stalled:
            client.leave()


@pytest.mark.parametrize("stuck_at", ["start", "event", "close"])
async def test_a_reader_that_stalls_anywhere_is_given_up(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch, stuck_at: str
) -> None:
    monkeypatch.setattr("playhead.asgi.STALLED_S", 0.1)
    monkeypatch.setattr("playhead.asgi._TICK_S", 0.02)
    source = Scripted("a", then=("b",) if stuck_at == "event" else ())
    await playhead.start(source, stream_id="s")
    await has_stored(playhead, "s", 1)
    wire = Wire()
    if stuck_at == "start":
        wire.let.clear()
    running = asyncio.create_task(wire.run(await opened(playhead)))
    if stuck_at != "start":
        await until(lambda: b'"data":"a"' in wire.body)
        await until(lambda: playhead._readers.feeds["s"].waiters != set())
        wire.let.clear()
        source.go_on.set()
    await asyncio.wait_for(wire.stuck.wait(), 15)
    await asyncio.wait_for(running, 15)
    assert not running.cancelled()
    assert running.cancelling() == 0
    assert not playhead._readers.counts


async def test_a_server_that_cancels_the_request_gets_its_cancellation(playhead: Playhead) -> None:
    await playhead.start(Scripted("a"), stream_id="s")
    wire = Wire()
    running = asyncio.create_task(wire.run(await opened(playhead)))
    await until(lambda: b'"data":"a"' in wire.body)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not playhead._readers.counts
    assert (await playhead.info("s")).is_live


async def test_a_send_that_fails_gives_the_slot_back(playhead: Playhead) -> None:
    await playhead.start(Scripted("a"), stream_id="s")

    async def torn(message: Any) -> None:
        raise OSError("connection reset")

    wire = Wire()
    with pytest.raises(OSError, match="reset"):
        await (await opened(playhead))(wire.scope, wire.receive, torn)
    assert not playhead._readers.counts


async def test_a_response_that_is_never_sent_gives_the_slot_back(playhead: Playhead) -> None:
    await playhead.start(Scripted("a"), stream_id="s")
    response = await opened(playhead)
    assert playhead._readers.counts.total() == 1
    del response
    await until(lambda: not playhead._readers.counts)


async def test_the_ticker_stands_still_without_readers(playhead: Playhead) -> None:
    from playhead.asgi import _ticker

    await playhead.start(say("a"), stream_id="s")
    await finished(playhead, "s")
    await Wire().run(await opened(playhead))
    assert _ticker()._timer is None


async def test_every_byte_survives_the_wire(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    everything = (
        [bytes([n]) for n in range(256)] + [chr(n) for n in range(0x300)] + ["\ud800", "\U0001f600", "x" * 300_000]
    )
    await playhead.start(say(*everything), stream_id="s/ü ?#%")
    events = await follow(playhead, "s/ü ?#%")
    async with serving(playhead) as port:
        client = await Client.get(port, "s/ü ?#%")
        got = await client.rest()
    import base64

    for event, frame in zip(events, got[:-1], strict=True):
        value = json.loads(frame.data)
        data = base64.b64decode(value["data"]) if "encoding" in value else value["data"].encode()
        assert (event.offset, event.type, event.data) == (value["offset"], frame.type, data)
