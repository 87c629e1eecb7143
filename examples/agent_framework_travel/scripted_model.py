"""A model that needs no network: it calls both tools for the place that it finds, and writes a plan from their results.

It is a chat client as the framework's own are: tools are called, and results given back, by the framework.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)

SIGHTS = ["the old town, on foot", "the harbour and its cafés", "the museum of modern art", "the gardens"]
CHEAP = ["a walk along the river", "the free viewpoint", "the street market", "the city library"]


class ScriptedChatClient(FunctionInvocationLayer, BaseChatClient):
    """``pace_s``: seconds between two words."""

    def __init__(self, pace_s: float = 0.04) -> None:
        super().__init__()
        self._pace_s = pace_s

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, **_: Any) -> Any:
        updates = self._updates(messages)
        if stream:
            return ResponseStream(updates, finalizer=lambda all_of_them: ChatResponse.from_updates(all_of_them))

        async def whole() -> ChatResponse:
            return ChatResponse.from_updates([update async for update in updates])

        return whole()

    async def _updates(self, messages: Sequence[Message]) -> AsyncIterator[ChatResponseUpdate]:
        asked = [message.text for message in messages if message.role == "user"]
        name = f"message-{len(messages)}"
        begun_at = datetime.now(UTC).isoformat()

        def update(content: Content, **about: Any) -> ChatResponseUpdate:
            return ChatResponseUpdate(
                contents=[content], role="assistant", message_id=name, created_at=begun_at, **about
            )

        results = _results(messages)
        place = _place(asked)
        if not results:
            yield update(Content.from_text(f"Let me see what {place} has for you.\n\n"))
            for number, tool in enumerate(("get_weather", "get_events")):
                arguments = f'{{"place": "{place}"}}'
                yield update(Content.from_function_call(f"{name}-{number}", tool, arguments=arguments))
            return
        for word in re.findall(r"\S+\s*", _plan(place, asked, results)):
            await asyncio.sleep(self._pace_s)
            yield update(Content.from_text(word))
        used: Any = {"input_token_count": sum(len(text.split()) for text in asked), "output_token_count": 200}
        yield update(Content.from_usage(used), finish_reason="stop")


def _results(messages: Sequence[Message]) -> list[str]:
    """What the tools said since the user's last message."""
    last = max(place for place, message in enumerate(messages) if message.role == "user")
    contents = [content for message in messages[last:] for content in message.contents]
    return [str(content.result) for content in contents if content.type == "function_result"]


def _place(asked: list[str]) -> str:
    """The newest place that the user named: a word after "to" or "in" that begins with a capital."""
    for text in reversed(asked):
        if found := re.search(r"\b(?:to|in) ([A-Z]\w+)", text):
            return found[1]
    return "Tokyo"


def _plan(place: str, asked: list[str], results: list[str]) -> str:
    weather, events = (result.partition(": ")[2] for result in results[:2])
    sights = CHEAP if "cheap" in asked[-1].lower() else SIGHTS
    days = [
        f"## Day {day}\n\nMorning: {sight}. Weather: {weather}.\nEvening: {event}.\n\n"
        for day, (sight, event) in enumerate(zip(sights, (events.split("; ") * 4)[:4], strict=True), 1)
    ]
    return f"# {place} in four days\n\n" + "".join(days) + "Have a good trip!\n"
