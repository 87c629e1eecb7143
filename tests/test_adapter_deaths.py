"""Processes killed with -9 while a provider answers: the next one goes on, with all that was shown."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from openai import AsyncOpenAI
from openai_server import Answer, OpenAIServer
from provider_programs import THREAD, chat_graph, stream_store
from provider_server import RESPONSE_ID, Cut, ProviderServer, response_events
from streaming import finished, follow, until

from playhead import OutcomeKind, Playhead, StreamNotFound
from playhead.adapters.langgraph import start_graph, text_of
from playhead.adapters.openai import response_event_of, resume_response

pytestmark = pytest.mark.crash


@asynccontextmanager
async def producing(program: str, url: str, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that produces; it is killed at the end at the latest."""
    arguments = (Path(__file__).parent / "provider_programs.py", program, url, directory)
    process = await asyncio.create_subprocess_exec(sys.executable, *map(str, arguments))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def killed_after(playhead: Playhead, process: asyncio.subprocess.Process, events: int) -> None:
    """Kill the producer of ``s1`` when so many events are stored, and wait until its readers know."""

    async def has_them() -> bool:
        assert process.returncode is None, "the producer ended by itself"
        try:
            return (await playhead.info("s1")).tail >= events
        except StreamNotFound:
            await asyncio.sleep(0.05)  # it starts: what asks all the time takes from it what it needs for that
            return False

    await until(has_them, patience_s=120)
    process.kill()
    await process.wait()
    outcome = await finished(playhead, "s1")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")


async def test_the_next_run_of_a_graph_keeps_what_a_killed_one_said(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.answer(Answer("Once ", "upon ", "a time", hold_after_chunks=2))
        async with (
            Playhead.open(stream_store(tmp_path)) as playhead,
            producing("graph", server.url, tmp_path) as process,
        ):
            await killed_after(playhead, process, 2)
            assert "".join(map(text_of, await follow(playhead, "s1"))) == "Once upon "
            async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
                graph = chat_graph(server.url, saver)
                info = await start_graph(playhead, graph, {"messages": [("user", "Go on")]}, THREAD)
                assert "".join(map(text_of, await follow(playhead, info.stream_id))) == "Hello world"
                messages = (await graph.aget_state(THREAD)).values["messages"]
        assert [str(m.text) for m in messages] == ["Tell me", "Once upon ", "Go on", "Hello world"]
        assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Once upon ", "Go on"]


async def test_a_response_goes_on_in_a_new_stream_where_a_killed_producer_was(tmp_path: Path) -> None:
    with ProviderServer(response_events([f"word{number} " for number in range(40)])) as server:
        server.serve(Cut(9, how="hold"), Cut(5))
        async with (
            Playhead.open(stream_store(tmp_path)) as playhead,
            AsyncOpenAI(base_url=server.url, api_key="any") as client,
            producing("background", server.url, tmp_path) as process,
        ):
            await killed_after(playhead, process, 9)
            before = [response_event_of(event) for event in await follow(playhead, "s1")]
            assert before[0].type == "response.created"
            assert before[0].response.id == RESPONSE_ID
            source = resume_response(client, RESPONSE_ID, starting_after=before[-1].sequence_number)
            info = await playhead.start(source)
            after = [response_event_of(event) for event in await follow(playhead, info.stream_id)]
        assert [event.sequence_number for event in (*before, *after)] == list(range(len(server.events)))
        assert after[-1].type == "response.completed"
        assert not server.asked("/cancel")
