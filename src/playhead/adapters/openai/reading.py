"""What most readers want of an event, whichever of OpenAI's two APIs it came from."""

from typing import Any

from playhead.model import Event

from .chat import CHUNK

TEXT_DELTA = "response.output_text.delta"


def text_of(event: Event) -> str:
    """The text that this event adds to the answer; "" for all others (tool calls, reasoning, refusals, usage).

    Of a chat with ``n`` answers it is the first one's.
    """
    if event.type == TEXT_DELTA:
        return str(event.json().get("delta") or "")
    if event.type != CHUNK:
        return ""
    deltas = [c.get("delta") or {} for c in event.json().get("choices") or () if c.get("index", 0) == 0]
    return "".join(_flat(delta.get("content")) for delta in deltas)


def usage_of(event: Event) -> dict[str, Any] | None:
    """The token usage that this event tells, as the provider's JSON; None for all others."""
    if event.type == CHUNK:
        usage = event.json().get("usage")
    elif event.type in ("response.completed", "response.incomplete", "response.failed"):
        usage = (event.json().get("response") or {}).get("usage")
    else:
        usage = None
    return usage if isinstance(usage, dict) else None


def _flat(content: Any) -> str:
    """Text; some servers send it as a list of blocks, with reasoning among them."""
    if isinstance(content, list):
        return "".join(_flat(block.get("text")) for block in content if block.get("type") == "text")
    return content if isinstance(content, str) else ""
