"""The built-in model: no key, no network, and it misbehaves on request (see `demo_commands`).

It lets anybody try Playhead in a minute, and lets tests and demonstrations have every kind of answer: long, slow,
with a tool call, broken in the middle.
"""
# ruff: noqa: ARG002  (LangChain passes its arguments by name, used or not)

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from .demo_commands import USAGE, Commands, read_commands

TOOL = "clock"
PREFACE = "I am Playhead's demo model, with no real LLM behind me; set `OPENAI_API_KEY` to plug one in."
_ECHO_CHARACTERS = 60
_LONG_TEXT = (
    "a stream is a log and every word has its place so that a reader who leaves may come back later "
    "and find the next one waiting just where the last one ended"
)


class DemoModelError(RuntimeError):
    """The demo model was told to fail (``/error``)."""


@dataclass(frozen=True)
class _Answer:
    """One model call's answer, before it is cut into words."""

    text: str
    call_tool: bool = False
    fail: bool = False
    slow_s: float = 0.0
    pace_ms: float | None = None

    def chunks(self) -> Iterator[AIMessageChunk]:
        # Each word keeps the white space behind it, so that the chunks join to the text exactly.
        words = re.findall(r"\S+\s*", self.text)
        for position, word in enumerate(words):
            if self.fail and position == len(words) // 2:
                raise DemoModelError("The demo model failed in mid-answer, as it was told to by /error.")
            yield AIMessageChunk(content=word)
        if self.call_tool:
            yield from _tool_call()


def _tool_call() -> Iterator[AIMessageChunk]:
    """A call the way OpenAI streams one: name and id first, then the arguments as pieces of JSON text."""
    first = tool_call_chunk(name=TOOL, id=f"call_{uuid4().hex}", args="", index=0)
    yield AIMessageChunk(content="", tool_call_chunks=[first])
    for piece in ('{"time', 'zone": ', json.dumps("UTC") + "}"):
        more = tool_call_chunk(name=None, id=None, args=piece, index=0)
        yield AIMessageChunk(content="", tool_call_chunks=[more])


def _compose(messages: Sequence[BaseMessage], tools: Sequence[str]) -> _Answer:
    asked = read_commands(next((str(m.text) for m in reversed(messages) if isinstance(m, HumanMessage)), ""))
    if asked.misused is not None:
        return _Answer(f"{PREFACE}\n\nI cannot do `{asked.misused}`. {USAGE}", pace_ms=asked.pace_ms)
    if messages and isinstance(messages[-1], ToolMessage):
        text = f"The {messages[-1].name or 'tool'} says: {messages[-1].text}"
        if asked.long_words is not None:
            text = f"{text}\n\n{_long(asked.long_words)}"
        return _Answer(text.rstrip(), fail=asked.error, pace_ms=asked.pace_ms)
    if asked.tool and TOOL in tools:
        text = f"{PREFACE}\n\nLet me look at the {TOOL}. "
        return _Answer(text, call_tool=True, slow_s=asked.slow_s, pace_ms=asked.pace_ms)
    body = _plain(asked, messages) if asked.long_words is None else _long(asked.long_words)
    text = f"{PREFACE}\n\n{body}".rstrip()
    return _Answer(text, fail=asked.error, slow_s=asked.slow_s, pace_ms=asked.pace_ms)


def _long(words: int) -> str:
    return " ".join(islice(cycle(_LONG_TEXT.split()), words))


def _plain(asked: Commands, messages: Sequence[BaseMessage]) -> str:
    echo = " ".join(asked.message.split())
    if len(echo) > _ECHO_CHARACTERS:
        echo = echo[:_ECHO_CHARACTERS].rsplit(" ", 1)[0] + " …"
    said = f"You wrote: *{echo}*" if echo else "You wrote nothing more"
    turns = sum(isinstance(m, HumanMessage) or (isinstance(m, AIMessage) and bool(m.text)) for m in messages)
    no_tool = f" There is no `{TOOL}` tool here to call." if asked.tool else ""
    return (
        f"{said}. Counting that one, this conversation has **{turns} message{'s' * (turns != 1)}** so far.{no_tool}\n\n"
        "Reload the page while I am talking, or open it in a second tab: every word is stored before it is shown, "
        "so nothing is lost and nothing is repeated. Try `/long 500`, `/slow 3`, `/tool` or `/error` too."
    )


class DemoChatModel(BaseChatModel):
    """A chat model that says at once that it is none, then does as the last message asks."""

    default_pace_ms: float = 20.0

    @property
    def _llm_type(self) -> str:
        return "playhead-demo"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools; only one named ``clock`` is ever called."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        chunks = _compose(messages, _names(kwargs)).chunks()
        return generate_from_stream(ChatGenerationChunk(message=chunk) for chunk in chunks)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        answer = _compose(messages, _names(kwargs))
        pace_s = (self.default_pace_ms if answer.pace_ms is None else answer.pace_ms) / 1000
        clock = asyncio.get_running_loop().time
        start_s = clock() + answer.slow_s
        for position, chunk in enumerate(answer.chunks()):
            # Deadlines from one start: late wake-ups do not add up, so 50 words a second stay 50.
            await asyncio.sleep(max(0.0, start_s + position * pace_s - clock()))
            yield ChatGenerationChunk(message=chunk)


def _names(kwargs: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in kwargs.get("tools", [])]
