"""The serving process of the HTTP rows: the same bytes recorded by Playhead, and from plain StreamingResponses."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from playhead import Playhead, StreamInfo
from playhead.adapters.starlette import stream_response
from playhead.model import COMPLETED, TEXT, Batch
from playhead.sse import close_frame, frames, opening

PACE_S = 0.01


def words(count: int) -> list[str]:
    return [f"token {i:05d} of an answer, about fifty bytes long." for i in range(count)]


def plain_frames(info: StreamInfo) -> list[bytes]:
    """What a reader of the stream is sent, event by event."""
    each = [frames(info, Batch(i, info.epoch, TEXT, [w.encode()])) for i, w in enumerate(words(info.tail), 1)]
    return [opening(1000) + each[0], *each[1:], close_frame(info)]


class Bench:
    def __init__(self, url: str) -> None:
        self.playhead = Playhead.open(url)
        self.go = asyncio.Event()
        self.plain: dict[str, list[bytes]] = {}
        self.beat: asyncio.Future[None] | None = None

    async def source(self, count: int, *, paced: bool) -> AsyncIterator[str]:
        await self.go.wait()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, word in enumerate(words(count)):
            yield word
            if paced:
                await asyncio.sleep(max(0.0, began + (number + 1) * PACE_S - loop.time()))

    async def pace(self, count: int) -> None:
        """One shared beat for all plain responses: the cheapest way to pace them."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(count):
            beat, self.beat = self.beat, loop.create_future()
            if beat is not None:
                beat.set_result(None)
            await asyncio.sleep(max(0.0, began + (number + 1) * PACE_S - loop.time()))

    async def body(self, name: str, *, paced: bool) -> AsyncIterator[bytes]:
        if paced or not self.go.is_set():
            await self.go.wait()
        for frame in self.plain[name]:
            yield frame
            if paced and self.beat is not None:
                await self.beat

    # ---- routes ------------------------------------------------------------------------------------

    async def start(self, request: Request) -> JSONResponse:
        count, paced = int(request.query_params["events"]), request.query_params.get("paced") == "1"
        self.go.clear()
        info = await self.playhead.start(self.source(count, paced=paced))
        finished = info.but(tail=count)
        self.plain[info.stream_id] = plain_frames(finished.but(outcome=COMPLETED))
        return JSONResponse({"id": info.stream_id})

    async def release(self, request: Request) -> Response:
        self.go.set()
        if count := int(request.query_params.get("beats", 0)):
            self.pacing = asyncio.create_task(self.pace(count))
        return Response()

    async def idle(self, request: Request) -> JSONResponse:
        """Make live streams that wait."""

        async def wait() -> AsyncIterator[str]:
            yield "hello"
            await asyncio.Event().wait()

        for _ in range(int(request.query_params["streams"])):
            await self.playhead.start(wait())
        return JSONResponse({})

    async def follow(self, request: Request) -> Response:
        return await stream_response(self.playhead, request, request.path_params["id"])

    async def unrecorded(self, request: Request) -> Response:
        paced = request.query_params.get("paced") == "1"
        return StreamingResponse(self.body(request.path_params["id"], paced=paced), media_type="text/event-stream")

    async def expected(self, request: Request) -> Response:
        return Response(b"".join(self.plain[request.path_params["id"]]))

    async def cost(self, _: Request) -> JSONResponse:
        process = psutil.Process()
        times = process.cpu_times()
        tasks = len(asyncio.all_tasks())
        return JSONResponse({"cpu_s": times.user + times.system, "rss": process.memory_info().rss, "tasks": tasks})

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self.playhead:
            yield

    def app(self) -> Starlette:
        routes = [
            Route("/start", self.start, methods=["POST"]),
            Route("/go", self.release, methods=["POST"]),
            Route("/idle", self.idle, methods=["POST"]),
            Route("/cost", self.cost),
            Route("/expected/{id}", self.expected),
            Route("/stream/{id}", self.follow),
            Route("/plain/{id}", self.unrecorded),
        ]
        return Starlette(routes=routes, lifespan=self.lifespan)


if __name__ == "__main__":
    # Not uvicorn's ``fd``: it takes each for a Unix socket, so that TCP_NODELAY stays off and small writes wait.
    listener = socket.socket(fileno=int(os.environ["BENCH_FD"]))
    config = uvicorn.Config(Bench(sys.argv[1]).app(), log_level="critical", loop="uvloop")
    uvicorn.Server(config).run([listener])
