"""The chat behind its doors: a message starts a stream, the stream's end becomes the thread's history.

POST message ──► thread: made, or its last activity moved (SQL; also: is it the asker's?)
                   └─► start: one commit stores the stream with the user's message in its metadata
                         └─► agent.reply ──pieces──► events
close ─────────► settle: the message and the answer become entries (SQL), once, and then the agent's own memory
GET thread ────► entries, and the turns of streams that are not among them yet (``turns``)
DELETE thread ─► see ``deletion``

Nothing spans the stream store and SQL. Each arrow may be the last one before a crash: a thread without a message is
left out of lists, a stream that was not settled is settled by whoever comes next, and settling twice changes nothing.
"""

import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

from playhead.agents import ChatAgent, TextPiece, ToolCallPiece
from playhead.conversations import Settled, Threads
from playhead.errors import ThreadNotFound
from playhead.model import Outcome, OutcomeKind, Status, StreamInfo, event
from playhead.server.answer import Part, parts_of, text_of
from playhead.server.chat_frames import TOOL_CALL, TOOL_RESULT
from playhead.streams import Playhead

USER_MESSAGE = "user_message"
"""Key in a stream's metadata: ``{"id": …, "text": …}``, the message that the stream answers."""

_THREADS = uuid.UUID("0c6e5f0e-6c0e-5f0b-9c0b-1d7c3a3f1a52")


class UserMessage(NamedTuple):
    id: str
    text: str


class Chat:
    """One per server. ``playhead`` must settle with ``settle`` (see ``opening``)."""

    def __init__(self, playhead: Playhead, agent: ChatAgent, threads: Threads, model_name: str) -> None:
        self.playhead = playhead
        self.agent = agent
        self.threads = threads
        self.model_name = model_name

    async def start(
        self, text: str, *, owner: str, thread_id: str | None, idempotency_key: str | None, supersede: bool
    ) -> StreamInfo:
        """Answer a message in a stream of its own, in the background.

        Durable: the message is stored with the stream before this returns.
        Raises: as ``Playhead.start``; ThreadBusy carries the running stream's id. ThreadNotFound: somebody else's, or
            deleted.
        """
        fingerprint = hashlib.sha256(json.dumps([thread_id, text]).encode()).hexdigest()
        thread = thread_id or _new_thread(owner, idempotency_key)
        message = UserMessage(uuid.uuid4().hex, text)
        await self.threads.touch(thread, owner=owner, preview=text)
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
        async with aclosing(self.agent.reply(agent_thread(owner, thread_id), *message)) as pieces:
            async for piece in pieces:
                if isinstance(piece, TextPiece):
                    yield piece.text
                elif isinstance(piece, ToolCallPiece):
                    yield event(TOOL_CALL, {"name": piece.name, "id": piece.id})
                else:
                    yield event(
                        TOOL_RESULT,
                        {"name": piece.name, "id": piece.id, "args": piece.args, "content": piece.content},
                    )

    async def settle(self, info: StreamInfo) -> None:
        """Make what a closed stream produced part of its thread's history. Idempotent; see ``SettleHook``.

        Streams that others recorded on a thread count as well: their answer is part of it, without a question.
        """
        if info.thread_id is None or info.owner is None or info.outcome is None:
            return  # nobody's history
        message = user_message(info)
        parts = await self.parts(info)
        kept = await self._keep(info, parts)
        thread = agent_thread(info.owner, info.thread_id)
        if kept and message is not None:
            await self.agent.settle(thread, info.stream_id, *message, text_of(parts), info.outcome.kind)
            # Another process may have deleted the thread meanwhile, and the agent's memory before this wrote to it.
            kept = await self._is_there(info.thread_id, info.owner)
        if not kept:  # deleted while this was being written: nothing of it may stay
            await self.agent.delete(thread)
            await self.playhead.delete(info.stream_id, principal=info.owner)

    async def _is_there(self, thread_id: str, owner: str) -> bool:
        """Whether a thread that was there is still there, and not deleted."""
        try:
            await self.threads.get(thread_id, owner=owner)
        except ThreadNotFound:
            return False
        return True

    async def _keep(self, info: StreamInfo, parts: list[Part]) -> bool:
        """Make it part of the thread's history; False: the thread was deleted."""
        assert info.thread_id is not None
        assert info.owner is not None
        assert info.outcome is not None
        return await self.threads.settle(
            Settled(
                thread_id=info.thread_id,
                owner=info.owner,
                stream_id=info.stream_id,
                created_at=info.created_at,
                closed_at=info.closed_at or info.created_at,
                user=user_message(info),
                parts=parts,
                outcome=info.outcome,
            )
        )

    async def delete_stream(self, stream_id: str, *, principal: str) -> None:
        """Forget a stream and its events at once, live or not. What the user said stays in the thread.

        Raises: as ``Playhead.delete``.
        """
        info = await self.playhead.info(stream_id, principal=principal)
        await self.playhead.delete(stream_id, principal=principal)
        if not info.settled and user_message(info) is not None:
            deleted = Outcome(OutcomeKind.CANCELLED, by=principal, reason="deleted")
            await self._keep(info.but(outcome=info.outcome or deleted), [])

    async def parts(self, info: StreamInfo) -> list[Part]:
        """What a stream has said so far; nothing, if its events are gone."""
        if info.status is Status.EXPIRED:
            return []
        return await parts_of(self.playhead.events(info.stream_id, principal=info.owner))


def user_message(info: StreamInfo) -> UserMessage | None:
    """The message that a stream answers; None for streams that others started."""
    message = info.metadata.get(USER_MESSAGE)
    if isinstance(message, dict) and isinstance(message.get("id"), str) and isinstance(message.get("text"), str):
        return UserMessage(message["id"], message["text"])
    return None


def agent_thread(owner: str, thread_id: str) -> str:
    """The agent's name of a thread. It holds the owner: whoever guesses a thread's id reads a thread of their own."""
    return f"{thread_id}/{owner}"


def _new_thread(owner: str, idempotency_key: str | None) -> str:
    """A thread id; the same one for the same key, so that a repeated start is the same request."""
    return str(uuid.uuid4() if idempotency_key is None else uuid.uuid5(_THREADS, f"{owner}\0{idempotency_key}"))
