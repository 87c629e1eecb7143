"""The serving process of the chat rows: ``playhead serve``'s application, and beside it the same graph unrecorded.

POST /v1/chat/message, GET /v1/streams/{id}     as in the product
POST /bench/plain                               the same agent, with checkpoints of its own, in a StreamingResponse
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response, StreamingResponse

from playhead.agents import ChatAgent, TextPiece, choose_model, open_agent
from playhead.server.app import create_app
from playhead.server.opening import open_chat
from playhead.server.settings import Settings


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

    @app.get("/bench/cost")
    async def cost() -> Response:
        times = psutil.Process().cpu_times()
        return JSONResponse({"cpu_s": times.user + times.system})

    app.mount("/", served)
    config = uvicorn.Config(app, fd=int(os.environ["BENCH_FD"]), log_level="critical", loop="uvloop")
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
