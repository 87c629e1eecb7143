"""The chat graph and the object that runs it: reply, history, settle, delete.

    START → agent ⇄ tools
              ↓
             END          state: the thread's messages, kept by the checkpointer after every step

Whoever cancels, kills or breaks a reply leaves the graph somewhere in this picture. `ChatAgent.settle` brings the
thread back to the end of it, with all that was shown (rules: `history`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from playhead.adapters.langgraph import stream_graph
from playhead.model import OutcomeKind

from .checkpoints import FencedSaver, StaleCheckpoint, open_checkpoints
from .clock import clock
from .history import Turn, sendable, settled, turns, whole
from .pieces import Calls, Piece, pieces_of

MAX_STEPS = 25
"""Graph steps per reply: a model that calls tools for ever fails instead."""

BUSY_WAIT_S = 10.0
SETTLE_ATTEMPTS = 5

Graph = CompiledStateGraph[MessagesState, None, MessagesState, MessagesState]


class ThreadBusy(RuntimeError):
    """Another reply of the same thread is still under way in this process."""


def build_graph(
    model: BaseChatModel, checkpointer: BaseCheckpointSaver[Any], tools: Sequence[BaseTool] = (clock,)
) -> Graph:
    """Compile the chat graph: a model that may call tools until it has its answer."""
    answering = model.bind_tools(tools)

    async def agent(state: MessagesState) -> dict[str, list[BaseMessage]]:
        answer = await answering.ainvoke(sendable(state["messages"]))
        if isinstance(answer.content, str):
            answer.content = whole(answer.content)
        return {"messages": [answer]}

    def route(state: MessagesState) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    # A tool that raises is an answer for the model, not the end of the reply.
    graph.add_node("tools", ToolNode(list(tools), handle_tool_errors=True))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", route, ["tools", END])
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=checkpointer)


class ChatAgent:
    """Answers messages in threads. One per process; safe for any number of threads at once.

    Within a thread one thing happens at a time: `reply`, `settle` and `delete` wait for a reply that is under way in
    this process, `BUSY_WAIT_S` at most, then raise `ThreadBusy`. A writer in another process is kept out by the
    checkpointer (`StaleCheckpoint`).
    """

    def __init__(self, graph: Graph, checkpointer: FencedSaver) -> None:
        self._graph = graph
        self._checkpointer = checkpointer
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def reply(self, thread_id: str, message_id: str, text: str) -> AsyncGenerator[Piece]:
        """Answer a message, piece by piece.

        A message with an id the thread knows already takes the old one's place.
        Cancel: close the generator (`contextlib.aclosing`) or cancel the task; either stops the graph and the
        model's request before it returns. The thread stays usable; `settle` keeps what was shown.
        Raises: what the model raised; ThreadBusy; StaleCheckpoint.
        """
        asked = MessagesState(messages=[HumanMessage(whole(text), id=message_id)])
        config = RunnableConfig(recursion_limit=MAX_STEPS, **_of(thread_id))
        calls: Calls = {}
        async with self._alone(thread_id), self._checkpointer.replying(thread_id):
            # "sync": a tool is not run before the message that calls it is on disk.
            run = stream_graph(
                self._graph,
                asked,
                config,
                stream_mode="messages",
                subgraphs=False,
                keeps_partial=False,  # `settle` does, whoever gets to it
                durability="sync",
            )
            async with aclosing(run):
                async for part in run:
                    message, metadata = part.data
                    for piece in pieces_of(message, metadata["langgraph_node"], calls):
                        yield piece

    async def history(self, thread_id: str) -> list[Turn]:
        """Return the thread's turns, oldest first; an unknown thread has none. See `Turn` for what is left out."""
        return turns(_messages_in(await self._checkpointer.aget_tuple(_of(thread_id))))

    async def settle(
        self,
        thread_id: str,
        stream_id: str,
        message_id: str,
        user_text: str,
        streamed_text: str,
        outcome: OutcomeKind,
    ) -> None:
        """Make what a stream produced part of its thread's history.

        Idempotent by `stream_id`, from any process. Late is fine: the turn keeps its place among newer ones. But
        settling while a *newer* reply of the thread runs in another process makes that one fail: settle first, then
        start the next.
        Durable: on disk when this returns.
        Raises: ThreadBusy, StaleCheckpoint: nothing was changed, try again later.
        """
        async with self._alone(thread_id):
            for attempt in range(1, SETTLE_ATTEMPTS + 1):
                saved = await self._checkpointer.aget_tuple(_of(thread_id))
                before = _messages_in(saved)
                after = settled(
                    before,
                    stream_id=stream_id,
                    message_id=message_id,
                    user_text=user_text,
                    streamed_text=streamed_text,
                    outcome=outcome,
                )
                if after == before:
                    return
                # An empty thread has no checkpoint to be fenced by: add to it, whatever is there by then.
                change = [RemoveMessage(REMOVE_ALL_MESSAGES), *after] if before else after
                try:
                    # On top of the state just read, and as the agent's last word: no step is left to be run.
                    base = saved.config if saved else _of(thread_id)
                    await self._graph.aupdate_state(base, {"messages": change}, as_node="agent")
                except StaleCheckpoint:
                    if attempt == SETTLE_ATTEMPTS:
                        raise
                else:
                    return

    async def delete(self, thread_id: str) -> None:
        """Delete all of a thread; deleting an unknown one does nothing."""
        async with self._alone(thread_id):
            await self._checkpointer.adelete_thread(thread_id)

    @asynccontextmanager
    async def _alone(self, thread_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(thread_id, asyncio.Lock())
        try:
            async with asyncio.timeout(BUSY_WAIT_S):
                await lock.acquire()
        except TimeoutError as waited:
            raise ThreadBusy(f"a reply of thread {thread_id} is still under way") from waited
        try:
            yield
        finally:
            lock.release()


@asynccontextmanager
async def open_agent(checkpoints: str | Path, model: BaseChatModel) -> AsyncIterator[ChatAgent]:
    """Open the agent on its checkpoints (see `open_checkpoints`), for as long as the context lasts."""
    async with open_checkpoints(checkpoints) as checkpointer:
        yield ChatAgent(build_graph(model, checkpointer), checkpointer)


def _messages_in(saved: CheckpointTuple | None) -> list[AnyMessage]:
    return list(saved.checkpoint["channel_values"].get("messages", [])) if saved else []


def _of(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}
