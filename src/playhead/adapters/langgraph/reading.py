"""What a model says, out of every provider's kind of chunk. Pure.

    content                                    text   reasoning
    "Hello"                                    Hello
    [{"type": "text", "text": "Hello"}]        Hello             most; the Responses API; output_version="v1"
    [{"type": "output_text", "text": "Hello"}] Hello             raw Responses API
    [{"type": "reasoning", "reasoning": "hm"}]        hm         output_version="v1"
    [{"type": "reasoning", "summary": [{"text": "hm"}]}]  hm     Responses API
    [{"type": "thinking", "thinking": "hm"}]          hm         Anthropic
    [{"type": "reasoning_content", "reasoning_content": {"text": "hm"}}]  hm   Bedrock
    "" and additional_kwargs["reasoning_content"]     hm         DeepSeek, Ollama, vLLM, xAI

Calls of tools, and chunks of them, are neither.
"""

import json
from collections.abc import Callable
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk as make_chunk

from playhead.model import Event

from .parts import MESSAGES, GraphPart, part_of

Chunk = BaseMessage | tuple[BaseMessage, dict[str, Any]] | GraphPart | Event
"""A message or a chunk of one; alone, with its metadata, as a graph yielded it, or as it was recorded."""

_TEXT = frozenset({"text", "output_text", "text_delta"})


def text_of(chunk: Chunk) -> str:
    """The text that a model says with it; "" for anything else: tools' and people's messages, other stream modes."""
    return _joined(chunk, _text_in)


def reasoning_of(chunk: Chunk) -> str:
    """The reasoning ("thinking") that a model shows with it."""
    return _joined(chunk, _reasoning_in) or _reasoning_beside(_model_message(chunk))


def tool_call_chunks_of(chunk: Chunk) -> list[ToolCallChunk]:
    """The tool calls in it, each as a chunk: ``name``, ``id``, ``args`` (a part of the JSON text), ``index``.

    Of a whole message each call is one chunk.
    """
    message = _model_message(chunk)
    if isinstance(message, AIMessageChunk):
        return message.tool_call_chunks
    calls = enumerate(message.tool_calls if message else ())
    return [make_chunk(name=c["name"], id=c["id"], args=json.dumps(c["args"]), index=index) for index, c in calls]


def _model_message(chunk: Chunk) -> AIMessage | None:
    found: Any = chunk
    if isinstance(found, Event):
        found = part_of(found) if found.type == MESSAGES else None
    if isinstance(found, GraphPart):
        found = found.data if found.mode == MESSAGES else None
    if isinstance(found, tuple):
        found = found[0]
    return found if isinstance(found, AIMessage) else None


def _joined(chunk: Chunk, read: Callable[[Any], str]) -> str:
    message = _model_message(chunk)
    if message is None:
        return ""
    content = message.content
    return read(content) if isinstance(content, str) else "".join([read(block) for block in content])


def _text_in(block: Any) -> str:
    if isinstance(block, str):
        return str(block)
    text = block.get("text") if block.get("type", "text") in _TEXT else None
    return text if isinstance(text, str) else ""


def _reasoning_in(block: Any) -> str:
    if isinstance(block, str):
        return ""
    kind = block.get("type")
    if kind in ("thinking", "thinking_delta"):
        found = block.get("thinking")
    elif kind == "reasoning_content":
        found = block.get("reasoning_content")
    elif kind == "reasoning":
        found = next((block[key] for key in ("reasoning", "summary", "content", "text") if block.get(key)), None)
    else:
        found = None
    return _flat(found)


def _reasoning_beside(message: AIMessage | None) -> str:
    beside = message.additional_kwargs if message else {}
    found = beside.get("reasoning_content") or beside.get("reasoning")
    return _flat(found.get("summary") if isinstance(found, dict) and "summary" in found else found)


def _flat(found: Any) -> str:
    """Text, a dict with a text, or a list of those."""
    if isinstance(found, dict):
        found = found.get("text")
    if isinstance(found, list):
        return "".join([_flat(each) for each in found])
    return found if isinstance(found, str) else ""
