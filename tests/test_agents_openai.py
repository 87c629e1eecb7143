"""Which model is chosen, and how OpenAI's client behind the agent takes a server that misbehaves."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from langchain_openai import ChatOpenAI
from openai import APIConnectionError, BadRequestError, InternalServerError
from openai_server import Answer, OpenAIServer, ToolCall

from playhead.agents import ChatAgent, DemoChatModel, TextPiece, choose_model, open_agent
from playhead.agents.model import DEFAULT_MODEL
from playhead.model import OutcomeKind

WORDS = ("naïve ", "日本語 ", "🛹🛹 ", "fin")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
async def agent(tmp_path: Path, server: OpenAIServer) -> AsyncIterator[ChatAgent]:
    async with open_agent(tmp_path / "checkpoints.sqlite", choose_model(base_url=server.url, model="tiny")) as agent:
        yield agent


async def read(agent: ChatAgent, texts: list[str], text: str = "Hello", message_id: str = "h1") -> str:
    async for piece in agent.reply("t1", message_id, text):
        assert isinstance(piece, TextPiece)
        texts.append(piece.text)
    return "".join(texts)


def test_without_a_key_or_a_server_the_demo_model_answers() -> None:
    assert isinstance(choose_model(), DemoChatModel)
    assert isinstance(choose_model(api_key="", base_url="", model="gpt-x"), DemoChatModel)


def test_a_key_chooses_openai() -> None:
    model = choose_model(api_key="sk-test")
    assert isinstance(model, ChatOpenAI)
    assert model.model_name == DEFAULT_MODEL
    assert model.openai_api_base is None


async def test_a_local_server_needs_no_key(agent: ChatAgent, server: OpenAIServer) -> None:
    assert await read(agent, []) == "Hello world"
    body = server.requests[0].body
    assert (body["model"], body["stream"]) == ("tiny", True)
    assert "stream_options" not in body  # not every server knows it
    assert server.requests[0].headers["authorization"] == "Bearer not-needed"


async def test_a_key_is_sent(tmp_path: Path, server: OpenAIServer) -> None:
    model = choose_model(api_key="sk-test", base_url=server.url)
    async with open_agent(tmp_path / "checkpoints.sqlite", model) as agent:
        await read(agent, [])
    assert server.requests[0].headers["authorization"] == "Bearer sk-test"


@pytest.mark.parametrize("bytes_per_write", [1, 3, 7])
async def test_characters_split_across_packets_arrive_whole(
    agent: ChatAgent, server: OpenAIServer, bytes_per_write: int
) -> None:
    server.answer(Answer(*WORDS, bytes_per_write=bytes_per_write))
    texts: list[str] = []
    await read(agent, texts)
    assert tuple(texts) == WORDS


async def test_a_slow_first_token_is_waited_for(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer(first_delay_s=0.2))
    assert await read(agent, []) == "Hello world"
    assert len(server.requests) == 1


async def test_a_refused_opening_is_tried_again(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer(status=429, retry_after_s=0.05), Answer(status=503, retry_after_s=0.05))
    assert await read(agent, []) == "Hello world"
    assert len(server.requests) == 3


async def test_a_server_that_keeps_refusing_fails_the_reply(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(*[Answer(status=503, retry_after_s=0.05)] * 3)
    with pytest.raises(InternalServerError):
        await read(agent, [])
    assert await read(agent, [], "Again", "h2") == "Hello world"


async def test_a_reset_in_mid_answer_fails_at_once_with_what_came_before(
    agent: ChatAgent, server: OpenAIServer
) -> None:
    server.answer(Answer("Once ", "upon ", "a time", reset_after_chunks=2))
    texts: list[str] = []
    with pytest.raises(APIConnectionError):
        await read(agent, texts)
    assert texts == ["Once ", "upon "]
    assert len(server.requests) == 1, "half an answer was asked for again"
    await agent.settle("t1", "s1", "h1", "Hello", "Once upon ", OutcomeKind.FAILED)
    assert await read(agent, [], "Go on", "h2") == "Hello world"
    assert [m["content"] for m in server.requests[1].messages] == ["Hello", "Once upon ", "Go on"]


async def test_a_malformed_chunk_fails_the_reply(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer("Once ", "upon", malformed_after_chunks=1))
    texts: list[str] = []
    with pytest.raises(json.JSONDecodeError):
        await read(agent, texts)
    assert texts == ["Once "]


async def test_a_refused_request_is_not_tried_again(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer(status=400))
    with pytest.raises(BadRequestError):
        await read(agent, [])
    assert len(server.requests) == 1


def test_the_local_server_refuses_what_the_real_one_refuses(server: OpenAIServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    user, calling = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
    asked = {
        "good": ([user, calling, result], 200),
        "open call": ([user, calling, user], 400),
        "open call at the end": ([user, calling], 400),
        "result without a call": ([user, result], 400),
        "empty answer": ([user, {"role": "assistant", "content": ""}, user], 400),
    }
    with httpx.Client(base_url=server.url) as client:
        for name, (messages, status) in asked.items():
            assert client.post("/chat/completions", json={"messages": messages}).status_code == status, name
        assert client.get("/models").status_code == 404


def test_the_local_server_answers_whole_too(server: OpenAIServer) -> None:
    server.answer(Answer("Let me look.", tool_calls=(ToolCall("clock"),)))
    answer = httpx.post(f"{server.url}/chat/completions", json={"messages": []}).json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] == "Let me look."
    assert answer["message"]["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}
