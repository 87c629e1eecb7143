"""Calls of tools that nobody will answer any more. Pure.

Providers refuse a conversation in which a call has no answer right behind it.
"""

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

INTERRUPTED = "interrupted: this tool call was not finished, its result is unknown"


def close_tool_calls(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with every unanswered tool call answered "interrupted", right behind its call."""
    closed: list[BaseMessage] = []
    # Call ids are unique within one message only: some servers number them anew for each answer.
    open_calls: dict[str, ToolMessage] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            open_calls.pop(message.tool_call_id, None)
        else:
            closed.extend(open_calls.values())
            open_calls = answers_to(message)
        closed.append(message)
    return [*closed, *open_calls.values()]


def answers_to(message: BaseMessage) -> dict[str, ToolMessage]:
    """The tool calls of a message by their id, each with the answer it gets if nobody gave one."""
    if not isinstance(message, AIMessage):
        return {}
    # Calls with unreadable arguments are sent back to the provider too, and want an answer like the others.
    found = [(call["id"] or "", call["name"]) for call in (*message.tool_calls, *message.invalid_tool_calls)]
    return {
        call_id: ToolMessage(
            INTERRUPTED,
            id=f"{message.id}:{call_id}:interrupted",
            tool_call_id=call_id,
            name=name,
            status="error",
        )
        for call_id, name in found
    }
