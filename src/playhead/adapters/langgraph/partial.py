"""What a run said before it was stopped becomes part of its thread's state.

A checkpoint holds whole steps only: a model that is stopped in mid-sentence leaves nothing there, although people
have read it. So the text of steps that did not finish is added to the thread's messages, in the name of the node that
said it; tool calls that nobody will answer any more are answered, or the provider would refuse the next turn; and what
was left to be run is dropped: the next turn begins at the start.
"""

import logging
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import LastValue
from langgraph.constants import END
from langgraph.pregel import Pregel
from langgraph.types import StateUpdate

from .parts import MESSAGES, GraphPart
from .reading import text_of
from .tool_calls import close_tool_calls

Graph = Pregel[Any, Any, Any, Any]

MESSAGES_KEY = "messages"
PARTIAL = {"playhead": "partial"}
"""``response_metadata`` of a message that was not finished."""

logger = logging.getLogger("playhead")


class Said:
    """What the models of a run have said so far: the text of each message, and the task that it belongs to."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str], list[str]] = {}

    def add(self, part: GraphPart) -> None:
        """Take note of a part, of any mode."""
        if part.mode == MESSAGES and (text := text_of(part)):
            message, metadata = part.data
            # "node:task id" of each graph on the way down; the first is the graph's own.
            task_id = str(metadata.get("langgraph_checkpoint_ns", "")).split("|")[0].rpartition(":")[2]
            self._texts.setdefault((task_id, message.id or ""), []).append(text)

    def by(self, task_id: str) -> list[AIMessage]:
        """What was said in a task, oldest first."""
        return [
            AIMessage("".join(texts), id=message_id or None, response_metadata=PARTIAL)
            for (task, message_id), texts in self._texts.items()
            if task == task_id
        ]


async def keep_partial(graph: Graph, config: RunnableConfig, said: Said) -> None:
    """Put what was said in unfinished tasks into the thread's state. Idempotent; nothing, when all is finished.

    Only for graphs with a checkpointer and a list of ``messages``. Durable: as the checkpointer is.
    Raises: what the checkpointer or the graph's own edges raise.
    """
    place = latest(config)
    if not isinstance(graph, Pregel) or not graph.checkpointer or MESSAGES_KEY not in graph.channels or place is None:
        return
    state = await graph.aget_state(place)
    unfinished = [task for task in state.tasks if task.result is None and not task.interrupts]
    if not unfinished:
        return
    stopped: StateUpdate = StateUpdate(None, END)
    # First what other tasks of the step had finished counts, and the rest is dropped.
    place = await graph.abulk_update_state(place, [[stopped]])
    held = list((await graph.aget_state(latest(place) or place)).values.get(MESSAGES_KEY) or [])
    added = [*_answers_missing(held), *[message for task in unfinished for message in said.by(task.id)]]
    if added:
        # A list without a reducer is replaced by what a node returns.
        value = [*held, *added] if isinstance(graph.channels[MESSAGES_KEY], LastValue) else added
        steps = [[StateUpdate({MESSAGES_KEY: value}, unfinished[-1].name)], [stopped]]
        await graph.abulk_update_state(latest(place) or place, steps)


def _answers_missing(messages: list[BaseMessage]) -> list[BaseMessage]:
    """Answers to the open tool calls of the newest message that has any."""
    calling = [at for at, message in enumerate(messages) if isinstance(message, AIMessage)]
    end = messages[calling[-1] :] if calling else []
    return [message for message in close_tool_calls(end) if message not in end]


def latest(config: RunnableConfig | None) -> RunnableConfig | None:
    """Where the newest checkpoint of a run's thread is; None for a run without a thread."""
    configurable = (config or {}).get("configurable", {})
    if configurable.get("thread_id") is None:
        return None
    return {"configurable": {key: value for key, value in configurable.items() if key != "checkpoint_id"}}
