"""What a reply is made of, and how LangGraph's message chunks become it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage


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
    """What the tool said."""

    name: str
    id: str
    content: str


Piece = TextPiece | ToolCallPiece | ToolResultPiece


def pieces_of(message: BaseMessage, node: str, seen: set[tuple[str | None, Any]]) -> Iterator[Piece]:
    """Translate one message of the graph's stream; `seen` remembers which tool calls have been told."""
    if isinstance(message, ToolMessage):
        yield ToolResultPiece(message.name or "", message.tool_call_id, str(message.text))
    # A tool may ask a model of its own; what that one says is not the answer.
    if not isinstance(message, AIMessage) or node != "agent":
        return
    if message.text:
        yield TextPiece(str(message.text))
    for place, name, call_id in _named_calls(message):
        # Some servers repeat the name in every chunk of a call.
        if (message.id, place) not in seen:
            seen.add((message.id, place))
            yield ToolCallPiece(name, call_id or "")


def _named_calls(message: AIMessage) -> Iterator[tuple[Any, str, str | None]]:
    """Yield (place in the message, name, id) of the calls that have a name yet: in chunks, only the first has."""
    if isinstance(message, AIMessageChunk):
        chunks = message.tool_call_chunks
        yield from ((chunk["index"], chunk["name"], chunk["id"]) for chunk in chunks if chunk["name"])
    else:
        yield from ((place, call["name"], call["id"]) for place, call in enumerate(message.tool_calls))
