"""What a stream said, as the parts of an answer. Pure.

    text, text, tool_call, tool_result, text  ──►  [{"type": "text", "text": …},
                                                    {"type": "tool_call", "name": …, "id": …, "args": …, "result": …},
                                                    {"type": "text", "text": …}]

Events of types that no chat sends are left out: the native door shows them, for as long as the stream is kept.
"""

from collections.abc import AsyncIterator
from typing import Any

from playhead.model import TEXT, Event
from playhead.server.chat_frames import TOOL_CALL, TOOL_RESULT

Part = dict[str, Any]


async def parts_of(events: AsyncIterator[Event]) -> list[Part]:
    """The parts of what these events say, in order; joined text, each tool call with its result."""
    parts: list[Part] = []
    said: list[str] = []

    def end_text() -> None:
        if said:
            parts.append({"type": "text", "text": "".join(said)})
            said.clear()

    async for event in events:
        if event.type == TEXT:
            said.append(event.text)
        elif event.type in (TOOL_CALL, TOOL_RESULT) and (facts := _facts(event)) is not None:
            end_text()
            if event.type == TOOL_CALL:
                parts.append({"type": TOOL_CALL, **facts, "args": None, "result": None})
            else:
                _answer_call(parts, facts, event)
    end_text()
    return parts


def _facts(event: Event) -> Part | None:
    """Name and id of a tool event; None when another producer gave this type another meaning."""
    try:
        value = event.json()
    except ValueError:
        return None
    name, call_id = (value.get("name"), value.get("id")) if isinstance(value, dict) else (None, None)
    return {"name": name, "id": call_id} if isinstance(name, str) and isinstance(call_id, str) else None


def _answer_call(parts: list[Part], facts: Part, event: Event) -> None:
    """Put a result to the newest call of its id that has none: some models number their calls anew each time."""
    told = event.json()
    result = {"args": told.get("args"), "result": told.get("content")}
    for part in reversed(parts):
        if part["type"] == TOOL_CALL and part["id"] == facts["id"] and part["result"] is None:
            part.update(result)
            return
    parts.append({"type": TOOL_CALL, **facts, **result})


def text_of(parts: list[Part]) -> str:
    """All that was said in words."""
    return "".join([part["text"] for part in parts if part["type"] == "text"])
