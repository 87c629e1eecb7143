"""Playhead in an app of one's own: responses, errors, and a clean end under plain uvicorn."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from running_server import WAIT_S, Frames, eventually
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from playhead import Options, Playhead
from playhead.adapters.starlette import BareStreams, install, lifespan, stream_response

EMBEDDER = """
import asyncio, sys
from fastapi import FastAPI, Request
from playhead import Playhead
from playhead.adapters.starlette import install, lifespan, stream_response

playhead = Playhead.open("sqlite:///answers.db")
app = FastAPI(lifespan=lifespan(playhead, drain_grace_s=0.5))
install(app, playhead)

async def endless():
    try:
        for number in range(10**9):
            yield f"{number} "
            await asyncio.sleep(0.01)
    finally:
        print("source ended", flush=True)

@app.post("/ask")
async def ask():
    return {"stream_id": (await playhead.start(endless())).stream_id}

@app.get("/answers/{stream_id:path}")
async def follow(stream_id: str, request: Request):
    return await stream_response(playhead, request, stream_id)
"""


class App:
    """A Starlette app around a Playhead in memory, served by uvicorn in this loop."""

    def __init__(self, playhead: Playhead, http: httpx.AsyncClient) -> None:
        self.playhead = playhead
        self.http = http


@pytest.fixture(params=["in the framework", "bare"])
async def app(request: pytest.FixtureRequest) -> AsyncIterator[App]:
    playhead = Playhead.open("memory://", options=Options(readers_per_owner_max=1))
    async with serving(playhead, bare=request.param == "bare") as app:
        yield app


@contextlib.asynccontextmanager
async def serving(playhead: Playhead, *, bare: bool) -> AsyncIterator[App]:
    async def follow(request: Request) -> Response:
        principal = request.query_params.get("principal")
        return await stream_response(playhead, request, request.path_params["id"], principal=principal)

    async def same(request: Request) -> Response:
        return PlainTextResponse(str(request.app.state.playhead is playhead))

    routes = [Route("/same", same), Route("/{id:path}", follow)]
    app = Starlette(routes=routes, lifespan=lifespan(playhead))
    install(app, playhead)
    if bare:
        app.add_middleware(BareStreams)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as http:
        yield App(playhead, http)
    server.should_exit = True
    await asyncio.wait_for(running, WAIT_S)


async def write(app: App, stream_id: str, *items: object, owner: str | None = None) -> None:
    async with await app.playhead.produce(stream_id, owner=owner) as out:
        await out.append(*items)


async def test_a_stream_is_answered_and_resumed(app: App) -> None:
    await write(app, "s", "one", "two")
    everything = Frames.of((await app.http.get("/s")).text).frames
    assert [frame.event for frame in everything] == ["text", "text", "playhead.close"]
    cursors = [frame.id or "" for frame in everything]
    rest = await app.http.get(f"/s?after={cursors[1]}", headers={"last-event-id": cursors[0]})
    assert Frames.of(rest.text).frames == everything[1:]
    rest = await app.http.get(f"/s?after={cursors[1]}", headers={"last-event-id": ""})
    assert Frames.of(rest.text).frames == everything[2:]
    assert (await app.http.get(f"/s?after={cursors[2]}")).status_code == 204
    assert (await app.http.get("/same")).text == "True"


async def test_errors_that_stay_become_problem_documents(app: App) -> None:
    await write(app, "mine", "x", owner="ann")
    for path, status, code in [
        ("/unknown", 404, "stream-not-found"),
        ("/mine?principal=bob", 404, "stream-not-found"),
        ("/mine?principal=ann&after=garbage", 400, "cursor-invalid"),
    ]:
        answer = await app.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.json()["code"] == code
    assert (await app.http.get("/mine?principal=ann")).status_code == 200


async def test_errors_that_pass_ask_the_reader_to_come_back(app: App) -> None:
    writer = await app.playhead.produce("s")
    async with app.http.stream("GET", "/s") as first:
        await anext(first.aiter_lines())
        second = await app.http.get("/s")
        seen = Frames.of(second.text)
        assert (second.status_code, seen.frames, seen.retry_ms) == (200, [], 1_000)
        assert seen.comments == ["too-many-readers"]
        assert second.headers["content-type"] == "text/event-stream; charset=utf-8"
    await writer.close()
    await app.playhead.drain(0)
    assert Frames.of((await app.http.get("/s")).text).comments == ["draining"]


async def test_the_lifespan_connects_drains_and_closes() -> None:
    playhead = Playhead.open("memory://")
    ended = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with lifespan(playhead, drain_grace_s=0.01)(None):
        started = await playhead.start(source)
        await eventually(lambda: _tail(playhead, started.stream_id))
    assert ended.is_set()
    assert playhead.is_draining


async def _tail(playhead: Playhead, stream_id: str) -> int:
    return (await playhead.info(stream_id)).tail


async def test_signal_handlers_are_as_before_when_the_lifespan_is_over() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with lifespan(Playhead.open("memory://"))(None):
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_plain_uvicorn_ends_while_readers_follow_an_endless_stream(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = _embedder(tmp_path)
    try:
        url = await asyncio.to_thread(_url_of, process)
        async with httpx.AsyncClient(base_url=url, timeout=WAIT_S) as http:
            stream_id = (await http.post("/ask")).json()["stream_id"]
            seen, told = Frames(), False
            async with asyncio.timeout(WAIT_S), http.stream("GET", f"/answers/{stream_id}") as answer:
                async for line in answer.aiter_lines():
                    seen.feed_line(line)
                    if not told and len(seen.frames) == 5:
                        told = True  # once: a second Ctrl-C would have uvicorn leave without a word
                        process.send_signal(number)
            assert told
            assert seen.frames[-1].event == "text"
        output, _ = await asyncio.to_thread(process.communicate, None, WAIT_S)
        assert "source ended" in output
    finally:
        process.kill()
        process.wait()
    async with Playhead.open(f"sqlite:///{tmp_path / 'answers.db'}") as playhead:
        outcome = (await playhead.info(stream_id)).outcome
    assert outcome
    assert (outcome.kind, outcome.reason) == ("interrupted", "shutdown")


def _embedder(directory: Path) -> "subprocess.Popen[str]":
    (directory / "app.py").write_text(textwrap.dedent(EMBEDDER))
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("uvicorn did not start")
