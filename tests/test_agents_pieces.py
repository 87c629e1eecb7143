"""How the chunks of a graph's stream become pieces; calls come in parts, as each server likes."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk

from playhead.agents import Piece, TextPiece, ToolCallPiece, ToolResultPiece
from playhead.agents.pieces import Calls, pieces_of


def chunk(message_id: str, place: int | None, name: str | None, call_id: str | None, args: str | None) -> BaseMessage:
    part = tool_call_chunk(name=name, id=call_id, args=args, index=place)
    return AIMessageChunk(content="", id=message_id, tool_call_chunks=[part])


def result(call_id: str, content: str = "noon") -> BaseMessage:
    return ToolMessage(content, tool_call_id=call_id, name="clock")


def read(*messages: BaseMessage) -> list[Piece]:
    calls: Calls = {}
    return [
        piece
        for message in messages
        for piece in pieces_of(message, "tools" if isinstance(message, ToolMessage) else "agent", calls)
    ]


def test_arguments_come_with_the_result() -> None:
    assert read(
        chunk("m", 0, "clock", "c", ""),
        chunk("m", 0, None, None, '{"time'),
        chunk("m", 0, None, None, 'zone": "UTC"}'),
        result("c"),
    ) == [ToolCallPiece("clock", "c"), ToolResultPiece("clock", "c", "noon", {"timezone": "UTC"})]


def test_calls_beside_each_other_are_kept_apart() -> None:
    pieces = read(
        chunk("m", 0, "clock", "a", '{"n":'),
        chunk("m", 1, "clock", "b", '{"n":'),
        chunk("m", 1, None, None, "2}"),
        chunk("m", 0, None, None, "1}"),
        result("b"),
        result("a"),
    )
    assert [(p.id, p.args) for p in pieces if isinstance(p, ToolResultPiece)] == [("b", {"n": 2}), ("a", {"n": 1})]


def test_a_name_that_is_repeated_is_told_once() -> None:
    pieces = read(chunk("m", 0, "clock", "c", "{"), chunk("m", 0, "clock", "c", "}"), result("c"))
    assert pieces == [ToolCallPiece("clock", "c"), ToolResultPiece("clock", "c", "noon", {})]


def test_ids_that_are_used_again_mean_the_newest_call() -> None:
    pieces = read(
        chunk("m1", 0, "clock", "0", '{"n": 1}'),
        result("0"),
        chunk("m2", 0, "clock", "0", '{"n": 2}'),
        result("0"),
    )
    assert [p.args for p in pieces if isinstance(p, ToolResultPiece)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("text", "args"), [(None, {}), ("", {}), ("at noon", None), ('{"n": ', None), ("[1]", None), ("null", None)]
)
def test_what_is_no_json_object_is_none(text: str | None, args: dict[str, Any] | None) -> None:
    assert read(chunk("m", 0, "clock", "c", text), result("c"))[-1] == ToolResultPiece("clock", "c", "noon", args)


def test_a_result_without_a_call_has_no_arguments() -> None:
    assert read(result("c")) == [ToolResultPiece("clock", "c", "noon", None)]


def test_a_model_that_does_not_stream_is_understood() -> None:
    call = {"name": "clock", "id": "c", "args": {"timezone": "UTC"}}
    assert read(AIMessage("Let me look. ", id="m", tool_calls=[call]), result("c")) == [
        TextPiece("Let me look. "),
        ToolCallPiece("clock", "c"),
        ToolResultPiece("clock", "c", "noon", {"timezone": "UTC"}),
    ]
