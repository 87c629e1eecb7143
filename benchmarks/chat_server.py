"""The serving process of the chat rows: ``playhead serve``'s application, and beside it the same graph unrecorded.

POST /v1/chat/message, GET /v1/streams/{id}     as in the product
POST /bench/plain                               the same agent, with checkpoints of its own, in a StreamingResponse
PUT, GET /bench/text                            a text as one static page
"""

import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from playhead.agents import ChatAgent, TextPiece, choose_model, open_agent
from playhead.server.app import create_app
from playhead.server.opening import open_chat
from playhead.server.settings import Settings

TEXT_PAGE = "<!doctype html><meta charset=utf-8><title>text</title><main style='white-space: pre-wrap'>{}</main>"


async def plain_answer(agent: ChatAgent, body: dict[str, Any]) -> AsyncIterator[str]:
    async with aclosing(agent.reply(body["thread_id"], body["message_id"], body["message"])) as pieces:
        async for piece in pieces:
            if isinstance(piece, TextPiece):
                yield f"data: {json.dumps(piece.text)}\n\n"


def main(folder: str, model_url: str) -> None:
    settings = Settings(_env_file=None, data_dir=Path(folder), openai_base_url=model_url or None)  # type: ignore[call-arg]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        model = choose_model(base_url=model_url or None)
        async with open_chat(settings) as chat, open_agent(Path(folder) / "plain.db", model) as agent:
            app.state.agent = agent
            served.state.chat = chat
            yield

    served = create_app(settings)
    app = FastAPI(lifespan=lifespan)

    @app.post("/bench/plain")
    async def plain(body: dict[str, Any]) -> Response:
        return StreamingResponse(plain_answer(app.state.agent, body), media_type="text/event-stream")

    @app.put("/bench/text")
    async def keep(request: Request) -> None:
        app.state.text = TEXT_PAGE.format(escape((await request.body()).decode()))

    @app.get("/bench/text")
    async def text() -> Response:
        return HTMLResponse(app.state.text)

    @app.get("/bench/cost")
    async def cost() -> Response:
        times = psutil.Process().cpu_times()
        return JSONResponse({"cpu_s": times.user + times.system})

    app.mount("/", served)
    # Not uvicorn's ``fd``: it takes each for a Unix socket, so that TCP_NODELAY stays off and small writes wait.
    listener = socket.socket(fileno=int(os.environ["BENCH_FD"]))
    uvicorn.Server(uvicorn.Config(app, log_level="critical", loop="uvloop")).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
