"""The threads door: a list, one thread, its turns; rename, archive, delete. Each path with and without ``/v1``.

``/thread?thread_id=`` and the bare list of ``/threads`` are the chat template's; ``/threads/{id}`` is ours.
"""

from contextlib import suppress
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from playhead.conversations import Thread
from playhead.errors import ThreadNotFound
from playhead.server.access import Principal, TheChat
from playhead.server.chat import Chat
from playhead.server.deletion import delete_thread
from playhead.server.problems import PROBLEMS
from playhead.server.thread_ids import PathThreadId, ThreadId
from playhead.server.turns import turns_of
from playhead.server.views import ThreadView, TurnView

LIST_MAX_THREADS = 1_000
SEARCH_MAX_CHARACTERS = 200
TITLE_MAX_CHARACTERS = 200

router = APIRouter(tags=["threads"], responses=PROBLEMS)


class Title(BaseModel):
    """A name for a thread."""

    chat_name: str = Field(min_length=1, max_length=TITLE_MAX_CHARACTERS)


class Change(BaseModel):
    """What is to be changed of a thread; what is absent stays."""

    chat_name: str | None = Field(default=None, min_length=1, max_length=TITLE_MAX_CHARACTERS)
    archived: bool | None = None


@router.get("/threads", summary="List threads")
async def find(
    request: Request,
    response: Response,
    chat: TheChat,
    principal: Principal,
    search: Annotated[str, Query(max_length=SEARCH_MAX_CHARACTERS, description="In names and texts.")] = "",
    limit: Annotated[int, Query(ge=1, le=LIST_MAX_THREADS)] = LIST_MAX_THREADS,
    after: Annotated[str | None, Query(max_length=200, description="From the `Link` of the page before.")] = None,
    archived: bool = False,
) -> list[ThreadView]:
    """Your threads, newest activity first. The next page, if there is one, is the `Link` header's `rel="next"`."""
    page = await chat.threads.find(owner=principal, search=search, limit=limit, after=after, archived=archived)
    if page.next is not None:
        more = {**request.query_params, "after": page.next}
        response.headers["link"] = f'<{request.url.path}?{urlencode(more)}>; rel="next"'
    live = await chat.playhead.live([thread.thread_id for thread in page.threads], principal=principal)
    lively = {info.thread_id for info in live}
    return [ThreadView.of(thread, live=thread.thread_id in lively) for thread in page.threads]


@router.get("/threads/{thread_id:path}", summary="Look at a thread")
async def look(thread_id: PathThreadId, chat: TheChat, principal: Principal) -> ThreadView:
    return await _view(chat, await chat.threads.get(thread_id, owner=principal))


@router.patch("/threads/{thread_id:path}", summary="Rename or archive a thread")
async def change(thread_id: PathThreadId, body: Change, chat: TheChat, principal: Principal) -> ThreadView:
    thread = await chat.threads.get(thread_id, owner=principal)
    if body.chat_name is not None:
        thread = await chat.threads.rename(thread_id, owner=principal, title=body.chat_name)
    if body.archived is not None:
        thread = await chat.threads.archive(thread_id, owner=principal, archived=body.archived)
    return await _view(chat, thread)


@router.delete("/threads/{thread_id:path}", summary="Delete a thread", status_code=204)
async def delete(thread_id: PathThreadId, chat: TheChat, principal: Principal) -> None:
    """Its streams, its history and the agent's memory of it go; a live answer is cancelled first."""
    await delete_thread(chat, thread_id, owner=principal)


@router.get("/thread", summary="Read a thread", response_model_exclude_none=True)
async def read(
    thread_id: ThreadId,
    chat: TheChat,
    principal: Principal,
    all: Annotated[  # noqa: A002
        bool, Query(description="Also answers that ended before their first word, and those that others record now.")
    ] = False,
) -> list[TurnView]:
    """The turns so far, oldest first; none for an unknown thread. A running answer is not among them: follow it."""
    turns = await turns_of(chat, thread_id, principal=principal)
    return [turn for turn in turns if turn.content or all]


@router.patch("/thread", summary="Rename a thread", status_code=204)
async def rename(thread_id: ThreadId, body: Title, chat: TheChat, principal: Principal) -> None:
    await chat.threads.rename(thread_id, owner=principal, title=body.chat_name)


@router.delete("/thread", summary="Delete a thread, known or not")
async def forget(thread_id: ThreadId, chat: TheChat, principal: Principal) -> list[TurnView]:
    """As `DELETE /v1/threads/{id}`, but an unknown thread is no error. The answer is what is left of it: nothing."""
    with suppress(ThreadNotFound):
        await delete_thread(chat, thread_id, owner=principal)
    return []


async def _view(chat: Chat, thread: Thread) -> ThreadView:
    live = await chat.playhead.live([thread.thread_id], principal=thread.owner)
    return ThreadView.of(thread, live=bool(live))
