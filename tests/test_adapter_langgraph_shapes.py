"""Values and chunks of every shape: what is kept of them, and what a model says with them."""

import json
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Interrupt
from provider_fixtures import make_store  # noqa: F401 - a fixture
from provider_server import ProviderServer, response_events
from pydantic import BaseModel
from streaming import follow

from playhead import Event, Playhead
from playhead.adapters.langgraph import (
    GraphPart,
    part_of,
    reasoning_of,
    recorded,
    start_graph,
    text_of,
    tool_call_chunks_of,
)


def back(data: Any, mode: str = "values") -> Any:
    """The data after it was recorded and read."""
    draft = recorded(GraphPart(mode, ("a:1", "b:2"), data))
    part = part_of(Event(1, draft.type, draft.data))
    assert (part.mode, part.ns) == (mode, ("a:1", "b:2"))
    return part.data


# ----------------------------------------------------------------------------------------- values

USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
CALL = {"name": "clock", "args": {"n": [1]}, "id": "c1"}
MESSAGES: list[BaseMessage] = [
    HumanMessage("Hello", id="h1", name="ann"),
    HumanMessage([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]),
    SystemMessage("Be kind."),
    AIMessage("Yes.", id="a1", tool_calls=[CALL], usage_metadata=USAGE, response_metadata={"model": "m"}),
    AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Yes."}]),
    AIMessage("", invalid_tool_calls=[{"name": "clock", "args": "{", "id": "c1", "error": "bad"}]),
    AIMessageChunk("é日🛹", id="run-1", chunk_position="last"),
    AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name="clock", id="c1", args='{"ti', index=0)]),
    AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=None, id=None, args='me"', index=0)]),
    ToolMessage("noon", tool_call_id="c1", name="clock", artifact={"raw": [1, 2]}, status="error"),
    RemoveMessage(id="h1"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back_equal_wherever_they_are(message: BaseMessage) -> None:
    assert back((message, {"langgraph_step": 1}), "messages") == (message, {"langgraph_step": 1})
    found = back({"agent": {"messages": [message], "deep": {"er": [[message]]}}}, "updates")
    assert found == {"agent": {"messages": [message], "deep": {"er": [[message]]}}}
    assert type(found["agent"]["messages"][0]) is type(message)


def test_chunks_that_came_back_can_be_joined() -> None:
    whole = AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name="clock", id="c1", args='{"n', index=0)])
    rest = AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=None, id=None, args='": 1}', index=0)])
    joined = back((whole, {}), "messages")[0] + back((rest, {}), "messages")[0]
    assert joined.tool_calls == [{"name": "clock", "args": {"n": 1}, "id": "c1", "type": "tool_call"}]


def test_documents_and_interrupts_come_back() -> None:
    document = Document("text", metadata={"page": 3}, id="d1")
    assert back({"docs": [document]}) == {"docs": [document]}
    held = (Interrupt({"choose": ["a"]}, id="i1"), Interrupt("b", id="i2"))
    assert back({"__interrupt__": held}, "updates") == {"__interrupt__": held}


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 2


@dataclass
class Point:
    x: int
    to: Any = None


class Model(BaseModel):
    name: str
    messages: list[AnyMessage] = []


class Mine(AIMessage):
    """A message class of an app's own."""

    mood: str = "good"


class Odd:
    def __repr__(self) -> str:
        return "Odd(1)"


