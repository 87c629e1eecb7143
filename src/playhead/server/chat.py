"""The chat behind its doors: a message starts a stream, the stream's end becomes the thread's history.

POST message ──► start: one commit stores the stream with the user's message in its metadata
                   └─► agent.reply ──pieces──► events
close ─────────► settle: the message and what was streamed go into the agent's history, once
GET thread ────► history, and the turns of streams that are not part of it yet
"""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, NamedTuple

from langchain_core.language_models import BaseChatModel

from playhead.agents import ChatAgent, TextPiece, ToolCallPiece, Turn, choose_model, open_agent
from playhead.errors import InvalidSetting, StoreUnavailable
from playhead.model import TEXT, Status, StreamInfo, event
from playhead.server.chat_frames import TOOL_CALL, TOOL_RESULT
from playhead.server.settings import Settings
from playhead.server.views import TurnView
from playhead.store import Query
from playhead.streams import Playhead

USER_MESSAGE = "user_message"
"""Key in a stream's metadata: ``{"id": …, "text": …}``, the message that the stream answers."""

_THREADS = uuid.UUID("0c6e5f0e-6c0e-5f0b-9c0b-1d7c3a3f1a52")
_THREAD_STREAMS = 100
_LOOKS_MAX = 5


class UserMessage(NamedTuple):
    id: str
    text: str


class Chat:
    """One per server. ``playhead`` must settle with ``settle`` (see ``open_chat``)."""

    def __init__(self, playhead: Playhead, agent: ChatAgent, model_name: str) -> None:
        self.playhead = playhead
        self.model_name = model_name
        self._agent = agent

    async def start(
        self, text: str, *, owner: str, thread_id: str | None, idempotency_key: str | None, supersede: bool
    ) -> StreamInfo:
        """Answer a message in a stream of its own, in the background.

        Durable: the message is stored with the stream before this returns.
        Raises: as ``Playhead.start``; ThreadBusy carries the running stream's id.
        """
        fingerprint = hashlib.sha256(json.dumps([thread_id, text]).encode()).hexdigest()
        thread = thread_id or _new_thread(owner, idempotency_key)
        message = UserMessage(uuid.uuid4().hex, text)
        return await self.playhead.start(
            lambda: self._answer(owner, thread, message),
            thread_id=thread,
            owner=owner,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
            metadata={USER_MESSAGE: message._asdict()},
            supersede=supersede,
        )

    async def _answer(self, owner: str, thread_id: str, message: UserMessage) -> AsyncIterator[Any]:
        # What earlier answers left goes into the history first; later it would disturb this one.
        await self.playhead.settle(thread_id)
        async with aclosing(self._agent.reply(_conversation(owner, thread_id), *message)) as pieces:
            async for piece in pieces:
                if isinstance(piece, TextPiece):
                    yield piece.text
                elif isinstance(piece, ToolCallPiece):
                    yield event(TOOL_CALL, {"name": piece.name, "id": piece.id})
                else:
                    yield event(TOOL_RESULT, {"name": piece.name, "id": piece.id, "content": piece.content})

    async def settle(self, info: StreamInfo) -> None:
        """Make what a closed stream produced part of its thread's history. Idempotent; see ``SettleHook``."""
        message = user_message(info)
        if message is None or info.thread_id is None or info.outcome is None:
            return  # not a stream of this chat
        await self._agent.settle(
            _conversation(info.owner, info.thread_id),
            info.stream_id,
            message.id,
            message.text,
            await self._streamed(info),
            info.outcome.kind,
        )

    async def _streamed(self, info: StreamInfo) -> str:
        if info.status is Status.EXPIRED:
            return ""
        events = self.playhead.events(info.stream_id, principal=info.owner)
        return "".join([one.text async for one in events if one.type == TEXT])

    async def thread(self, thread_id: str, *, principal: str) -> list[TurnView]:
        """The turns of a thread, oldest first; of another owner's thread as of an unknown one: none.

        The answer of a live stream is left out (follow the stream); the message that it answers is there.
        """
        await self.playhead.settle(thread_id)
        query = Query(thread_ids=(thread_id,), limit=_THREAD_STREAMS)
        turns, streams = await self._at_one_moment(thread_id, query, principal)
        by_id = {info.stream_id: info for info in streams}
        by_message = {said.id: info for info in reversed(streams) if (said := user_message(info))}
        views: list[TurnView] = []
        unsettled = False
        for turn in turns:
            if turn.type == "human":
                info = by_message.pop(turn.message_id, None)
                unsettled = info is not None and not info.settled
                views.append(TurnView.human(turn.content, info))
                if info is not None and unsettled:
                    views += await self._unsettled_answer(info)
            elif not unsettled:
                views.append(TurnView.ai(turn.content, turn.outcome, turn.stream_id, by_id.get(turn.stream_id or "")))
        for info in by_message.values():
            if not info.settled and (said := user_message(info)):
                views.append(TurnView.human(said.text, info))
                views += await self._unsettled_answer(info)
        return views

    async def _at_one_moment(self, thread_id: str, query: Query, principal: str) -> tuple[list[Turn], list[StreamInfo]]:
        """History and streams that fit: what is settled between two looks would be in both, or in neither."""
        streams = await self.playhead.find(query, principal=principal)
        looks = 0
        while True:
            turns = await self._agent.history(_conversation(principal, thread_id))
            before, streams = streams, await self.playhead.find(query, principal=principal)
            looks += 1
            if _states(before) == _states(streams) or looks == _LOOKS_MAX:
                return turns, streams

    async def _unsettled_answer(self, info: StreamInfo) -> list[TurnView]:
        """What a stream that could not be settled yet has to say; a live one says it itself."""
        if info.outcome is None:
            return []
        return [TurnView.ai(await self._streamed(info), info.outcome.kind, info.stream_id, info)]


