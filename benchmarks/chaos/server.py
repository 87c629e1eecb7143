"""One serving process of the fault run: ``python -m benchmarks.chaos.server <store url> <lease_s>``.

    POST /start/{id}?events=&pause_ms=     record content(id, 1..events); the same id again gives the same stream
    GET  /v1/streams/{id}                  as in the product
    POST /cancel/{id}

It says where it listens, and as which instance, in one line of JSON on its standard output.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.chaos.content import BYTES, STEP, content
from playhead import Playhead, event
from playhead.adapters.starlette import install, stream_response
from playhead.errors import StoreError
from playhead.options import Options

BACKLOG = 1024
EXIT_STORE_AWAY = 75


async def source(stream_id: str, events: int, pause_s: float) -> AsyncIterator[Any]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for offset in range(1, events + 1):
        kind, data = content(stream_id, offset)
        yield data if kind == BYTES else event(kind, data) if kind == STEP else data.decode()
        await asyncio.sleep(max(0.0, began + offset * pause_s - loop.time()))


def application(playhead: Playhead, listener: socket.socket) -> Starlette:
    async def start(request: Request) -> JSONResponse:
        stream_id, asked = request.path_params["id"], request.query_params
        events, pause_s = int(asked["events"]), int(asked["pause_ms"]) / 1e3
        info = await playhead.start(lambda: source(stream_id, events, pause_s), stream_id=stream_id)
        return JSONResponse({"producer": info.producer})

    async def follow(request: Request) -> Response:
        return await stream_response(playhead, request, request.path_params["id"])

    async def cancel(request: Request) -> JSONResponse:
        info = await playhead.cancel(request.path_params["id"], reason="chaos")
        return JSONResponse({"stored": info.is_live and info.cancel is not None})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            await playhead.connect()
        except StoreError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(EXIT_STORE_AWAY)  # the harness starts it again
        print(json.dumps({"port": listener.getsockname()[1], "id": playhead.store.instance_id}), flush=True)
        yield
        await playhead.close()

    routes = [
        Route("/start/{id}", start, methods=["POST"]),
        Route("/v1/streams/{id}", follow),
        Route("/cancel/{id}", cancel, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    install(app, playhead)
    return app


def main() -> None:
    url, lease_s = sys.argv[1:]
    playhead = Playhead.open(url, options=Options(lease_s=float(lease_s)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    config = uvicorn.Config(application(playhead, listener), log_level="warning", loop="uvloop", access_log=False)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
