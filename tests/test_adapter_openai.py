"""OpenAI's chat completions as a durable stream: whole chunks, clear endings, no secrets."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from provider_fixtures import make_store, patient_playhead  # noqa: F401 - fixtures
from provider_server import Cut, ProviderServer, chat_chunks
from streaming import finished, follow, has_stored

from playhead import Event, OutcomeKind, Playhead
from playhead.adapters.openai import (
    ProviderError,
    chat_completion_of,
    chunk_of,
    openai_chat,
    openai_responses,
    resume_response,
    text_of,
    usage_of,
)
from playhead.adapters.provider_errors import without_secrets

WORDS = ["Once ", "upon é ", "日本 ", "🛹🛹"]
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "clock", "arguments": ""}}
CALLS = [
    {"tool_calls": [CALL]},
    *[{"tool_calls": [{"index": 0, "function": {"arguments": a}}]} for a in ('{"a', '":1}')],
]
DELTAS = [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, *[{"content": w} for w in WORDS], *CALLS]
KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(chat_chunks(DELTAS, finish_reason="tool_calls")) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: ProviderServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: AsyncOpenAI, **params: Any) -> Any:
    return openai_chat(client, model="local", messages=[{"role": "user", "content": "Tell me"}], **params)


async def recorded(playhead: Playhead, source: Any) -> tuple[list[Event], Any]:
    """All events of a source's stream, and the outcome."""
    info = await playhead.start(source)
    return await follow(playhead, info.stream_id), await finished(playhead, info.stream_id)


async def test_three_lines_make_a_chat_durable(playhead: Playhead, client: AsyncOpenAI, server: ProviderServer) -> None:
    events, outcome = await recorded(playhead, ask(client))
    assert outcome.kind is OutcomeKind.COMPLETED
    assert [event.json() for event in events] == server.events
    assert {event.type for event in events} == {"chat.completion.chunk"}
    assert [text_of(event) for event in events] == ["", "", *WORDS, "", "", "", "", ""]
    assert [usage_of(event) for event in events] == [None] * 10 + [server.events[-1]["usage"]]
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


async def test_chunks_come_back_as_the_clients_own_objects(playhead: Playhead, client: AsyncOpenAI) -> None:
    live = [c async for c in await client.chat.completions.create(model="local", messages=[], stream=True)]
    events, _ = await recorded(playhead, ask(client))
    assert [chunk_of(event) for event in events] == live
    assert chunk_of(events[1]).choices[0].delta.model_extra == {"reasoning_content": "hm"}


async def test_the_whole_answer_is_joined_by_the_clients_own_code(playhead: Playhead, client: AsyncOpenAI) -> None:
    events, _ = await recorded(playhead, ask(client))
    answer = chat_completion_of(events)
    message = answer.choices[0].message
    assert message.content == "".join(WORDS)
    assert message.tool_calls is not None
    assert (message.tool_calls[0].id, message.tool_calls[0].function.arguments) == ("call_1", '{"a":1}')
    assert (answer.choices[0].finish_reason, answer.usage and answer.usage.total_tokens) == ("tool_calls", 8)
    half = chat_completion_of(events[:4])
    assert (half.choices[0].message.content, half.choices[0].finish_reason) == ("Once upon é ", None)
    with pytest.raises(ValueError, match=r"no chat\.completion\.chunk"):
        chat_completion_of([Event(1, "text", b"x")])


