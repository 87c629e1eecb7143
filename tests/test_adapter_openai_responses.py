"""OpenAI's Responses API as a durable stream, over real sockets that break: nothing lost, nothing twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from provider_fixtures import make_store, patient_playhead  # noqa: F401 - fixtures
from provider_server import RESPONSE_ID, USAGE, Cut, ProviderServer, response_events
from streaming import finished, follow, has_stored, until

from playhead import Event, OutcomeKind, Playhead
from playhead.adapters.openai import (
    background,
    openai_responses,
    patience,
    response_event_of,
    resume_response,
    text_of,
    usage_of,
)

WORDS = [f"word{number} é日🛹 " for number in range(40)]
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(patience, "RETRY_MAX_S", 0.05)


@pytest.fixture(autouse=True)
def _long_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cancel does at the provider is not cut short where the machine stalls."""
    monkeypatch.setattr(background, "_STOP_S", 60.0)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer(response_events(WORDS)) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: ProviderServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: AsyncOpenAI, **params: Any) -> Any:
    return openai_responses(client, model="local", input="Tell me", **{"background": True, **params})


def said(events: list[Event]) -> list[str]:
    return [text for event in events if (text := text_of(event))]


def numbers(events: list[Event]) -> list[int]:
    return [event.json()["sequence_number"] for event in events]


