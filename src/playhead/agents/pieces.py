"""What a reply is made of, and how LangGraph's message chunks become it. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from playhead.adapters.langgraph import text_of, tool_call_chunks_of


@dataclass(frozen=True)
class TextPiece:
    """Some text of the answer; all of them joined are the answer."""

    text: str


@dataclass(frozen=True)
class ToolCallPiece:
    """The model calls a tool; told once, as soon as its name is known (its arguments may still be on their way)."""

    name: str
    id: str


@dataclass(frozen=True)
class ToolResultPiece:
    """What the tool said.

    Attributes:
        args: What it was called with; None if that was not a JSON object.
    """

    name: str
    id: str
    content: str
    args: dict[str, Any] | None = None


Piece = TextPiece | ToolCallPiece | ToolResultPiece


@dataclass
class _Call:
    """A tool call as far as it has come in."""

    id: str = ""
    told: bool = False
    json: str = ""


Calls = dict[tuple[str | None, Any], _Call]
"""The tool calls of one reply, by message and place in it, in the order in which they came."""


def pieces_of(message: BaseMessage, node: str, calls: Calls) -> Iterator[Piece]:
    """Translate one message of the graph's stream; `calls` is the reply's memory, empty at first."""
    if isinstance(message, ToolMessage):
        args = _args_of(message.tool_call_id, calls)
        yield ToolResultPiece(message.name or "", message.tool_call_id, str(message.text), args)
    # A tool may ask a model of its own; what that one says is not the answer.
    if not isinstance(message, AIMessage) or node != "agent":
        return
    if text := text_of(message):
        yield TextPiece(text)
    for chunk in tool_call_chunks_of(message):
        call = calls.setdefault((message.id, chunk["index"]), _Call())
        call.id = call.id or chunk["id"] or ""
        call.json += chunk["args"] or ""
        # Some servers repeat the name in every chunk of a call.
        if chunk["name"] and not call.told:
            call.told = True
            yield ToolCallPiece(chunk["name"], call.id)


def _args_of(call_id: str, calls: Calls) -> dict[str, Any] | None:
    # The newest: some servers number their calls anew in each message.
    call = next((call for call in reversed(calls.values()) if call.id == call_id), None)
    if call is None:
        return None
    try:
        args = json.loads(call.json or "{}")  # no arguments at all are sent as no text
    except ValueError:
        return None
    return args if isinstance(args, dict) else None