def user_message(info: StreamInfo) -> UserMessage | None:
    """The message that a stream answers; None for streams that others started."""
    message = info.metadata.get(USER_MESSAGE)
    if isinstance(message, dict) and isinstance(message.get("id"), str) and isinstance(message.get("text"), str):
        return UserMessage(message["id"], message["text"])
    return None


def _states(streams: list[StreamInfo]) -> list[tuple[str, Status, bool]]:
    return [(info.stream_id, info.status, info.settled) for info in streams]


def _new_thread(owner: str, idempotency_key: str | None) -> str:
    """A thread id; the same one for the same key, so that a repeated start is the same request."""
    return str(uuid.uuid4() if idempotency_key is None else uuid.uuid5(_THREADS, f"{owner}\0{idempotency_key}"))


def _conversation(owner: str | None, thread_id: str) -> str:
    """The agent's name of a thread. It holds the owner: whoever guesses a thread's id reads a thread of their own."""
    return f"{thread_id}/{owner or ''}"


def _name_of(model: BaseChatModel) -> str:
    return str(getattr(model, "model_name", None) or "demo")


@asynccontextmanager
async def open_chat(settings: Settings) -> AsyncIterator[Chat]:
    """Everything behind the doors, open: the streams, the agent and its model. Raises: PlayheadError, OSError."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(
            f"the data directory {settings.data_dir} cannot be made: {error.strerror}; see PLAYHEAD_DATA_DIR",
            setting="data_dir",
        ) from error
    key = settings.openai_api_key
    model = choose_model(
        api_key=key.get_secret_value() if key else None,
        base_url=settings.openai_base_url,
        model=settings.openai_model,
    )
    async with AsyncExitStack() as stack:
        try:
            agent = await stack.enter_async_context(open_agent(settings.checkpoints, model))
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"the agent's file {settings.checkpoints} cannot be opened: {error}; it must be a SQLite database that"
                " this user may write, as must be its directory"
            ) from error

        async def settle(info: StreamInfo) -> None:
            await chat.settle(info)

        chat = Chat(Playhead.open(settings.store_url, options=settings.options, settle=settle), agent, _name_of(model))
        async with chat.playhead:
            yield chat
