"""The chat door: the paths of the chat template, each with and without ``/v1``."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from playhead.adapters.starlette import StreamResponse, come_back, cursor_of
from playhead.asgi import EventStream
from playhead.errors import PlayheadError, StreamNotFound
from playhead.server.access import Principal, TheChat
from playhead.server.chat_frames import CHAT
from playhead.server.problems import PROBLEMS
from playhead.server.thread_ids import NewThreadId, ThreadId
from playhead.server.thread_stream import open_thread_tail
from playhead.server.views import CancelledView, StartedView

MESSAGE_MAX_CHARACTERS = 200_000

router = APIRouter(tags=["chat"], responses=PROBLEMS)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the message is blank")
    return text


class Message(BaseModel):
    """What the user says."""

    message: Annotated[str, AfterValidator(_not_blank)] = Field(max_length=MESSAGE_MAX_CHARACTERS)
    thread_id: NewThreadId | None = Field(default=None, description="A new thread is made when absent.")
    supersede: bool = Field(
        default=False, description="Cancel the answer that is live on the thread, instead of a 409."
    )


Key = Annotated[str | None, Header(max_length=255, description="Repeat a request safely: same key, same stream.")]


@router.post("/chat/message", summary="Say something")
async def say(body: Message, chat: TheChat, principal: Principal, idempotency_key: Key = None) -> StartedView:
    """Returns as soon as the message is stored; the answer is written in the background.

    409 with `stream_id` while another answer is live on the thread.
    """
    info = await chat.start(
        body.message,
        owner=principal,
        thread_id=body.thread_id,
        idempotency_key=idempotency_key or None,
        supersede=body.supersede,
    )
    return StartedView(thread_id=info.thread_id or "", stream_id=info.stream_id)


@router.get(
    "/chat/stream",
    summary="Follow a thread",
    response_class=Response,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "`chunk`, `tool_call` and `system` events."},
        204: {"description": "Nothing to follow, after a little patience."},
    },
)
async def follow(
    thread_id: ThreadId,
    request: Request,
    chat: TheChat,
    principal: Principal,
    after: Annotated[str | None, Query(description="A cursor; a `Last-Event-ID` header wins over it.")] = None,  # noqa: ARG001
) -> Response:
    """The live stream of a thread. A cursor of an earlier stream of the thread is finished first."""
    try:
        tail = await open_thread_tail(chat.playhead, thread_id, cursor_of(request), principal)
    except PlayheadError as error:
        if not error.retryable:
            raise
        return come_back(error)
    if tail is None:
        return Response(status_code=204, headers={"cache-control": "no-store"})
    return StreamResponse(EventStream(tail, CHAT))


@router.post("/chat/cancel", summary="Stop the answer of a thread")
async def cancel(thread_id: ThreadId, chat: TheChat, principal: Principal) -> CancelledView:
    """Idempotent. What was written so far is kept; nothing live is no error."""
    for live in await chat.playhead.live([thread_id], principal=principal):
        try:
            info = await chat.playhead.cancel(live.stream_id, principal=principal)
        except StreamNotFound:
            continue  # deleted meanwhile
        return CancelledView(cancelled=info.cancel is not None, thread_id=thread_id, stream_id=info.stream_id)
    return CancelledView(cancelled=False, thread_id=thread_id, stream_id=None)
