"""The examples of resumable-stream's README as one app. Only the import is another one.

    pip install 'playhead[resumable-stream]' fastapi uvicorn
    REDIS_URL=redis://localhost:6379 uvicorn app:app          # without REDIS_URL: a SQLite file beside you
    curl -N 'localhost:8000/stream/s1'                        # begin; interrupt it with Ctrl-C
    curl -N 'localhost:8000/stream/s1?resume_at=45'           # go on after what you have, 45 characters

Start it several times, on different ports, with one REDIS_URL (or in one directory): begin here, go on there. End the
one that generates with ``kill -9``: whoever reads elsewhere gets what there is, and then a broken connection instead of
silence.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from playhead.adapters.resumable_stream import create_resumable_stream_context

if os.environ.get("REDIS_URL"):
    ctx = create_resumable_stream_context()
else:
    ctx = create_resumable_stream_context(store_url="sqlite:///streams.db")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Not needed; with it the app says at its start that there is no Redis, and lets sources end when it is stopped."""
    async with ctx:
        yield


app = FastAPI(lifespan=lifespan)


async def my_stream(chunks: int = 10, pause_s: float = 0.5) -> AsyncIterator[str]:
    """Your actual stream producer."""
    for i in range(chunks):
        yield f"data: chunk {i} – größer\n\n"
        await asyncio.sleep(pause_s)


def events(stream: AsyncIterator[str]) -> Response:
    return StreamingResponse(stream, media_type="text/event-stream")


# One endpoint that begins or resumes


@app.get("/stream/{stream_id}")
async def stream_endpoint(
    stream_id: str, resume_at: int | None = None, chunks: int = 10, pause_s: float = 0.5
) -> Response:
    stream = await ctx.resumable_stream(stream_id, lambda: my_stream(chunks, pause_s), skip_characters=resume_at)
    if stream is None:
        return PlainTextResponse("Stream is already done", status_code=422)
    return events(stream)


# One to begin, one to resume


@app.post("/streams/{stream_id}")
async def create_stream(stream_id: str, chunks: int = 10, pause_s: float = 0.5) -> Response:
    stream = await ctx.create_new_resumable_stream(stream_id, lambda: my_stream(chunks, pause_s))
    if stream is None:
        return PlainTextResponse("Stream already exists", status_code=422)
    return events(stream)


@app.get("/streams/{stream_id}")
async def resume_stream(stream_id: str, resume_at: int | None = None) -> Response:
    stream = await ctx.resume_existing_stream(stream_id, resume_at)
    if stream == "NOT_FOUND":
        return PlainTextResponse("Stream not found", status_code=404)
    if stream is None:
        return PlainTextResponse("Stream is already done", status_code=422)
    return events(stream)


@app.get("/streams/{stream_id}/state")
async def stream_state(stream_id: str) -> dict[str, bool | str | None]:
    return {"state": await ctx.has_existing_stream(stream_id)}


# What the original has not


@app.post("/streams/{stream_id}/cancel")
async def cancel_stream(stream_id: str) -> dict[str, bool | str | None]:
    return {"state": await ctx.cancel(stream_id)}
