"""Microsoft Agent Framework: real worker, entities and client on the framework's in-memory backend, over SQLite.

Worker, client and reader are in this process; test_agent_framework_processes.py has them in processes of their own.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from agent_framework_hosting import AGENT, Asker, running_backend, running_worker
from agent_framework_scripted import KEY, ScriptedChatClient, scripted_agent, words
from redis_server import free_port
from streaming import until

from playhead import CursorOfAnotherStream, Options, OutcomeKind, Playhead
from playhead.adapters.agent_framework import (
    AgentStreamReader,
    PlayheadAgentWorker,
    PlayheadResponseCallback,
    StreamChunk,
    agent_response_of,
    stopping,
)
from playhead.errors import BadRequest, Conflict, Draining, StoreError
from playhead.model import Outcome

PATIENCE_S = 60.0

Serve = Callable[..., ScriptedChatClient]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture(scope="module")
def later() -> Iterator[ThreadPoolExecutor]:
    """What the framework takes its time for, while the next tests run; all done after the last one."""
    with ThreadPoolExecutor(64) as threads:
        yield threads


@pytest.fixture
def stops() -> list[Future[None]]:
    return []


@pytest.fixture
def backend(later: ThreadPoolExecutor, stops: list[Future[None]]) -> Iterator[str]:
    backend = running_backend()
    yield backend.__enter__()

    def stop() -> None:
        wait(stops)
        backend.__exit__(None, None, None)

    later.submit(stop)


@pytest.fixture
def asker(backend: str) -> Iterator[Asker]:
    with Asker(backend) as asking:
        yield asking


@pytest.fixture
def serve(backend: str, store: str, later: ThreadPoolExecutor, stops: list[Future[None]]) -> Iterator[Serve]:
    """Begin a worker; gives its model."""

    def stop(what: Callable[[], None]) -> None:
        stops.append(later.submit(what))

    with ExitStack() as workers:

        def begin(*names: str, recorded: bool = True, **settings: Any) -> ScriptedChatClient:
            model = ScriptedChatClient()
            agents = [scripted_agent(name, model) for name in names or (AGENT,)]
            callback = PlayheadResponseCallback(store, **settings)
            workers.enter_context(running_worker(backend, callback, *agents, recorded=recorded, stop=stop))
            return model

        yield begin


@pytest_asyncio.fixture
async def reader(store: str) -> AsyncIterator[AgentStreamReader]:
    async with AgentStreamReader(store, starts_within_s=PATIENCE_S) as reading:
        yield reading


async def read(reader: AgentStreamReader, session: Any, cursor: str | None = None, **which: Any) -> list[StreamChunk]:
    async with asyncio.timeout(2 * PATIENCE_S):
        chunks = [chunk async for chunk in reader.read_stream(session, cursor, **which)]
    assert [chunk.is_done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return chunks


async def read_until(reader: AgentStreamReader, session: Any, text: str) -> list[StreamChunk]:
    """What there is up to a piece of text; then the reader leaves."""
    chunks = []
    async with asyncio.timeout(PATIENCE_S), aclosing(reader.read_stream(session)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if chunk.text == text:
                return chunks
    raise AssertionError(f"{text!r} was not said: {chunks}")


def text_of(chunks: list[StreamChunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def said(count: int) -> str:
    return "".join(words(count))


both = pytest.mark.parametrize("recorded", [True, False], ids=["our-worker", "their-worker"])


@both
async def test_a_run_is_recorded_whole(serve: Serve, asker: Asker, reader: AgentStreamReader, recorded: bool) -> None:
    serve(recorded=recorded)
    correlation_id = asker.ask("say:2 think tool:Oslo say:3 usage", "whole")
    chunks = await read(reader, "whole")
    assert text_of(chunks) == said(2) + said(3)
    last = chunks[-1]
    assert (last.error, last.outcome and last.outcome.kind, last.text) == (None, OutcomeKind.COMPLETED, "")
    assert {chunk.correlation_id for chunk in chunks} == {correlation_id}
    assert [chunk.type for chunk in chunks if chunk.type not in ("text", "agent.message")] == [
        *("text_reasoning", "function_call", "function_call", "function_result", "usage", "agent.update", "close")
    ]
    response = agent_response_of(chunk.event for chunk in chunks if chunk.event)
    assert [(message.role, [content.type for content in message.contents]) for message in response.messages] == [
        ("assistant", ["text", "text_reasoning", "function_call"]),
        ("tool", ["function_result"]),
        ("assistant", ["text"]),
    ]
    call = response.messages[0].contents[2]
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Oslo"}')
    assert response.messages[1].contents[0].result == "Oslo: sunny"
    assert response.usage_details == {"input_token_count": 3, "output_token_count": 5}
    assert (response.finish_reason, response.messages[2].author_name) == ("stop", AGENT)
    updates = [chunk.update for chunk in chunks]
    assert "".join(update.text for update in updates if update is not None) == text_of(chunks)


@both
async def test_a_reader_goes_on_from_every_cursor(
    serve: Serve, asker: Asker, reader: AgentStreamReader, store: str, recorded: bool
) -> None:
    serve(recorded=recorded)
    asker.ask("say:4 tool:Oslo say:4", "resume")
    chunks = await read(reader, "resume")
    for place, chunk in enumerate(chunks[:-1]):
        async with AgentStreamReader(store) as another:
            assert await read(another, "resume", chunk.cursor) == chunks[place + 1 :]


async def test_what_is_read_live_is_what_is_stored(
    serve: Serve, asker: Asker, reader: AgentStreamReader, tmp_path: Path
) -> None:
    serve()
    correlation_id = asker.ask(f"say:3 wait:{tmp_path}/go say:30", "live")
    begun = await read_until(reader, "live", "w3 ")
    (tmp_path / "go").touch()
    rest = await read(reader, "live", begun[-1].cursor)
    assert begun + rest == await read(reader, "live", correlation_id=correlation_id)
    assert text_of(begun + rest) == said(3) + said(30)


@both
async def test_a_second_turn_never_mixes_with_the_first(
    serve: Serve, asker: Asker, reader: AgentStreamReader, store: str, recorded: bool
) -> None:
    model = serve(recorded=recorded)
    first_id = asker.ask("say:3", "turns")
    first = await read(reader, "turns")
    second_id = asker.ask("say:5", "turns")
    second = await read(reader, "turns")
    assert (text_of(first), text_of(second)) == (said(3), said(5))
    assert model.asked[1][0] == [("user", "say:3"), ("assistant", said(3)), ("user", "say:5")]
    async with AgentStreamReader(store) as another:
        assert await read(another, "turns", first[-1].cursor) == second
        assert await read(another, "turns", correlation_id=first_id) == first
        assert await read(another, "turns", correlation_id=second_id) == second
    async with AgentStreamReader(store) as another:
        assert await read(another, "turns") == second


async def test_a_reader_waits_for_the_turn_that_is_to_come(
    serve: Serve, asker: Asker, reader: AgentStreamReader, store: str
) -> None:
    waiting = asyncio.create_task(read(reader, "early"))
    await until(lambda: bool(reader._playhead._news._told))
    serve()
    asker.ask("say:2", "early")
    first = await waiting
    async with AgentStreamReader(store, starts_within_s=PATIENCE_S) as another:
        waiting = asyncio.create_task(read(another, "early", first[-1].cursor))
        await until(lambda: bool(another._playhead._news._told))
        asker.ask("say:3", "early")
        assert text_of(await waiting) == said(3)
        assert not another._playhead._news._told


async def test_no_turn_is_passed_over(serve: Serve, asker: Asker, reader: AgentStreamReader, store: str) -> None:
    serve()
    asker.ask("say:1", "queue")
    first = await read(reader, "queue")
    ids = [asker.ask(f"say:{count}", "queue") for count in (2, 3, 4)]
    async with AgentStreamReader(store, starts_within_s=PATIENCE_S) as another:
        await read(another, "queue", correlation_id=ids[2])
        assert text_of(await read(another, "queue", first[-1].cursor)) == said(2)
    assert [text_of(await read(reader, "queue")) for _ in range(2)] == [said(2), said(3)]
    assert text_of(await read(reader, "queue", correlation_id=ids[0])) == said(2)
    assert text_of(await read(reader, "queue")) == said(4)


async def test_waiting_has_a_limit(reader: AgentStreamReader) -> None:
    begin = time.monotonic()
    (chunk,) = await read(reader, "nobody", starts_within_s=0.3)
    assert 0.3 <= time.monotonic() - begin < PATIENCE_S
    assert (chunk.is_done, chunk.outcome, chunk.cursor) == (True, None, "")
    assert chunk.error is not None
    assert "no new run of session nobody has begun within 0.3 s" in chunk.error
    assert "runs.db" in chunk.error


async def test_two_sessions_at_once(serve: Serve, asker: Asker, reader: AgentStreamReader, tmp_path: Path) -> None:
    serve()
    for key in ("left", "right"):
        asker.ask(f"say:2 wait:{tmp_path}/{key} say:{len(key)}", key)
    reading = [asyncio.create_task(read(reader, key)) for key in ("left", "right")]
    await asyncio.gather(*(read_until(reader, key, "w2 ") for key in ("left", "right")))
    (tmp_path / "right").touch()
    assert text_of(await reading[1]) == said(2) + said(5)
    assert not reading[0].done()
    (tmp_path / "left").touch()
    assert text_of(await reading[0]) == said(2) + said(4)


async def test_two_agents_on_one_key_at_once(
    serve: Serve, asker: Asker, reader: AgentStreamReader, tmp_path: Path
) -> None:
    serve(AGENT, "Weather")
    asker.ask(f"say:2 wait:{tmp_path}/go", "shared")
    await read_until(reader, f"@{AGENT}@shared", "w2 ")
    asker.ask("say:7", "shared", agent="Weather")
    assert text_of(await read(reader, "@Weather@shared")) == said(7)
    (tmp_path / "go").touch()
    first = await read(reader, f"@{AGENT}@shared")
    assert (text_of(first), first[-1].error) == (said(2), None)


# ---- ends ------------------------------------------------------------------------------------------


@both
async def test_a_provider_error_ends_the_run(
    serve: Serve, asker: Asker, reader: AgentStreamReader, recorded: bool
) -> None:
    serve(recorded=recorded)
    asker.ask("say:3 fail", "broken")
    chunks = await read(reader, "broken")
    assert text_of(chunks) == said(3)
    assert chunks[-1].error == "failed: RuntimeError: the provider refused, key ***"
    asker.ask("say:2", "broken")
    assert text_of(await read(reader, "broken")) == said(2)


async def test_a_run_that_fails_before_its_first_word_is_known(
    serve: Serve, asker: Asker, reader: AgentStreamReader
) -> None:
    serve()
    asker.ask("fail", "at-once")
    (chunk,) = await read(reader, "at-once")
    assert chunk.error == "failed: RuntimeError: the provider refused, key ***"


async def test_their_worker_tells_nothing_of_a_run_that_fails_before_its_first_word(
    serve: Serve, asker: Asker, reader: AgentStreamReader
) -> None:
    serve(recorded=False)
    asker.ask("fail", "at-once-theirs")
    (chunk,) = await read(reader, "at-once-theirs", starts_within_s=1.0)
    assert chunk.outcome is None


@both
async def test_a_silent_retry_replaces_what_was_said(
    serve: Serve, asker: Asker, reader: AgentStreamReader, recorded: bool
) -> None:
    serve(recorded=recorded)
    asker.ask("say:3 retry:2", "retried")
    chunks = await read(reader, "retried")
    types = [chunk.type for chunk in chunks]
    replaced = types.index("agent.replaced")
    assert (text_of(chunks[:replaced]), text_of(chunks[replaced:])) == (said(3), said(2).upper())
    assert chunks[-1].error is None
    response = agent_response_of(chunk.event for chunk in chunks if chunk.event)
    assert (response.text, response.finish_reason) == (said(2).upper(), "stop")
    await until(lambda: response.text in asker_text(asker, "retried"))  # stored after its readers were told


@both
async def test_a_retry_before_the_first_word_replaces_nothing(
    serve: Serve, asker: Asker, reader: AgentStreamReader, recorded: bool
) -> None:
    serve(recorded=recorded)
    asker.ask("retry:2", "retried-at-once")
    chunks = await read(reader, "retried-at-once")
    assert text_of(chunks) == said(2).upper()
    assert "agent.replaced" not in [chunk.type for chunk in chunks]


@both
async def test_a_stalled_run_is_closed_in_time(
    serve: Serve, asker: Asker, reader: AgentStreamReader, tmp_path: Path, recorded: bool
) -> None:
    serve(recorded=recorded, stalled_after_s=3.0)  # a busy machine may need a second or two for a word
    asker.ask(f"say:2 wait:{tmp_path}/go say:9", "stalled")
    chunks = await read(reader, "stalled")
    assert text_of(chunks) == said(2)
    assert chunks[-1].error == "failed: the agent has said nothing for 3 s, and is taken for stalled"
    (tmp_path / "go").touch()
    asker.ask("say:1", "stalled")
    assert text_of(await read(reader, "stalled")) == said(1)
    async with AgentStreamReader(reader._place) as another:
        found = await another._playhead.live(("stalled",))
        assert not found


@both
async def test_the_same_request_delivered_again_is_recorded_once(
    serve: Serve, asker: Asker, reader: AgentStreamReader, recorded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = serve(recorded=recorded)
    asker.send("say:4", "again", "request-1")
    first = await read(reader, "again")
    asker.send("say:4", "again", "request-1")
    asker.send("say:1", "again", "request-2")
    assert text_of(await read(reader, "again")) == said(1)
    assert len(model.asked) == 3
    assert await read(reader, "again", correlation_id="request-1") == first
    assert text_of(first) == said(4)
    assert "delivered once more" in caplog.text


async def test_a_request_that_failed_is_recorded_again_when_it_is_delivered_again(
    serve: Serve, asker: Asker, reader: AgentStreamReader
) -> None:
    serve()
    asker.send("say:2 fail", "once-more", "request-3")
    assert "refused" in str((await read(reader, "once-more"))[-1].error)
    asker.send("say:4", "once-more", "request-3")
    again = await read(reader, "once-more")
    assert (text_of(again), again[-1].error) == (said(4), None)
    assert await read(reader, "once-more", correlation_id="request-3") == again


async def recorded(playhead: Playhead, stream_id: str, text: str, kind: OutcomeKind, thread_id: str = "s1") -> None:
    out = await playhead.produce(stream_id, thread_id=thread_id)
    await out.append(text)
    await out.close(Outcome(kind))


async def test_after_an_attempt_that_was_interrupted_the_next_one_of_the_same_request_is_read(store: str) -> None:
    async with Playhead.open(store) as playhead, AgentStreamReader(playhead, starts_within_s=15) as reader:
        await recorded(playhead, "request-4", "first ", OutcomeKind.INTERRUPTED)
        *_, end = await read(reader, "s1", correlation_id="request-4")
        assert (end.outcome and end.outcome.kind, end.error) == (OutcomeKind.INTERRUPTED, "interrupted")
        # None comes: once more the end that is known.
        assert await read(reader, "s1", end.cursor, correlation_id="request-4", starts_within_s=0.1) == [end]
        again = asyncio.create_task(read(reader, "s1", end.cursor, correlation_id="request-4"))
        await until(lambda: bool(playhead._news._told))
        await recorded(playhead, "request-5", "somebody else's", OutcomeKind.COMPLETED)
        await recorded(playhead, "request-4.2", "second", OutcomeKind.COMPLETED)
        chunks = await again
        assert (text_of(chunks), chunks[-1].error) == ("second", None)
        assert await read(reader, "s1", chunks[0].cursor, correlation_id="request-4") == chunks[1:]
        assert await read(reader, "s1", chunks[-1].cursor, correlation_id="request-4") == chunks[-1:]
        with pytest.raises(CursorOfAnotherStream, match="of no run of this request"):
            await read(reader, "s1", chunks[0].cursor, correlation_id="request-5")


async def test_who_waits_for_a_run_is_sent_away_when_his_process_shuts_down(store: str) -> None:
    async with Playhead.open(store) as playhead, AgentStreamReader(playhead, starts_within_s=5) as reader:
        waiting = asyncio.create_task(read(reader, "s1"))
        await until(lambda: bool(playhead._news._told))
        await playhead.drain(0)
        with pytest.raises(Draining, match="read again with the same cursor"):
            await waiting


async def test_a_request_of_another_session_is_neither_read_nor_cancelled(store: str) -> None:
    async with Playhead.open(store) as playhead, AgentStreamReader(playhead) as reader:
        out = await playhead.produce("request-6", thread_id="mine", metadata={"agent": AGENT})
        for session in ("yours", f"@{AGENT}@yours", "@Other@yours"):
            with pytest.raises(BadRequest, match="request-6 is none of session yours"):
                await read(reader, session, correlation_id="request-6")
            with pytest.raises(BadRequest):
                await reader.cancel(session, correlation_id="request-6")
        assert (await playhead.info("request-6")).cancel is None
        assert await reader.cancel("mine", correlation_id="request-6")
        await out.close(Outcome(OutcomeKind.CANCELLED))
        await recorded(playhead, "request-7", "a", OutcomeKind.COMPLETED, f"@{AGENT}@mine")
        with pytest.raises(BadRequest):  # on another agent's own thread; which one it is the reader cannot know
            await read(reader, "mine", correlation_id="request-7")
        assert text_of(await read(reader, f"@{AGENT}@mine", correlation_id="request-7")) == "a"


# ---- cancel ----------------------------------------------------------------------------------------


async def test_a_cancel_stops_the_agent_and_keeps_what_was_said(
    serve: Serve, asker: Asker, reader: AgentStreamReader
) -> None:
    model = serve()
    asker.ask("say:3 hang", "cancelled")
    await read_until(reader, "cancelled", "w3 ")
    assert await reader.cancel("cancelled", reason="enough")
    chunks = await read(reader, "cancelled")
    assert text_of(chunks) == said(3)
    assert (chunks[-1].error, chunks[-1].outcome and chunks[-1].outcome.kind) == (
        "cancelled: enough",
        OutcomeKind.CANCELLED,
    )
    assert not await reader.cancel("cancelled")
    asker.ask("say:1", "cancelled")  # would wait for ever behind a run that goes on
    assert text_of(await read(reader, "cancelled")) == said(1)
    assert model.asked[-1][0][1] == ("assistant", said(3))


async def test_a_cancel_before_the_first_word(serve: Serve, asker: Asker, reader: AgentStreamReader) -> None:
    model = serve()
    asker.ask("hang", "silent")
    await until(lambda: bool(model.asked))
    await until(lambda: reader.cancel("silent"))
    (chunk,) = await read(reader, "silent")
    assert chunk.error == "cancelled"
    asker.ask("say:1", "silent")
    assert text_of(await read(reader, "silent")) == said(1)
    assert model.asked[-1][0] == [("user", "hang"), ("user", "say:1")]


async def test_an_open_function_call_of_a_cancelled_run_is_left_out_of_the_history(
    backend: str, store: str, asker: Asker, reader: AgentStreamReader
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def get_weather(city: str) -> str:
        """Never comes back."""
        loop.call_soon_threadsafe(begun.set)
        await asyncio.Event().wait()
        return city

    model = ScriptedChatClient()
    agent = scripted_agent(client=model)
    agent.default_options["tools"] = []
    agent = type(agent)(client=model, name=AGENT, tools=[get_weather])
    with running_worker(backend, PlayheadResponseCallback(store), agent):
        asker.ask("say:2 tool:Oslo", "open-call")
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
        assert await reader.cancel("open-call")
        assert (await read(reader, "open-call"))[-1].error == "cancelled"
        asker.ask("say:1", "open-call")
        await read(reader, "open-call")
    assert model.asked[-1][0] == [("user", "say:2 tool:Oslo"), ("assistant", said(2)), ("user", "say:1")]
    assert "functionCall" not in asker.state("open-call")


async def test_a_cancel_without_our_worker_ends_the_recording_only(
    serve: Serve, asker: Asker, reader: AgentStreamReader, tmp_path: Path
) -> None:
    serve(recorded=False)
    asker.ask(f"say:2 wait:{tmp_path}/go say:5", "unheard")
    await read_until(reader, "unheard", "w2 ")
    assert await reader.cancel("unheard")
    chunks = await read(reader, "unheard")
    assert (text_of(chunks), chunks[-1].error) == (said(2), "cancelled")
    (tmp_path / "go").touch()
    asker.ask("say:1", "unheard")
    assert text_of(await read(reader, "unheard")) == said(1)
    assert said(2) + said(5) in asker_text(asker, "unheard")


async def test_a_request_is_cancelled_before_a_worker_has_it(
    serve: Serve, asker: Asker, reader: AgentStreamReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The agent waits so long for the recorder, which opens its store for the first time.
    monkeypatch.setattr("playhead.adapters.agent_framework.callback._BEGUN_WITHIN_S", PATIENCE_S)
    correlation_id = asker.ask("say:5", "queued")
    assert await reader.cancel("queued", correlation_id=correlation_id)
    assert not await reader.cancel("queued", correlation_id=correlation_id)
    model = serve()
    (chunk,) = await read(reader, "queued", correlation_id=correlation_id)
    assert chunk.error == "cancelled"
    asker.ask("say:1", "queued")
    assert text_of(await read(reader, "queued")) == said(1)
    assert [asked for asked in model.asked if asked[0][-1] == ("user", "say:5")] in ([], model.asked[:1])
    assert said(5) not in asker_text(asker, "queued")


async def test_an_agent_that_ignores_its_cancel_is_left_behind(
    serve: Serve,
    asker: Asker,
    reader: AgentStreamReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", 0.2)
    serve()
    asker.ask(f"say:2 stubborn:{tmp_path}/go", "stubborn")
    await read_until(reader, "stubborn", "w2 ")
    assert await reader.cancel("stubborn")
    assert (await read(reader, "stubborn"))[-1].error == "cancelled"
    asker.ask("say:1", "stubborn")
    assert text_of(await read(reader, "stubborn")) == said(1)
    assert "goes on all the same" in caplog.text
    assert len(stopping._left_behind) == 1
    (tmp_path / "go").touch()
    await until(lambda: not stopping._left_behind)


# ---- readers and their questions -------------------------------------------------------------------


async def test_a_session_may_be_given_in_each_form(serve: Serve, asker: Asker, reader: AgentStreamReader) -> None:
    from agent_framework_durabletask import AgentSessionId, DurableAgentSession

    serve()
    correlation_id = asker.ask("say:2", "forms")
    chunks = await read(reader, "forms")
    session_id = AgentSessionId(AGENT, "forms")
    for form in (str(session_id), session_id, DurableAgentSession.from_session_id(session_id)):
        assert await read(reader, form, correlation_id=correlation_id) == chunks
        assert not await reader.cancel(form)
    (other,) = await read(reader, "@Weather@forms", starts_within_s=0.1)
    assert other.outcome is None


async def test_a_cursor_of_another_session_is_refused(serve: Serve, asker: Asker, reader: AgentStreamReader) -> None:
    serve()
    asker.ask("say:2", "mine")
    asker.ask("say:2", "yours")
    mine = await read(reader, "mine")
    await read(reader, "yours")
    with pytest.raises(CursorOfAnotherStream):
        await read(reader, "yours", mine[1].cursor)


async def test_runs_belong_to_their_owner(serve: Serve, asker: Asker, store: str) -> None:
    serve(owner=lambda context: f"{context.agent_name}/{context.session_id}")
    correlation_id = asker.ask("say:2", "ann")
    async with AgentStreamReader(store, principal=f"{AGENT}/ann") as ann:
        assert text_of(await read(ann, "ann")) == said(2)
    async with AgentStreamReader(store, starts_within_s=0.2) as stranger:
        assert (await read(stranger, "ann"))[-1].outcome is None
        assert (await read(stranger, "ann", correlation_id=correlation_id))[-1].outcome is None
        assert not await stranger.cancel("ann")


def test_a_reader_is_for_one_event_loop(store: str) -> None:
    reader = AgentStreamReader(store, starts_within_s=0.1)

    async def use() -> StreamChunk:
        async for chunk in reader.read_stream("nobody"):
            return chunk
        raise AssertionError

    with asyncio.Runner() as first:
        assert first.run(use()).is_done
        with asyncio.Runner() as second, pytest.raises(Conflict):
            second.run(use())
        first.run(reader.close())

    async def use_and_close() -> StreamChunk:
        try:
            return await use()
        finally:
            await reader.close()

    assert asyncio.run(use_and_close()).is_done
    with pytest.raises(TypeError, match="a callback of your own"):
        PlayheadAgentWorker(None, object())  # type: ignore[arg-type]


async def test_fifty_readers_of_one_run(serve: Serve, asker: Asker, store: str, tmp_path: Path) -> None:
    serve()
    asker.ask(f"say:5 wait:{tmp_path}/go say:200", "crowd")
    async with AgentStreamReader(store) as reader:
        reading = [asyncio.create_task(read(reader, "crowd")) for _ in range(50)]
        await read_until(reader, "crowd", "w5 ")
        (tmp_path / "go").touch()
        everything = await asyncio.gather(*reading)
    assert {text_of(chunks) for chunks in everything} == {said(5) + said(200)}


# ---- the callback ----------------------------------------------------------------------------------


async def test_what_cannot_be_recorded_does_not_harm_the_run(
    serve: Serve,
    asker: Asker,
    reader: AgentStreamReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from playhead.adapters.agent_framework.events import Transcript

    real, count = Transcript.add, iter(range(100))

    def add(self: Transcript, update: Any) -> Any:
        if next(count) == 2:
            raise ValueError("not this one")
        return real(self, update)

    monkeypatch.setattr(Transcript, "add", add)
    serve()
    asker.ask("say:5", "odd")
    chunks = await read(reader, "odd")
    assert text_of(chunks) == said(2)
    assert chunks[-1].error == "failed: ValueError: not this one"
    assert "cannot be recorded" in caplog.text
    await until(lambda: said(5) in asker_text(asker, "odd"))


async def test_a_store_that_is_away_does_not_harm_the_run(
    backend: str, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    callback = PlayheadResponseCallback(away, options=Options(store_patience_s=0.3))
    with running_worker(backend, callback, scripted_agent()):
        asker.ask("say:5", "unrecorded")
        await until(lambda: said(5) in asker_text(asker, "unrecorded"))
    assert "is not recorded" in caplog.text


async def test_a_busy_agent_waits_for_the_store_and_loses_nothing(
    serve: Serve, asker: Asker, reader: AgentStreamReader
) -> None:
    serve()
    asker.ask(" ".join(["big:900"] * 20), "big")
    chunks = await read(reader, "big")
    assert text_of(chunks) == "x" * 900_000 * 20


async def test_closing_the_callback_ends_its_runs_for_their_readers(
    backend: str, store: str, asker: Asker, reader: AgentStreamReader, tmp_path: Path
) -> None:
    callback = PlayheadResponseCallback(store)
    with running_worker(backend, callback, scripted_agent()):
        asker.ask(f"say:2 wait:{tmp_path}/go say:2", "closing")
        reading = asyncio.create_task(read(reader, "closing"))
        await read_until(reader, "closing", "w2 ")
        await asyncio.to_thread(callback.close, 0.1)
        assert (await reading)[-1].error == "interrupted: shutdown"
        (tmp_path / "go").touch()
        asker.ask("say:1", "closing")
        await until(lambda: said(1) in asker_text(asker, "closing"))
    callback.close()


async def test_a_run_that_ends_while_the_callback_closes_is_recorded_without_alarm(
    backend: str,
    store: str,
    asker: Asker,
    reader: AgentStreamReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wait, close = Playhead.wait, Playhead.close

    async def later(self: Playhead, *which: Any, **whose: Any) -> Any:
        await asyncio.sleep(0.3)  # the store may be slow to tell how a run ended
        return await wait(self, *which, **whose)

    async def longer(self: Playhead) -> None:
        await close(self)
        await asyncio.sleep(0.5)

    monkeypatch.setattr(Playhead, "wait", later)
    monkeypatch.setattr(Playhead, "close", longer)
    callback = PlayheadResponseCallback(store)
    with running_worker(backend, callback, scripted_agent()):
        asker.ask(f"say:2 wait:{tmp_path}/go say:2", "ending")
        reading = asyncio.create_task(read(reader, "ending"))
        await read_until(reader, "ending", "w2 ")
        closing = asyncio.create_task(asyncio.to_thread(callback.close))
        (tmp_path / "go").touch()
        assert (await reading)[-1].error is None
        await closing
    # Workers of earlier tests stop meanwhile, and the framework has much to say of that.
    assert "ERROR" not in [record.levelname for record in caplog.records if record.name.startswith("playhead")]


def test_a_worker_is_told_at_its_start_that_its_store_cannot_be_used(tmp_path: Path) -> None:
    with (
        PlayheadResponseCallback(f"redis://127.0.0.1:{free_port()}") as nowhere,
        pytest.raises(StoreError, match="cannot be reached"),
    ):
        nowhere.connect()
    with PlayheadResponseCallback(f"sqlite:///{tmp_path}/runs.db") as callback:
        callback.connect()
        callback.connect()
        assert (tmp_path / "runs.db").exists()
    with pytest.raises(Draining):
        callback.connect()


async def test_an_agents_own_callback_leaves_the_run_recorded_whole(
    backend: str, store: str, asker: Asker, reader: AgentStreamReader
) -> None:
    class Own:
        def __init__(self) -> None:
            self.texts: list[str] = []

        async def on_streaming_response_update(self, update: Any, context: Any) -> None:
            self.texts.append(update.text)

        async def on_agent_response(self, response: Any, context: Any) -> None:
            self.texts.append("end")

    own = Own()
    with running_worker(backend, PlayheadResponseCallback(store), scripted_agent(), callback=own):
        asker.ask("say:3", "own")
        chunks = await read(reader, "own")
    assert (text_of(chunks), chunks[-1].error, own.texts[-1]) == (said(3), None, "end")


@both
async def test_an_app_may_hand_updates_on_in_tasks_of_its_own(
    backend: str, store: str, asker: Asker, reader: AgentStreamReader, recorded: bool
) -> None:
    callback = PlayheadResponseCallback(store)

    class Both:
        async def on_streaming_response_update(self, update: Any, context: Any) -> None:
            await asyncio.gather(callback.on_streaming_response_update(update, context), asyncio.sleep(0))

        async def on_agent_response(self, response: Any, context: Any) -> None:
            await asyncio.gather(callback.on_agent_response(response, context), asyncio.sleep(0))

    with running_worker(backend, callback, scripted_agent(), recorded=recorded, callback=Both()):
        asker.ask("say:9", "gathered")
        chunks = await read(reader, "gathered")
    assert (text_of(chunks), chunks[-1].error) == (said(9), None)
    assert len([chunk for chunk in chunks if chunk.type == "text"]) == 9


async def test_streams_hold_what_finds_them(serve: Serve, asker: Asker, reader: AgentStreamReader, store: str) -> None:
    serve(options=Options(retention_s=1234.0))
    correlation_id = asker.ask("say:2", "facts")
    await read(reader, "facts")
    async with Playhead.open(store) as playhead:
        info = await playhead.info(correlation_id)
        assert (info.thread_id, info.retention_s) == ("facts", 1234.0)
        assert (info.metadata["agent"], info.metadata["correlation_id"]) == (AGENT, correlation_id)
        assert "".join([event.text async for event in playhead.events(correlation_id) if event.type == "text"]) == said(
            2
        )


def asker_text(asker: Asker, key: str) -> str:
    """All that the agent said in a session, as the framework keeps it."""
    state = asker.state(key)
    entries = json.loads(state)["data"]["conversationHistory"] if state else []
    contents = [content for entry in entries for message in entry["messages"] for content in message["contents"]]
    return "|".join(content.get("text") or "" for content in contents)


@pytest.fixture(autouse=True)
def no_secrets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log line of ours repeats a key that a provider told."""
    with caplog.at_level(logging.INFO, logger="playhead"):
        yield
    ours = [record for record in caplog.get_records("call") if record.name.startswith("playhead")]
    assert not [line for line in map(logging.Formatter().format, ours) if KEY in line]  # tracebacks as well
