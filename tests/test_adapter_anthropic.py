"""Anthropic's messages as a durable stream: every kind of block, clear endings, no secrets."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import RawContentBlockDeltaEvent
from provider_fixtures import make_store, patient_playhead  # noqa: F401 - fixtures
from provider_server import Cut, ProviderServer, message_events
from streaming import finished, follow, has_stored

from playhead import Event, OutcomeKind, Playhead
from playhead.adapters.anthropic import (
    ProviderError,
    anthropic_messages,
    message_event_of,
    message_of,
    text_of,
    usage_of,
)

WORDS = ["Once ", "upon é ", "日本 ", "🛹🛹"]
THINKING: tuple[Any, Any] = (
    {"type": "thinking", "thinking": "", "signature": ""},
    [{"type": "thinking_delta", "thinking": "hm, "}, {"type": "signature_delta", "signature": "c2ln"}],
)
TEXT: tuple[Any, Any] = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in WORDS])
TOOL: tuple[Any, Any] = (
    {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}},
    [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"time', 'zone": "UTC"}')],
)
KEY = "sk-ant-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(message_events([THINKING, TEXT, TOOL], stop_reason="tool_use")) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: ProviderServer) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=server.root, api_key=KEY, max_retries=0) as client:
        yield client


ASKED: dict[str, Any] = {"model": "local", "max_tokens": 100, "messages": [{"role": "user", "content": "Tell me"}]}


async def recorded(playhead: Playhead, source: Any) -> tuple[list[Event], Any]:
    """All events of a source's stream, and the outcome."""
    info = await playhead.start(source)
    return await follow(playhead, info.stream_id), await finished(playhead, info.stream_id)


async def test_three_lines_make_a_message_durable(
    playhead: Playhead, client: AsyncAnthropic, server: ProviderServer
) -> None:
    info = await playhead.start(anthropic_messages(client, **ASKED))
    events = await follow(playhead, info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    assert [event.json() for event in events] == server.events
    assert [event.type for event in events] == [event["type"] for event in server.events]
    assert [text for event in events if (text := text_of(event))] == WORDS
    assert [usage for event in events if (usage := usage_of(event))] == [
        {"input_tokens": 3, "output_tokens": 1},
        {"output_tokens": 9},
    ]
    assert server.requests[0].body["stream"] is True


async def test_events_come_back_as_the_clients_own_objects(playhead: Playhead, client: AsyncAnthropic) -> None:
    live = [event async for event in await client.messages.create(**ASKED, stream=True)]
    events, _ = await recorded(playhead, anthropic_messages(client, **ASKED))
    assert [message_event_of(event) for event in events] == live
    assert isinstance(message_event_of(events[2]), RawContentBlockDeltaEvent)


async def test_the_whole_message_is_joined_by_the_clients_own_code(playhead: Playhead, client: AsyncAnthropic) -> None:
    async with client.messages.stream(**ASKED) as stream:
        live = await stream.get_final_message()
    events, _ = await recorded(playhead, anthropic_messages(client, **ASKED))
    message = message_of(events)
    assert message.to_dict() == live.to_dict()
    thinking, text, tool = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, thinking.signature) == ("hm, ", "c2ln")
    assert text.type == "text"
    assert text.text == "".join(WORDS)
    assert tool.type == "tool_use"
    assert (tool.name, tool.input) == ("clock", {"timezone": "UTC"})
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("tool_use", 3, 9)
    half = message_of(events[:8])
    assert [block.type for block in half.content] == ["thinking", "text"]
    assert half.content[1].text == "Once upon é "  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="message_start"):
        message_of(events[1:])


async def test_an_event_that_the_client_does_not_know_is_kept_as_it_came(
    playhead: Playhead, client: AsyncAnthropic, server: ProviderServer
) -> None:
    unknown = {"type": "content_block_dream", "index": 1, "dream": {"of": [1.5, None, "é"]}}
    server.events.insert(6, unknown)
    events, outcome = await recorded(playhead, anthropic_messages(client, **ASKED))
    assert outcome.kind is OutcomeKind.COMPLETED
    assert events[6].json() == unknown
    assert message_event_of(events[6]).to_dict() == unknown
    assert message_of(events).content[1].text == "".join(WORDS)  # type: ignore[union-attr]
    assert text_of(events[6]) == ""


@pytest.mark.parametrize("then_bytes", [0, 5, 60])
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_an_answer_that_breaks_off_fails_with_what_came_before(
    playhead: Playhead, client: AsyncAnthropic, server: ProviderServer, how: str, then_bytes: int
) -> None:
    server.serve(Cut(8, then_bytes=then_bytes, how=how))
    events, outcome = await recorded(playhead, anthropic_messages(client, **ASKED))
    assert [event.json() for event in events] == server.events[:8]
    expected = {
        "reset": "the connection to Anthropic broke (ReadError)",
        "end": "Anthropic ended the answer in the middle, without message_stop",
    }
    assert (outcome.kind, outcome.error) == (OutcomeKind.FAILED, expected[how])
    assert len(server.requests) == 1, "half an answer was asked for again"


async def test_an_error_inside_the_stream_fails_in_the_providers_words(
    playhead: Playhead, client: AsyncAnthropic, server: ProviderServer
) -> None:
    problem = {"type": "overloaded_error", "message": f"Overloaded; key {KEY}"}
    server.events[3:] = [{"type": "error", "error": problem}]
    events, outcome = await recorded(playhead, anthropic_messages(client, **ASKED))
    assert len(events) == 3
    assert outcome.error == "Anthropic ended the answer with an error (overloaded_error): Overloaded; key ***"


@pytest.mark.parametrize("status", [400, 401, 429, 529])
async def test_a_refusal_fails_without_secrets(
    playhead: Playhead,
    client: AsyncAnthropic,
    server: ProviderServer,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.serve(Cut(status=status, words=f"not with {KEY}"))
    with caplog.at_level(logging.DEBUG, "playhead"):
        events, outcome = await recorded(playhead, anthropic_messages(client, **ASKED))
    assert (events, outcome.kind) == ([], OutcomeKind.FAILED)
    kind = "rate_limit_error" if status == 429 else "server_error"
    assert outcome.error.startswith(f"Anthropic refused with HTTP {status} ({kind}): not with ***")
    assert not [record for record in caplog.records if KEY in record.getMessage() or record.exc_info]


def test_a_client_that_blocks_is_refused_at_once() -> None:
    with Anthropic(api_key=KEY) as blocking, pytest.raises(TypeError, match="AsyncAnthropic"):
        anthropic_messages(blocking, **ASKED)  # type: ignore[arg-type]


async def test_a_source_of_ones_own_may_catch_what_happened(client: AsyncAnthropic, server: ProviderServer) -> None:
    server.serve(Cut(status=429))
    with pytest.raises(ProviderError) as caught:
        _ = [event async for event in anthropic_messages(client, **ASKED)]
    assert (caught.value.provider, caught.value.status) == ("Anthropic", 429)


@pytest.mark.parametrize("sent", [0, 8])
async def test_a_cancel_closes_the_request_and_keeps_what_came(
    playhead: Playhead, client: AsyncAnthropic, server: ProviderServer, sent: int
) -> None:
    server.serve(Cut(sent, how="hold"))
    info = await playhead.start(anthropic_messages(client, **ASKED))
    await server.until(lambda: bool(server.requests))
    await has_stored(playhead, info.stream_id, sent)
    await playhead.cancel(info.stream_id)
    await server.until(lambda: server.requests[0].disconnected)
    events = await follow(playhead, info.stream_id)
    assert [event.json() for event in events] == server.events[:sent]
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
