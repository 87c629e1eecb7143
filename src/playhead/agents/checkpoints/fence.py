"""The rules of a thread's checkpoints, the same wherever they are kept.

**One line, fenced.** Several server processes may share one place. LangGraph reads a thread's newest checkpoint, runs,
and writes a newer one; it never looks whether somebody else wrote in between. A process that was suspended in
mid-answer, lost its stream and woke up again would then bury the turns that followed, or bring a deleted thread back.
So each checkpoint is written only on top of the newest one (compare and set, in one transaction); a writer that comes
too late gets `StaleCheckpoint`.

**A short line.** Each checkpoint holds the whole thread, so keeping them all would grow with the square of its length.
Nothing here goes back in time: the newest and its parent stay, older ones are deleted as they are succeeded.

**One write per answer.** A graph writes three checkpoints for a plain answer: the input, the input once more in its
place, and the answer. During a reply the first two wait for the third, since only the user's message is new in them
and that is stored with its stream. Steps that a crash must not undo, tool calls and their results, wait for nothing::

    input ──► question ──► answer                                       known thread: 1 write
    input ──► question ──► call ──► result ──► answer                   known thread: 3 writes
    (held)    (held)       stored   stored     stored

In a thread that has no checkpoint yet the question is stored too: there must be something that `adelete_thread` can
take away under a reply that still runs elsewhere. A reply that fails or is cancelled stores what it holds.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.graph import START

OPERATION_TIMEOUT_S = 30.0

T = TypeVar("T")

logger = logging.getLogger("playhead")


class StaleCheckpoint(RuntimeError):
    """Somebody else moved the thread on since this run read it; what it would write is refused."""


class _Put(NamedTuple):
    """A checkpoint to be stored; its parent, in `config`, is the one it is stored on top of."""

    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    versions: ChannelVersions


class FencedSaver(BaseCheckpointSaver[str]):
    """A checkpointer that keeps the rules above. What it began to write is carried out, whoever stops waiting for it.

    One per process and place. A place is storage and nothing else: a subclass of this and of LangGraph's saver, with
    `_store`, `_store_writes` and `_delete`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: dict[str, _Put | None] = {}
        self._under_way: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def replying(self, thread_id: str) -> AsyncIterator[None]:
        """For as long as this lasts, checkpoints in which only the question is new are held back. Not reentrant."""
        self._held[thread_id] = None
        try:
            yield
        finally:
            held = self._held.pop(thread_id)
            # Only a reply that did not get to its end still holds something. Where the thread has moved on meanwhile,
            # the question is settled already, or the thread is deleted.
            if held is not None:
                with suppress(StaleCheckpoint):
                    await self._carry_out(self._store(*held))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint if its parent is still the thread's newest.

        Raises:
            StaleCheckpoint: It is not; nothing was stored.
        """
        where = config["configurable"]
        thread_id: str = where["thread_id"]
        new = _Put(config, checkpoint, metadata, new_versions)
        if thread_id in self._held and not where["checkpoint_ns"]:
            before = self._held[thread_id]
            if before is not None and before.checkpoint["id"] == where.get("checkpoint_id"):
                new = _Put(before.config, checkpoint, metadata, {**before.versions, **new_versions})
            self._held[thread_id] = new if _only_asks(new) else None
        if self._held.get(thread_id) is not new:
            await self._carry_out(self._store(*new))
        return {"configurable": {**_line(config), "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task of a checkpoint wrote, if that checkpoint is there: a deleted thread stays deleted.

        Not during a reply: steps of the chat graph have one task each, so the next checkpoint says the same at once.
        """
        where = config["configurable"]
        if where["thread_id"] not in self._held or where["checkpoint_ns"]:
            await self._carry_out(self._store_writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread; a run that is still under way in it can write no more."""
        await self._carry_out(self._delete(thread_id))

    async def finish(self) -> None:
        """Wait for what is being written; before the place is closed."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    @abstractmethod
    async def _store(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> None:
        """In one transaction: look at the thread's newest checkpoint, `refuse_stale`, delete older ones, store."""

    @abstractmethod
    async def _store_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        """In one transaction: store the writes if their checkpoint is there, else nothing."""

    @abstractmethod
    async def _delete(self, thread_id: str) -> None:
        """In one transaction: delete all of a thread."""

    async def _carry_out(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run an operation in a task of its own: no cancel cuts a connection off in the middle of a command."""

        async def bounded() -> T:
            async with asyncio.timeout(OPERATION_TIMEOUT_S):
                return await operation

        task = asyncio.create_task(bounded())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_left_alone)
            raise


def _left_alone(task: "asyncio.Task[Any]") -> None:
    """Nobody waits for this operation any more; how it ended is in the log."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, StaleCheckpoint):  # its thread was deleted, or has moved on: what it wanted to write is void
        logger.debug("after a cancel: %s", error)
    elif error is not None:
        logger.warning("a checkpoint could not be written after a cancel: %r", error)


def refuse_stale(config: RunnableConfig, checkpoint: Checkpoint, newest: str | None) -> None:
    """The fence. A checkpoint that is there already may be stored again: that is a retry."""
    where = config["configurable"]
    if newest not in (where.get("checkpoint_id"), checkpoint["id"]):
        raise StaleCheckpoint(f"thread {where['thread_id']} has moved on to checkpoint {newest}")


def _only_asks(put: _Put) -> bool:
    values = put.checkpoint["channel_values"]
    if START in values:  # the input, not yet in its place
        return True
    messages = values.get("messages") or [None]
    known_thread = put.config["configurable"].get("checkpoint_id") is not None
    return known_thread and isinstance(messages[-1], HumanMessage)


def _line(config: RunnableConfig) -> dict[str, str]:
    where = config["configurable"]
    return {"thread_id": where["thread_id"], "checkpoint_ns": where["checkpoint_ns"]}
