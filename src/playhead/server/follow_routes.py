"""Many streams over one connection (frames: ``playhead.many``)."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from playhead.adapters.starlette import StreamResponse
from playhead.many import ManyStreams, Subscription, check_subscriptions
from playhead.model import CURSOR_MAX_BYTES, STREAM_ID_MAX_CHARACTERS, StreamInfo
from playhead.server.access import Principal, ThePlayhead
from playhead.server.problems import PROBLEMS
from playhead.server.thread_ids import THREAD_ID_MAX_CHARACTERS
from playhead.server.views import StreamView

SUBSCRIPTIONS_MAX = 64
THREAD_STREAMS_MAX = 64

router = APIRouter(prefix="/v1", tags=["streams"], responses=PROBLEMS)

Id = Annotated[str, Field(min_length=1, max_length=STREAM_ID_MAX_CHARACTERS)]
Cursor = Annotated[str, Field(max_length=CURSOR_MAX_BYTES)]


class SubscriptionBody(BaseModel):
    """One thing to follow: a stream, or a thread with all that begins on it."""

    key: str = Field(min_length=1, max_length=100, description="Comes back in every frame.")
    stream_id: Id | None = None
    after: Cursor | None = Field(default=None, description="A cursor of that stream.")
    thread_id: str | None = Field(default=None, min_length=1, max_length=THREAD_ID_MAX_CHARACTERS)
    streams: dict[Id, Cursor | None] = Field(
        default={}, max_length=THREAD_STREAMS_MAX, description="Cursors of streams of the thread; null: from the start."
    )


class Follow(BaseModel):
    """What to follow over one connection."""

    subscriptions: list[SubscriptionBody] = Field(min_length=1, max_length=SUBSCRIPTIONS_MAX)


@router.post(
    "/follow",
    summary="Follow many streams and threads",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Frames of JSON; ends when you leave."}},
)
async def follow(body: Follow, playhead: ThePlayhead, principal: Principal) -> Response:
    """One connection for all that a browser shows: streams from their cursors, and whatever begins on threads.

    Text that is ready together is joined. Each frame's `data` has `key`, `stream_id`, `type`, and its own `cursor`.
    """
    wanted = check_subscriptions([Subscription(**one.model_dump()) for one in body.subscriptions])
    return StreamResponse(ManyStreams(playhead, wanted, principal=principal, describe=_describe))


def _describe(info: StreamInfo) -> Any:
    return StreamView.of(info).model_dump(mode="json")
