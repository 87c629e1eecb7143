"""The frames of the chat door: what the front ends of the chat template listen for. Pure.

    id: <cursor>
    event: chunk            one per text event; one data line for each line of it
    data: Hello

    id: <cursor>
    event: tool_call        the tool's name
    data: clock

    event: system           how it ended: message_ended, error, cancelled or interrupted
    data: message_ended

    id: <cursor of the close>
    event: system           always last
    data: end

Other events have no frame here: the native door (``/v1/streams``) shows them.
"""

import json

from playhead.errors import PlayheadError
from playhead.model import TEXT, Batch, Event, OutcomeKind, StreamInfo, cursor_prefix
from playhead.sse import Encoder, data_lines

TOOL_CALL = "tool_call"
TOOL_RESULT = "tool_result"

_ENDINGS = {
    OutcomeKind.COMPLETED: "message_ended",
    OutcomeKind.FAILED: "error",
    OutcomeKind.CANCELLED: "cancelled",
    OutcomeKind.INTERRUPTED: "interrupted",
}


def frames(info: StreamInfo, batch: Batch) -> bytes:
    """A batch of a stream as chat frames."""
    prefix = cursor_prefix(info.mark, batch.epoch)
    out = []
    for event in batch.events:
        if event.type == TEXT:
            # A lone surrogate has no UTF-8 form; here it may only be shown, not kept.
            out.append(_frame("chunk", event.data.decode("utf-8", "replace"), f"{prefix}{event.offset}"))
        elif event.type == TOOL_CALL and (name := _tool_name(event)) is not None:
            out.append(_frame("tool_call", name, f"{prefix}{event.offset}"))
    return "".join(out).encode()


def _tool_name(event: Event) -> str | None:
    """The name in a tool call; None when another producer gave this type another meaning."""
    try:
        call = json.loads(event.data)
    except ValueError:
        return None
    name = call.get("name") if isinstance(call, dict) else None
    return name.encode("utf-8", "replace").decode() if isinstance(name, str) else None


def close_frames(info: StreamInfo) -> bytes:
    assert info.outcome is not None
    return (_frame("system", _ENDINGS[info.outcome.kind]) + _frame("system", "end", info.cursor)).encode()


def error_frames(error: PlayheadError) -> bytes:  # noqa: ARG001
    """The response cannot go on. Why is not for these front ends: they know one kind of error."""
    return (_frame("system", "error") + _frame("system", "end")).encode()


def _frame(event: str, data: str, cursor: str | None = None) -> str:
    cursor_line = f"id: {cursor}\n" if cursor else ""
    return f"{cursor_line}event: {event}\n{data_lines(data)}\n"


CHAT = Encoder("chat", frames, close_frames, error_frames)
