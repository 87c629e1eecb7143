"""The native door: any stream, byte for byte (frames: ``playhead.sse``)."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from playhead import store
from playhead.adapters.starlette import stream_response
from playhead.errors import Draining, StoreUnavailable
from playhead.model import STREAM_ID_MAX_CHARACTERS, Status
from playhead.server.access import Principal, TheChat, ThePlayhead
from playhead.server.problems import PROBLEMS
from playhead.server.stream_ids import StreamId
from playhead.server.views import StateView, StreamList, StreamView

READY_WITHIN_S = 2.0
LIST_MAX_STREAMS = 1_000
Id = Annotated[str | None, Query(max_length=STREAM_ID_MAX_CHARACTERS)]

router = APIRouter(prefix="/v1/streams", tags=["streams"], responses=PROBLEMS)
health = APIRouter(tags=["health"])


@router.get("", summary="List streams")
async def find(
    playhead: ThePlayhead,
    principal: Principal,
    status: Status | None = None,
    thread_id: Id = None,
    before: Annotated[Id, Query(description="Continue after this stream of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=LIST_MAX_STREAMS)] = 100,
) -> StreamList:
    """Your streams, newest first."""
    thread_ids = None if thread_id is None else (thread_id,)
    query = store.Query(status=status, thread_ids=thread_ids, owner=principal, before=before, limit=limit)
    found = await playhead.find(query, principal=principal)
    return StreamList(streams=[StreamView.of(info) for info in found])


@router.get(
    "/{stream_id}",
    summary="Follow a stream",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The events after the cursor, live, to the close."},
        204: {"description": "The cursor is at the close: there is nothing more."},
    },
)
async def follow(
    stream_id: StreamId,
    request: Request,
    playhead: ThePlayhead,
    principal: Principal,
    after: Annotated[str | None, Query(description="A cursor; a `Last-Event-ID` header wins over it.")] = None,  # noqa: ARG001
    coalesce: Annotated[Literal["text"] | None, Query(description="Join neighbouring text.")] = None,  # noqa: ARG001
) -> Response:
    """Server-sent events: everything after the cursor, then live. The last frame is always `playhead.close`.

    Trouble that passes is answered with 200, `retry:` and the end of the response, since EventSource gives up for
    good on any other status.
    """
    return await stream_response(playhead, request, stream_id, principal=principal)


@router.get("/{stream_id}/info", summary="What is known of a stream")
async def info(stream_id: StreamId, playhead: ThePlayhead, principal: Principal) -> StreamView:
    """Everything but its events; expired streams included."""
    return StreamView.of(await playhead.info(stream_id, principal=principal))


@router.post(
    "/{stream_id}/cancel",
    summary="Cancel a stream",
    responses={202: {"model": StreamView, "description": "The request is stored; the close is on its way."}},
)
async def cancel(stream_id: StreamId, response: Response, playhead: ThePlayhead, principal: Principal) -> StreamView:
    """Idempotent; what was produced is kept. 200: the stream is closed (it may have been before)."""
    view = StreamView.of(await playhead.cancel(stream_id, principal=principal))
    response.status_code = 202 if view.status is Status.LIVE else 200
    return view


@router.delete("/{stream_id}", summary="Delete a stream", status_code=204)
async def delete(stream_id: StreamId, chat: TheChat, principal: Principal) -> None:
    """Forget the stream and its events at once, live or not. The message that it answers stays in its thread."""
    await chat.delete_stream(stream_id, principal=principal)


@health.get("/health", summary="Is the process alive?")
async def alive() -> StateView:
    return StateView(status="ok")


@health.get("/ready", summary="Does it take requests?", responses=PROBLEMS)
async def ready(playhead: ThePlayhead) -> StateView:
    """503 while the process shuts down or its store cannot be used."""
    if playhead.is_draining:
        raise Draining("this process is shutting down")
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await playhead.find(store.Query(limit=1))
    except TimeoutError as error:
        raise StoreUnavailable(f"the store did not answer within {READY_WITHIN_S:g} s") from error
    return StateView(status="ready")