PAIR = namedtuple("PAIR", "left right")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, "a", None, True, 1.5), [1, "a", None, True, 1.5]),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "a", (2, 3): "b", None: "c"}, {"1": "a", "(2, 3)": "b", "None": "c"}),
        ({"only"}, ["only"]),
        (float("nan"), None),
        (float("inf"), None),
        (2**70, 2**70),
        (Colour.RED, "red"),
        (Level.HIGH, 2),
        (datetime(2026, 11, 20, 12, tzinfo=UTC), "2026-11-20T12:00:00+00:00"),
        (date(2026, 11, 20), "2026-11-20"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("/a/b"), "/a/b"),
        (b"\x00\xff", "AP8="),
        (PAIR(1, b"a"), {"left": 1, "right": "YQ=="}),
        (Point(1, Point(2)), {"x": 1, "to": {"x": 2, "to": None}}),
        (Model(name="n", messages=[HumanMessage("x")]), {"name": "n", "messages": [HumanMessage("x")]}),
        (Mine("Yes.", id="1"), AIMessage("Yes.", id="1")),
        (Odd(), "Odd(1)"),
        (Point, repr(Point)),
        ("lone \ud83d", "lone \ud83d"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_no_word_for_is_kept_as_what_it_can_be(value: Any, kept: Any) -> None:
    assert back({"value": value}) == {"value": kept}
    message = ToolMessage("x", tool_call_id="1", artifact=value, additional_kwargs={"v": value})
    assert back((message, {}), "messages")[0].additional_kwargs == {"v": kept}


def test_objects_that_do_things_are_not_made_again() -> None:
    prompt = ChatPromptTemplate.from_messages([("user", "{x}")])
    assert not isinstance(back({"prompt": prompt})["prompt"], ChatPromptTemplate)


@pytest.mark.parametrize(
    "data",
    [
        {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {"content": "x"},
        },
        {"lc": 1, "type": "secret", "id": ["HOME"]},
        {"lc": 1, "type": "not_implemented", "id": ["x"], "repr": "x"},
        {"__lc_escaped__": {"lc": 1}},
        {"lc": {"lc": 1, "deep": [{"__lc_escaped__": 1}]}},
        {"ns": [], "data": {}},
    ],
)
def test_what_looks_like_an_object_and_is_none_stays_what_it_is(data: Any) -> None:
    assert back(data, "custom") == data
    assert back({"x": [data]}, "custom") == {"x": [data]}


def test_an_object_in_a_dict_that_looks_like_one_does_not_break_the_stream() -> None:
    found = back({"lc": 1, "m": [HumanMessage("x")]}, "custom")
    assert (found["lc"], found["m"][0]["kwargs"]["content"]) == (1, "x")


@pytest.mark.parametrize(
    "path",
    [
        ["langchain", "prompts", "chat", "ChatPromptTemplate"],
        ["langchain_core", "prompts", "prompt", "PromptTemplate"],
        ["langchain_openai", "chat_models", "base", "ChatOpenAI"],
        ["subprocess", "Popen"],
    ],
)
def test_reading_makes_messages_and_documents_only(path: list[str]) -> None:
    """Whoever can write to the store must not be able to run code in a reader."""
    planted = {"lc": 1, "type": "constructor", "id": path, "kwargs": {}}
    data = json.dumps({"ns": [], "data": {"x": planted}}).encode()
    with pytest.raises(ValueError, match="not allowed"):
        part_of(Event(1, "values", data))


# ------------------------------------------------------------------------------------------- text


def said(content: Any, **beside: Any) -> tuple[str, str]:
    chunk = AIMessageChunk(content, additional_kwargs=beside)
    whole = AIMessage(content, additional_kwargs=beside)
    assert (text_of(chunk), reasoning_of(chunk)) == (text_of(whole), reasoning_of(whole))
    return text_of(chunk), reasoning_of(chunk)


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ("Hello", "Hello", ""),
        ("", "", ""),
        ([], "", ""),
        (["Hel", "lo"], "Hello", ""),
        ([{"type": "text", "text": "Hello", "index": 0}], "Hello", ""),
        ([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo", "annotations": []}], "Hello", ""),
        ([{"type": "output_text", "text": "Hello"}], "Hello", ""),
        ([{"text": "Hello"}], "Hello", ""),
        ([{"type": "text"}], "", ""),
        ([{"type": "thinking", "thinking": "hm", "index": 0}], "", "hm"),
        ([{"type": "thinking", "signature": "c2ln", "index": 0}], "", ""),
        ([{"type": "redacted_thinking", "data": "…"}], "", ""),
        ([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Hello"}], "Hello", "hm"),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "h"}, {"text": "m"}]}], "", "hm"),
        ([{"type": "reasoning", "id": "rs_1", "summary": [], "index": 0}], "", ""),
        ([{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}], "", "hm"),
        ([{"type": "reasoning_content", "reasoning_content": {"text": "hm", "signature": ""}}], "", "hm"),
        ([{"type": "tool_use", "id": "t", "name": "clock", "input": {}}], "", ""),
        ([{"type": "input_json_delta", "partial_json": '{"a'}], "", ""),
        ([{"type": "tool_call_chunk", "name": "clock", "args": "{", "id": "1"}], "", ""),
        ([{"type": "function_call", "name": "clock", "arguments": "{}", "call_id": "1"}], "", ""),
        ([{"type": "refusal", "refusal": "no"}], "", ""),
        ([{"type": "web_search_call", "id": "ws"}, {"type": "text", "text": "Hello"}], "Hello", ""),
        ([{"type": "non_standard", "value": {"text": "x"}}], "", ""),
    ],
)
def test_text_and_reasoning_of_every_providers_content(content: Any, text: str, reasoning: str) -> None:
    assert said(content) == (text, reasoning)


def test_reasoning_beside_the_content() -> None:
    assert said("", reasoning_content="hm") == ("", "hm")
    assert said("Hello", reasoning={"id": "rs", "summary": [{"text": "h"}, {"text": "m"}]}) == ("Hello", "hm")
    assert said("Hello", refusal="no") == ("Hello", "")


def test_tool_calls_of_chunks_and_of_whole_messages() -> None:
    part = tool_call_chunk(name="clock", id="c1", args='{"a', index=1)
    assert tool_call_chunks_of(AIMessageChunk("", tool_call_chunks=[part])) == [part]
    assert tool_call_chunks_of(AIMessage("", tool_calls=[CALL])) == [
        tool_call_chunk(name="clock", id="c1", args='{"n": [1]}', index=0)
    ]
    assert tool_call_chunks_of(HumanMessage("x")) == []
    assert tool_call_chunks_of(GraphPart("values", (), {})) == []


# --------------------------------------------------------------------- a real client's Responses API


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    events = response_events(["Hel", "lo é🛹"])
    where = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    item = {"id": "rs_1", "type": "reasoning", "summary": []}
    thinking: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.reasoning_summary_part.added", **where, "part": {"type": "summary_text", "text": ""}},
        *[{"type": "response.reasoning_summary_text.delta", **where, "delta": word} for word in ("h", "m")],
    ]
    for delta in events[2:4]:
        delta["output_index"] = 1
    events[2:2] = thinking
    with ProviderServer([{**event, "sequence_number": number} for number, event in enumerate(events)]) as server:
        yield server


@pytest.mark.parametrize("output_version", ["v0", "responses/v1", "v1"])
async def test_the_responses_api_behind_langchain(
    playhead: Playhead, server: ProviderServer, output_version: str
) -> None:
    model = ChatOpenAI(
        base_url=server.url,
        api_key="any",
        model="local",
        use_responses_api=True,
        output_version=output_version,
        streaming=True,
    )

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").compile()
    info = await start_graph(playhead, graph, {"messages": [("user", "Hello")]})
    events = await follow(playhead, info.stream_id)
    assert "".join(text_of(event) for event in events) == "Hello é🛹"
    assert "".join(reasoning_of(event) for event in events) == "hm"
