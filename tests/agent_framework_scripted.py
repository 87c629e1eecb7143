"""A chat client behind the framework's real classes whose model does what the last message says, word by word:

say:3        three words, "w1 " to "w3 "; pace:0.01 seconds between them from then on
big:9        one word of nine kilobytes
tool:Oslo    a call of get_weather, in two pieces; what follows is the answer after its result
wait:/path   wait until that file is there
hang         wait for ever
stubborn     likewise, and ignore being cancelled once
fail         raise, with a key in the text; when asked again without streaming, too
retry:N      raise; when asked again without streaming, say N words in capitals
think        a piece of reasoning
usage        the token usage, and the reason to stop
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)
from streaming import until

KEY = "sk-proj-0123456789abcdefghij"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: sunny"


def words(count: int) -> list[str]:
    return [f"w{number} " for number in range(1, count + 1)]


class ScriptedChatClient(FunctionInvocationLayer, BaseChatClient):
    """Attributes:
    asked: what the model was asked, each time: role and text of each message, and whether it was to stream.
    """

    def __init__(self, always: str | None = None) -> None:
        """``always``: what it does, whatever it is told."""
        super().__init__()
        self._always = always
        self.asked: list[tuple[list[tuple[str, str]], bool]] = []

    def _inner_get_response(self, *, messages: Sequence[Message], stream: bool, options: Any, **kwargs: Any) -> Any:
        self.asked.append(([(message.role, message.text) for message in messages], stream))
        told = [message.text for message in messages if message.role == "user"][-1]
        commands = (self._always or told).split()
        has_result = messages[-1].role == "tool"
        called = next((place for place, command in enumerate(commands) if command.startswith("tool:")), None)
        if called is not None:
            commands = commands[called + 1 :] if has_result else commands[: called + 1]
        name = f"m{sum(message.role != 'user' for message in messages) + 1}"
        if stream:
            return ResponseStream(
                self._updates(commands, name), finalizer=lambda updates: ChatResponse.from_updates(updates)
            )
        return self._whole(commands)

    async def _updates(self, commands: list[str], name: str) -> AsyncIterator[ChatResponseUpdate]:
        pace_s = 0.0

        def update(content: Content, **more: Any) -> ChatResponseUpdate:
            return ChatResponseUpdate(
                contents=[content], role="assistant", message_id=name, response_id=f"r-{name}", **more
            )

        for command in commands:
            verb, _, value = command.partition(":")
            if verb == "pace":
                pace_s = float(value)
            elif verb == "say":
                for word in words(int(value)):
                    yield update(Content.from_text(word))
                    await asyncio.sleep(pace_s)
            elif verb == "big":
                yield update(Content.from_text("x" * 1000 * int(value)))
            elif verb == "think":
                yield update(Content.from_text_reasoning(text="hm"))
            elif verb == "usage":
                used: Any = {"input_token_count": 3, "output_token_count": 5}
                yield update(Content.from_usage(used), finish_reason="stop")
            elif verb == "tool":
                yield update(Content.from_function_call("c1", "get_weather", arguments='{"city": '))
                yield update(Content.from_function_call("c1", "", arguments=f'"{value}"}}'))
            elif verb == "wait":
                await until(partial(os.path.exists, value), 60.0)
            elif verb == "hang":
                await asyncio.Event().wait()
            elif verb == "stubborn":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await until(partial(os.path.exists, value), 60.0)
            elif verb in ("fail", "retry"):
                raise RuntimeError(f"the provider broke, key {KEY}")

    async def _whole(self, commands: list[str]) -> ChatResponse:
        retry = next((command for command in commands if command.startswith("retry:")), None)
        if retry is None:
            raise RuntimeError(f"the provider refused, key {KEY}")
        text = "".join(words(int(retry.partition(":")[2]))).upper()
        return ChatResponse(messages=[Message("assistant", [text])], response_id="whole", finish_reason="stop")


def scripted_agent(name: str = "TravelPlanner", client: ScriptedChatClient | None = None) -> Agent:
    return Agent(client=client or ScriptedChatClient(), name=name, tools=[get_weather])
