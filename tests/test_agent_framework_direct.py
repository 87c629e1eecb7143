"""``record_agent_run``: agents of the framework without its durable extension."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agent_framework import AgentResponseUpdate, AgentSession, Content
from agent_framework_hosting import clean_environment
from agent_framework_scripted import KEY, ScriptedChatClient, scripted_agent, words
from conftest import OpenPlayhead
from streaming import finished, follow, has_stored, until

from playhead import OutcomeKind, Playhead, ThreadBusy
from playhead.adapters.agent_framework import AgentStreamReader, agent_response_of, record_agent_run, text_of


def said(count: int) -> str:
    return "".join(words(count))


async def test_a_run_is_recorded_on_its_sessions_thread(playhead: Playhead) -> None:
    model = ScriptedChatClient()
    agent, session = scripted_agent(client=model), AgentSession(session_id="s1")
    info = await record_agent_run(agent, "say:3 tool:Oslo say:2 usage", session=session, playhead=playhead)
    assert (info.thread_id, info.metadata["agent"]) == ("s1", "TravelPlanner")
    there = await follow(playhead, info.stream_id)
    assert "".join(map(text_of, there)) == said(3) + said(2)
    response = agent_response_of(there)
    assert (response.text, response.finish_reason) == (said(3) + said(2), "stop")
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    again = await record_agent_run(agent, "say:1", session=session, playhead=playhead)
    await finished(playhead, again.stream_id)
    assert ("user", "say:3 tool:Oslo say:2 usage") in model.asked[-1][0]
    assert ("assistant", said(2)) in model.asked[-1][0]


async def test_its_session_is_read_like_any_other(playhead: Playhead) -> None:
    agent, session = scripted_agent(), AgentSession(session_id="s1")
    info = await record_agent_run(agent, "say:3", session=session, playhead=playhead)
    reader = AgentStreamReader(playhead)
    chunks = [chunk async for chunk in reader.read_stream(session)]
    assert ("".join(chunk.text for chunk in chunks), chunks[-1].error) == (said(3), None)
    assert chunks == [chunk async for chunk in reader.read_stream("s1", correlation_id=info.stream_id)]
    await reader.close()
    assert (await playhead.info(info.stream_id)).outcome is not None


async def test_a_cancel_closes_the_agents_stream_and_keeps_what_was_said(playhead: Playhead) -> None:
    info = await record_agent_run(scripted_agent(), "say:3 hang", session=AgentSession(), playhead=playhead)
    await has_stored(playhead, info.stream_id, 4)
    await playhead.cancel(info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert "".join(map(text_of, await follow(playhead, info.stream_id))) == said(3)


async def test_what_is_larger_than_an_event_does_not_fail_the_run(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(event_max_bytes=10_000)
    info = await record_agent_run(scripted_agent(), "big:50 say:1", playhead=playhead)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    assert "".join(map(text_of, await follow(playhead, info.stream_id))) == "x" * 50_000 + said(1)


async def test_an_error_fails_the_stream_without_its_secrets(playhead: Playhead) -> None:
    info = await record_agent_run(scripted_agent(), "say:2 fail", playhead=playhead, owner="ann")
    outcome = await finished(playhead, info.stream_id, principal="ann")
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error is not None
    assert "the provider broke, key ***" in outcome.error
    assert KEY not in outcome.error


async def test_one_run_at_a_time_and_a_repeated_start_runs_once(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    model, session = ScriptedChatClient(), AgentSession(session_id="s1")
    agent = scripted_agent(client=model)
    first = await record_agent_run(agent, "say:1 hang", session=session, playhead=playhead, idempotency_key="k1")
    await has_stored(playhead, first.stream_id, 2)
    with pytest.raises(ThreadBusy):
        await record_agent_run(agent, "say:1", session=session, playhead=playhead)
    same = await record_agent_run(agent, "say:1", session=session, playhead=playhead, idempotency_key="k1")
    assert (same.stream_id, len(model.asked)) == (first.stream_id, 1)
    next_one = await record_agent_run(agent, "say:2", session=session, playhead=playhead, supersede=True)
    assert (await finished(playhead, next_one.stream_id)).kind is OutcomeKind.COMPLETED


async def test_agents_of_other_makes_work_too(playhead: Playhead) -> None:
    closed = asyncio.Event()

    class Own:
        async def run(self, message: str, *, stream: bool) -> AsyncIterator[AgentResponseUpdate]:
            async def updates() -> AsyncIterator[AgentResponseUpdate]:
                try:
                    for word in message.split():
                        yield AgentResponseUpdate(contents=[Content.from_text(word)])
                    await asyncio.Event().wait()
                finally:
                    closed.set()

            return updates()

    agent: Any = Own()
    info = await record_agent_run(agent, "a b c", playhead=playhead)
    await has_stored(playhead, info.stream_id, 3)
    assert info.metadata["agent"] == "Own"
    await playhead.cancel(info.stream_id)
    await until(closed.is_set)
    with pytest.raises(TypeError, match="needs an agent"):
        await record_agent_run("agent", "a", playhead=playhead)  # type: ignore[arg-type]


PROGRAM = """
import asyncio
from agent_framework import AgentSession
from agent_framework_scripted import scripted_agent
from playhead.adapters.agent_framework import AgentStreamReader, record_agent_run

async def main():
    infos = await asyncio.gather(*(
        record_agent_run(scripted_agent(), "say:3", session=AgentSession(session_id=f"s{n}")) for n in range(3)
    ))
    await record_agent_run(scripted_agent(), "say:2 hang", session=AgentSession(session_id="left"))
    async with AgentStreamReader() as reader:
        async for chunk in reader.read_stream("s1"):
            print(chunk.text, end="")
        async for chunk in reader.read_stream("left"):
            if chunk.text == "w2 ":
                break

asyncio.run(main())

async def after():
    async with AgentStreamReader() as reader:
        print([chunk.error async for chunk in reader.read_stream("left")][-1])

asyncio.run(after())
"""


def test_without_a_playhead_one_is_kept_for_as_long_as_the_loop_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == said(3) + "interrupted: shutdown\n"
    assert (tmp_path / "agent-streams.db").exists()
