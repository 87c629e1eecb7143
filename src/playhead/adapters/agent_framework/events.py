"""An agent's updates as events, and events as updates again. Pure.

An update is a piece of a message: who says it, and some contents. One event for each thing in it:

    agent.message     JSON: role, author, ids … whole, when one of them is another than before
    text              the text itself, when it is nothing but text
    function_call, function_result, text_reasoning, usage, error …
                      JSON: the content as the framework writes it, under the framework's name for it
    agent.content     JSON: a text that is more than text (annotations …)
    agent.update      JSON: what else the update has: finish reason, continuation token …
    agent.replaced    all before this is void; what follows is the whole answer (the framework asked again)
    agent.omitted     JSON: the type and size of a content that is larger than an event may be

``update_of`` makes an update of each event by itself; joined by the framework they are the answer again.
"""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import Enum
from typing import Any

from agent_framework import AgentResponse, AgentResponseUpdate, Content

from playhead.model import TEXT, Draft, Event, event

MESSAGE = "agent.message"
CONTENT = "agent.content"
UPDATE = "agent.update"
REPLACED = "agent.replaced"
OMITTED = "agent.omitted"

EVENT_MAX_BYTES = 16 * 1024 * 1024
_TEXT_MAX_CHARACTERS = 256 * 1024
_CHARACTER_MAX_BYTES = 4
_REPR_MAX_CHARACTERS = 1_000
_OF_MESSAGE = ("role", "author_name", "agent_id", "response_id", "message_id", "created_at")
"""What holds until another value comes; the rest of an update is about this update only."""


class Transcript:
    """What one run has said so far, and which events its next update makes.

    Attributes:
        updates: all of them; the framework keeps them as well, until the run is over.
    """

    def __init__(self, event_max_bytes: int = EVENT_MAX_BYTES) -> None:
        """``event_max_bytes``: of the Playhead that records it."""
        self._event_max_bytes = event_max_bytes
        self.updates: list[AgentResponseUpdate] = []
        self._message: dict[str, Any] = {}

    def add(self, update: AgentResponseUpdate) -> list[Draft]:
        """The events of an update."""
        self.updates.append(update)
        about = update.to_dict(exclude={"contents"})
        message = {name: about[name] for name in _OF_MESSAGE if name in about}
        rest = {name: value for name, value in about.items() if name not in (*_OF_MESSAGE, "type", "merge_mode")}
        drafts: list[Draft] = []
        if update.merge_mode == "replace":  # begins its message anew, whatever that was
            drafts.append(event(MESSAGE, plain({**message, "merge_mode": "replace"})))
        elif message.items() <= self._message.items():
            message = self._message
        else:
            drafts.append(event(MESSAGE, plain(message)))
        self._message = message
        for content in update.contents:
            drafts += self._of_content(content)
        if any(rest.values()):
            drafts.append(event(UPDATE, plain(rest)))
        return drafts

    def finish(self, response: AgentResponse[Any]) -> list[Draft]:
        """The events of the final response: none when it is what was said, as it is after a run that streamed."""
        said = AgentResponse.from_updates(self.updates).text
        if _letters(said) == _letters(response.text) and (self.updates or not response.messages):
            return []
        replaced = [event(REPLACED)] if self.updates else []
        self.updates, self._message = [], {}
        return [*replaced, *(draft for update in updates_of(response) for draft in self.add(update))]

    def _of_content(self, content: Content) -> Iterator[Draft]:
        kept = {name: value for name, value in content.to_dict().items() if value not in (None, {}, [])}
        text = kept.get("text")
        if content.type == "text" and isinstance(text, str) and kept.keys() == {"type", "text"}:
            characters = min(_TEXT_MAX_CHARACTERS, max(self._event_max_bytes // _CHARACTER_MAX_BYTES, 1))
            for begin in range(0, len(text), characters):
                yield Draft(TEXT, text[begin : begin + characters].encode("utf-8", "surrogatepass"))
        elif kept != {"type": "text"}:
            draft = event(CONTENT if content.type == "text" else content.type, plain(kept))
            if len(draft.data) > self._event_max_bytes:
                draft = event(OMITTED, {"type": draft.type, "size_bytes": len(draft.data)})
            yield draft


def _letters(text: str) -> str:
    """Without spaces: the framework puts some between the parts of a message."""
    return "".join(text.split())


def updates_of(response: AgentResponse[Any]) -> Iterator[AgentResponseUpdate]:
    """A whole response as updates: its messages, then what is about all of it."""
    for message in response.messages:
        yield AgentResponseUpdate(
            contents=message.contents,
            role=message.role,
            author_name=message.author_name,
            message_id=message.message_id,
            response_id=response.response_id,
            agent_id=response.agent_id,
            created_at=response.created_at,
        )
    usage = [Content.from_usage(response.usage_details)] if response.usage_details else []
    if usage or response.finish_reason or response.additional_properties:
        yield AgentResponseUpdate(
            contents=usage,
            finish_reason=response.finish_reason,
            additional_properties=dict(response.additional_properties) or None,
        )


def text_of(recorded: Event) -> str:
    """The text that an event adds to the answer; "" for all that is no text."""
    if recorded.type == TEXT:
        return recorded.text
    return str(recorded.json().get("text") or "") if recorded.type == CONTENT else ""


def update_of(recorded: Event) -> AgentResponseUpdate | None:
    """The framework's object. None for ``agent.replaced``, ``agent.omitted`` and what is not an agent's."""
    if recorded.type == TEXT:
        return AgentResponseUpdate(contents=[Content.from_text(recorded.text)])
    if recorded.type in (REPLACED, OMITTED):
        return None
    value = recorded.json()
    if not isinstance(value, dict):
        return None
    if recorded.type in (MESSAGE, UPDATE):
        return AgentResponseUpdate.from_dict({**value, "type": "agent_response_update"})
    return AgentResponseUpdate(contents=[_content_of(value)]) if "type" in value else None


def _content_of(value: dict[str, Any]) -> Content:
    try:
        return Content.from_dict(value)
    except (TypeError, ValueError):  # written by a newer framework
        return Content(value["type"], additional_properties={"recorded": value})


def agent_response_of(events: Iterable[Event]) -> AgentResponse[Any]:
    """What these events make together: messages, function calls and results, usage, finish reason.

    Of a run that ended early it is what there was.
    """
    updates: list[AgentResponseUpdate] = []
    for recorded in events:
        if recorded.type == REPLACED:
            updates.clear()
        elif (update := update_of(recorded)) is not None:
            updates.append(update)
    return AgentResponse.from_updates(updates)


def plain(value: Any) -> Any:
    """The value as JSON can have it: what it cannot have as its fields, its text, or its ``repr``, shortened."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return _plain(value)
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if depth < 50:
        if hasattr(value, "model_dump"):
            value = value.model_dump(mode="json")
        elif isinstance(value, Content):
            value = value.to_dict()
        if isinstance(value, Mapping):
            return {str(key): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | Set):
            return [_plain(item, depth + 1) for item in value]
        if hasattr(value, "isoformat"):
            return value.isoformat()
    return repr(value)[:_REPR_MAX_CHARACTERS]