async def test_three_lines_make_a_response_durable(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    info = await playhead.start(openai_responses(client, model="local", input="Tell me"))
    events = await follow(playhead, info.stream_id)
    assert said(events) == WORDS
    assert [event.json() for event in events] == server.events
    assert [event.type for event in events] == [event["type"] for event in server.events]
    assert usage_of(events[-1]) == USAGE
    assert [usage_of(event) for event in events[:-1]] == [None] * (len(events) - 1)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    sent = server.requests[0].body
    assert (sent["stream"], sent["input"], "background" in sent, "patience_s" in sent) == (
        True,
        "Tell me",
        False,
        False,
    )


async def test_events_come_back_as_the_clients_own_objects(playhead: Playhead, client: AsyncOpenAI) -> None:
    live = [event async for event in await client.responses.create(model="local", input="x", stream=True)]
    info = await playhead.start(ask(client))
    recorded = [response_event_of(event) for event in await follow(playhead, info.stream_id)]
    assert recorded == live
    assert isinstance(recorded[2], ResponseTextDeltaEvent)


async def test_an_event_that_the_client_does_not_know_is_kept_as_it_came(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.events[2] = {"type": "response.dreaming.delta", "dream": {"of": [1.5, None, "é"]}, "sequence_number": 2}
    info = await playhead.start(ask(client))
    event = (await follow(playhead, info.stream_id))[2]
    assert event.json() == server.events[2]
    assert response_event_of(event).to_dict() == server.events[2]
    assert text_of(event) == ""


async def test_function_calls_and_reasoning_are_recorded_and_are_not_text(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    calls: list[dict[str, Any]] = [
        {"type": "response.reasoning_summary_text.delta", "delta": "hm", "item_id": "r", "output_index": 0},
        {"type": "response.function_call_arguments.delta", "delta": '{"a"', "item_id": "f", "output_index": 1},
        {"type": "response.refusal.delta", "delta": "no", "item_id": "m", "output_index": 2},
    ]
    server.events[2:5] = [{**call, "sequence_number": 2 + at} for at, call in enumerate(calls)]
    info = await playhead.start(ask(client))
    events = await follow(playhead, info.stream_id)
    assert [event.type for event in events[2:5]] == [call["type"] for call in calls]
    assert said(events) == WORDS[3:]


@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_lost_connection_is_taken_up_again_without_a_gap_or_a_repeat(
    open_playhead: Any, client: AsyncOpenAI, server: ProviderServer, how: str
) -> None:
    """Cut after every few events, at every kind of place: between frames, in the name, in the data, in a character."""
    playhead = await open_playhead()
    places = [0, 3, 9, 40, 80, 131, 140, 150]
    server.serve(*[Cut(3, then_bytes=places[at % len(places)], how=how) for at in range(12)])
    info = await playhead.start(ask(client))
    events = await follow(playhead, info.stream_id)
    assert numbers(events) == list(range(len(server.events)))
    assert [event.json() for event in events] == server.events
    assert said(events) == WORDS
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    again = server.asked("starting_after")
    assert [request.path for request in again][:2] == [
        f"/v1/responses/{RESPONSE_ID}?starting_after={after}&stream=true" for after in (2, 5)
    ]
    assert len(again) == 12
    assert len([request for request in server.requests if request.path == "/v1/responses"]) == 1
    assert not server.asked("cancel")


async def test_a_server_that_starts_over_repeats_nothing(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(20), Cut(30, ignores_cursor=True), Cut(ignores_cursor=True))
    info = await playhead.start(ask(client))
    assert numbers(await follow(playhead, info.stream_id)) == list(range(len(server.events)))


async def test_a_server_that_jumps_over_events_is_asked_again(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(20), Cut(jumps=2), Cut(jumps=1))
    info = await playhead.start(ask(client))
    assert numbers(await follow(playhead, info.stream_id)) == list(range(len(server.events)))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_an_attach_that_is_refused_for_now_is_tried_again(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, status: int
) -> None:
    server.serve(Cut(5), Cut(status=status), Cut(status=status, retry_after_s=0.2))
    info = await playhead.start(ask(client))
    begun = asyncio.get_running_loop().time()
    assert numbers(await follow(playhead, info.stream_id)) == list(range(len(server.events)))
    assert asyncio.get_running_loop().time() - begun >= 0.2, "Retry-After was not obeyed"
    assert len(server.asked("starting_after=4")) == 3


async def test_an_attach_that_is_refused_for_good_fails_the_stream(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(5), Cut(status=404, words=f"no such response; your key is {KEY}"))
    info = await playhead.start(ask(client))
    assert numbers(await follow(playhead, info.stream_id)) == [0, 1, 2, 3, 4]
    outcome = await finished(playhead, info.stream_id)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error == (
        "OpenAI refused with HTTP 404 (server_error): no such response; your key is *** [request req_7]"
    )


async def test_patience_ends(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the pauses count as time, so that a machine that stalls does not use patience up.
    real, spent_s = patience.Patience.pause_s, 0.0

    def counted(self: patience.Patience, error: Exception, **_: float) -> float | None:
        nonlocal spent_s
        pause_s = real(self, error, opened_at=spent_s, now=spent_s)
        spent_s += pause_s or 0.0
        return pause_s

    monkeypatch.setattr(patience.Patience, "pause_s", counted)
    server.serve(Cut(5), *[Cut(0)] * 200)
    info = await playhead.start(ask(client, patience_s=0.3))
    assert numbers(await follow(playhead, info.stream_id)) == [0, 1, 2, 3, 4]
    outcome = await finished(playhead, info.stream_id)
    assert outcome.kind is OutcomeKind.FAILED
    assert "connection to OpenAI broke" in outcome.error
    assert 3 < len(server.asked("starting_after")) < 100


async def test_patience_begins_anew_with_each_event(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_FIRST_S", 0.1)
    monkeypatch.setattr(patience, "RETRY_MAX_S", 10.0)
    server.serve(Cut(3, silent_s=1.2), *[Cut(1)] * 6)
    info = await playhead.start(ask(client, patience_s=1.0))
    assert numbers(await follow(playhead, info.stream_id)) == list(range(len(server.events)))
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED


async def test_without_background_a_lost_connection_fails_at_once(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(6, then_bytes=20))
    info = await playhead.start(ask(client, background=False))
    assert said(await follow(playhead, info.stream_id)) == WORDS[:4]
    outcome = await finished(playhead, info.stream_id)
    assert (outcome.kind, outcome.error[:31]) == (OutcomeKind.FAILED, "the connection to OpenAI broke ")
    assert len(server.requests) == 1


@pytest.mark.parametrize("then", ["first event", "middle"])
async def test_a_cancel_of_the_stream_cancels_the_response(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, then: str
) -> None:
    sent = 0 if then == "first event" else 7
    server.serve(Cut(sent, how="hold"))
    info = await playhead.start(ask(client))
    if sent:
        await has_stored(playhead, info.stream_id, sent)
    else:
        await server.until(lambda: bool(server.requests))
    await playhead.cancel(info.stream_id)
    if not sent:
        # The provider is on it, and we do not know its id yet: it is waited for, then cancelled.
        await until(lambda: playhead._producers[info.stream_id]._stop is not None)
        server.release()
    events = await follow(playhead, info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    await server.until(lambda: len(server.asked("/cancel")) == 1)
    assert said(events) == WORDS[: max(sent - 2, 0)]
    assert server.requests[0].disconnected or not sent


async def test_a_cancel_while_attaching_cancels_the_response(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(Cut(5), Cut(0, how="hold"))
    info = await playhead.start(ask(client))
    await server.until(lambda: len(server.asked("starting_after")) == 1)
    await playhead.cancel(info.stream_id)
    assert numbers(await follow(playhead, info.stream_id)) == [0, 1, 2, 3, 4]
    await server.until(lambda: len(server.asked("/cancel")) == 1 and server.asked("starting_after")[0].disconnected)


async def test_a_cancel_in_a_pause_cancels_the_response(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.serve(Cut(5), Cut(status=503, retry_after_s=60, words=f"busy, key {KEY}"))
    info = await playhead.start(ask(client))
    await until(lambda: "again in 60.0 s" in caplog.text)
    assert KEY not in caplog.text
    await playhead.cancel(info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    await server.until(lambda: len(server.asked("/cancel")) == 1)


async def test_a_provider_that_does_not_take_the_cancel_does_not_hold_the_stream(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.serve(Cut(5, how="hold"))
    server.refuses_cancel = True
    info = await playhead.start(ask(client))
    await has_stored(playhead, info.stream_id, 5)
    await playhead.cancel(info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert "resp_1: not cancelled there: OpenAI refused with HTTP 404" in caplog.text


async def test_a_response_outlives_a_shutdown_and_goes_on_in_a_new_stream(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(5, how="hold"))
    info = await playhead.start(ask(client))
    await has_stored(playhead, info.stream_id, 5)
    await playhead.close()
    await server.until(lambda: server.requests[0].disconnected)
    assert not server.asked("/cancel")
    await playhead.connect()
    assert (await finished(playhead, info.stream_id)).reason == "shutdown"
    before = await follow(playhead, info.stream_id)
    again = await playhead.start(resume_response(client, RESPONSE_ID, starting_after=numbers(before)[-1]))
    assert said([*before, *(await follow(playhead, again.stream_id))]) == WORDS


async def test_a_response_whose_stream_was_taken_over_is_left_to_who_took_it(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(5, how="hold"))
    info = await playhead.start(ask(client))
    await has_stored(playhead, info.stream_id, 5)
    async with await playhead.produce(info.stream_id, take_over=True) as taken:
        await server.until(lambda: server.requests[0].disconnected)
        assert not server.asked("/cancel")
        await taken.append("mine")


async def test_a_response_that_nobody_knows_yet_ends_with_its_process(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(0, how="hold"))
    await playhead.start(ask(client))
    await server.until(lambda: bool(server.requests))
    closing = asyncio.create_task(playhead.drain(0))
    await asyncio.sleep(0)
    server.release()
    await closing
    await server.until(lambda: len(server.asked("/cancel")) == 1)


async def test_a_cancel_without_background_closes_the_request_only(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(7, how="hold"))
    info = await playhead.start(ask(client, background=False))
    await has_stored(playhead, info.stream_id, 7)
    await playhead.cancel(info.stream_id)
    await server.until(lambda: server.requests[0].disconnected)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert not server.asked("/cancel")


async def test_a_proxy_that_answers_with_a_page_of_its_own_is_no_end(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.answers_with_a_page = True  # to the question for the response's state
    server.serve(Cut(5, how="end"))
    info = await playhead.start(ask(client))
    assert said(await follow(playhead, info.stream_id)) == WORDS
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED


async def test_a_response_that_was_cancelled_at_the_provider_ends_the_stream(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.status = "cancelled"
    server.serve(Cut(5, how="end"))
    info = await playhead.start(ask(client))
    await follow(playhead, info.stream_id)
    outcome = await finished(playhead, info.stream_id)
    assert (outcome.kind, outcome.error) == (OutcomeKind.FAILED, "the response was cancelled at the provider")


@pytest.mark.parametrize(
    ("end", "kind", "text"),
    [
        ("response.incomplete", OutcomeKind.COMPLETED, None),
        (
            "response.failed",
            OutcomeKind.FAILED,
            "OpenAI ended the answer with response.failed (server_error): it broke, key ***",
        ),
        ("error", OutcomeKind.FAILED, "OpenAI ended the answer with error (rate_limit_exceeded): slow down"),
    ],
)
async def test_bad_ends_are_failures_in_the_providers_words(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer, end: str, kind: OutcomeKind, text: str | None
) -> None:
    problem = {"code": "server_error", "message": f"it broke, key {KEY}"}
    server.events = response_events(WORDS, end=end, error=problem)
    if end == "error":
        last = {"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None}
        server.events[-1] = {**last, "sequence_number": server.events[-1]["sequence_number"]}
    info = await playhead.start(ask(client))
    events = await follow(playhead, info.stream_id)
    assert events[-1].json() == server.events[-1]
    outcome = await finished(playhead, info.stream_id)
    assert (outcome.kind, outcome.error) == (kind, text)
    assert len(server.requests) == 1, "a failed response was attached to again"


async def test_a_new_stream_takes_up_what_a_dead_producer_left(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(6, how="hold"), Cut(4))
    source = ask(client)
    had = [await anext(source) for _ in range(6)]
    info = await playhead.start(resume_response(client, RESPONSE_ID, starting_after=len(had) - 1))
    assert numbers(await follow(playhead, info.stream_id)) == list(range(6, len(server.events)))
    await source.aclose()


async def test_a_response_can_be_followed_from_its_first_event(
    playhead: Playhead, client: AsyncOpenAI, server: ProviderServer
) -> None:
    server.serve(Cut(0), Cut(4))
    info = await playhead.start(resume_response(client, RESPONSE_ID))
    assert numbers(await follow(playhead, info.stream_id)) == list(range(len(server.events)))


async def test_a_response_that_has_ended_is_not_cancelled(client: AsyncOpenAI, server: ProviderServer) -> None:
    source = ask(client)
    for _ in server.events:
        await anext(source)
    await source.aclose()
    assert not server.asked("/cancel")
    source = ask(client)
    await anext(source)
    await source.aclose()
    assert len(server.asked("/cancel")) == 1


def test_a_connection_that_held_long_begins_patience_anew() -> None:
    trying = patience.Patience(5.0)
    error = patience.Lost("x")
    assert trying.pause_s(error, opened_at=0.0, now=0.0) is not None
    assert trying.pause_s(error, opened_at=0.0, now=4.0) is not None
    assert trying.pause_s(error, opened_at=0.0, now=9.9) is None
    assert trying.pause_s(error, opened_at=0.0, now=patience.STEADY_S) is not None
    assert trying.pause_s(RuntimeError("x"), opened_at=0.0, now=100.0) is None


async def test_pauses_double_are_jittered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    error = patience.Lost("x")
    for pauses, longest_s in enumerate([0.25, 0.5, 1, 2, 4, 8, 15, 15]):
        drawn = [patience.jittered_s(pauses, error) for _ in range(200)]
        assert longest_s / 2 <= min(drawn) < max(drawn) <= longest_s
        assert len(set(drawn)) > 100