async def test_usage_is_not_asked_for_when_the_server_must_not_see_that(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.events = chat_chunks(DELTAS[2:4], usage=False)
    _, outcome = await recorded(playhead, ask(client, stream_options=openai.omit))
    assert outcome.kind is OutcomeKind.COMPLETED
    assert "stream_options" not in server.requests[0].body


async def test_halves_of_a_character_that_come_one_by_one_are_kept(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.events = chat_chunks([{"content": "\ud83d"}, {"content": "\udef9"}])
    events, outcome = await recorded(playhead, ask(client))
    assert outcome.kind is OutcomeKind.COMPLETED
    assert [text_of(event) for event in events[:2]] == ["\ud83d", "\udef9"]


async def test_a_start_that_is_repeated_asks_the_provider_once(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    starts = [await playhead.start(ask(client), idempotency_key="k", owner="ann") for _ in range(3)]
    assert len({info.stream_id for info in starts}) == 1
    await follow(playhead, starts[0].stream_id, principal="ann")
    assert len(server.requests) == 1


@pytest.mark.parametrize("then_bytes", [0, 5, 60])
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_an_answer_that_breaks_off_fails_with_what_came_before(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, how: str, then_bytes: int
) -> None:
    server.serve(Cut(4, then_bytes=then_bytes, how=how))
    events, outcome = await recorded(playhead, ask(client))
    assert [event.json() for event in events] == server.events[:4]
    assert outcome.kind is OutcomeKind.FAILED
    expected = {
        "reset": "the connection to OpenAI broke (ReadError)",
        "end": "OpenAI ended the answer in the middle, without a finish reason",
    }
    assert outcome.error == expected[how]
    assert len(server.requests) == 1, "half an answer was asked for again"


async def test_a_second_answer_that_breaks_off_fails_too(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    whole, half = chat_chunks([{"content": "a"}], usage=False), chat_chunks([{"content": "b"}], usage=False)[:1]
    half[0]["choices"][0]["index"] = 1
    server.events = [*half, *whole]
    events, outcome = await recorded(playhead, ask(client, n=2))
    assert outcome.kind is OutcomeKind.FAILED
    assert [text_of(event) for event in events] == ["", "a", ""]


async def test_an_error_inside_the_stream_fails_in_the_providers_words(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.events[3:] = [{"error": {"message": f"overloaded; key {KEY}", "code": "overloaded", "type": "server_error"}}]
    events, outcome = await recorded(playhead, ask(client))
    assert len(events) == 3
    assert outcome.error == "OpenAI ended the answer with an error (overloaded): overloaded; key ***"


@pytest.mark.parametrize("status", [400, 401, 429, 503])
async def test_a_refusal_fails_without_secrets(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    other = "gateway-secret-77"
    server.serve(Cut(status=status, words=f"not with {KEY}, Bearer {other} or sk-proj-******************abcd"))
    with caplog.at_level(logging.DEBUG, "playhead"):
        events, outcome = await recorded(playhead, ask(client, extra_headers={"X-Gateway-Key": other}))
    assert events == []
    kind = "rate_limit_error" if status == 429 else "server_error"
    assert outcome.kind is OutcomeKind.FAILED
    assert (
        outcome.error == f"OpenAI refused with HTTP {status} ({kind}): not with ***, Bearer *** or *** [request req_7]"
    )
    assert not [record for record in caplog.records if KEY in record.getMessage() or other in str(record.exc_info)]


async def test_a_client_that_blocks_is_refused_at_once() -> None:
    with openai.OpenAI(api_key=KEY) as blocking:
        for call in (ask, lambda client: openai_responses(client, model="m"), lambda c: resume_response(c, "resp_1")):
            with pytest.raises(TypeError, match="AsyncOpenAI"):
                call(blocking)  # type: ignore[no-untyped-call]


async def test_what_the_client_itself_cannot_do_is_a_clear_failure(playhead: Playhead) -> None:
    async with AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key=lambda: None) as client:  # type: ignore[arg-type,return-value]
        _, outcome = await recorded(playhead, ask(client))
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error is not None


async def test_content_in_blocks_is_text_too(playhead: Playhead, client: AsyncOpenAI, server: ProviderServer) -> None:
    """As Mistral's reasoning models send it."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    server.events = chat_chunks([{"content": [thinking]}, {"content": [{"type": "text", "text": "Yes."}]}])
    events, _ = await recorded(playhead, ask(client))
    assert [text_of(event) for event in events[:2]] == ["", "Yes."]


async def test_a_source_of_ones_own_may_catch_what_happened(client: AsyncOpenAI, server: ProviderServer) -> None:
    server.serve(Cut(status=429))
    with pytest.raises(ProviderError) as caught:
        _ = [event async for event in ask(client)]
    assert (caught.value.provider, caught.value.status, caught.value.request_id) == ("OpenAI", 429, "req_7")
    assert caught.value.__suppress_context__


async def test_an_opening_that_is_refused_is_tried_again_by_the_client(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(status=429, retry_after_s=0.01), Cut(status=503, retry_after_s=0.01))
    _, outcome = await recorded(playhead, ask(client.with_options(max_retries=2)))
    assert outcome.kind is OutcomeKind.COMPLETED
    assert len(server.requests) == 3


async def test_no_server_at_all_is_a_clear_failure(playhead: Playhead) -> None:
    async with AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0) as client:
        _, outcome = await recorded(playhead, ask(client))
    assert outcome.error == "the connection to OpenAI broke (ConnectError)"


@pytest.mark.parametrize("sent", [0, 5])
async def test_a_cancel_closes_the_request_and_keeps_what_came(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, sent: int
) -> None:
    server.serve(Cut(sent, how="hold"))
    info = await playhead.start(ask(client))
    await server.until(lambda: bool(server.requests))
    await has_stored(playhead, info.stream_id, sent)
    await playhead.cancel(info.stream_id)
    await server.until(lambda: server.requests[0].disconnected)
    events = await follow(playhead, info.stream_id)
    assert [event.json() for event in events] == server.events[:sent]
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert not client.is_closed()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Incorrect API key provided: sk-proj-abcdefghijkl1234.", "Incorrect API key provided: ***."),
        ("at https://user:pass@host/v1?key=abc&x=1", "at https://***@host/v1?key=***&x=1"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: ***"),
        ("a skating-competition is no key, nor is a task-oriented-dialogue", None),
        ("my secret is hunter22", "my secret is ***"),
    ],
)
def test_what_looks_like_a_key_is_struck_out(text: str, expected: str | None) -> None:
    assert without_secrets(text, ["hunter22", "is"]) == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("adapter", "package"), [("openai", "openai"), ("anthropic", "anthropic"), ("langgraph", "langgraph")]
)
def test_an_adapter_without_its_extra_says_what_to_install(adapter: str, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import playhead.adapters.{adapter}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"pip install 'playhead[{adapter}]'" in done.stderr.splitlines()[-1]


def test_the_adapter_for_starlette_without_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['starlette'] = None; import playhead.adapters.starlette"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.splitlines()[-1].endswith("is not installed: pip install starlette (or fastapi)")
