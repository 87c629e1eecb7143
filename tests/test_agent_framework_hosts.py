"""Microsoft Agent Framework: other ways to host agents (workflows, callbacks called by an app), and careless exits."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from agent_framework import AgentResponse, AgentResponseUpdate, Content, WorkflowBuilder
from agent_framework_durabletask import DurableWorkflowClient
from agent_framework_hosting import WorkerProcess, clean_environment, running_backend
from agent_framework_scripted import ScriptedChatClient, scripted_agent, words
from durabletask.client import TaskHubGrpcClient
from durabletask.worker import TaskHubGrpcWorker

from playhead.adapters.agent_framework import AgentStreamReader, PlayheadAgentWorker, PlayheadResponseCallback
from playhead.adapters.agent_framework.events import EVENT_MAX_BYTES
from playhead.adapters.agent_framework.run import PENDING_MAX_BYTES, Run, Source

CARELESS = """
import asyncio, sys
from agent_framework import AgentResponseUpdate, Content
from agent_framework_durabletask import AgentCallbackContext
from playhead.adapters.agent_framework import PlayheadResponseCallback

callback = PlayheadResponseCallback()
context = AgentCallbackContext("TravelPlanner", "request-1", "s1", "Hello")

async def main():
    for text in ("a ", "b "):
        update = AgentResponseUpdate(contents=[Content.from_text(text)], role="assistant")
        await asyncio.create_task(callback.on_streaming_response_update(update, context))
    while not any(run.begun.done() for run in callback._runs.values()):
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


async def test_a_process_that_exits_without_closing_ends_its_runs(redis_url: str, tmp_path: Path) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", CARELESS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(REDIS_CONNECTION_STRING=redis_url),
    )
    assert (done.returncode, done.stderr) == (0, "")
    async with asyncio.timeout(60), AgentStreamReader(redis_url) as reader:
        chunks = [chunk async for chunk in reader.read_stream("s1")]
    assert "".join(chunk.text for chunk in chunks) == "a b "
    assert chunks[-1].error == "interrupted: shutdown"  # else, once its lease is over: producer-lost


async def test_agents_of_a_workflow_are_recorded(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    first, second = scripted_agent("Planner"), scripted_agent("Critic", ScriptedChatClient("say:5"))
    workflow = WorkflowBuilder(name="trip", start_executor=first, output_from=[second]).add_edge(first, second).build()
    with running_backend() as address, PlayheadResponseCallback(store) as callback:
        worker = PlayheadAgentWorker(TaskHubGrpcWorker(host_address=address), callback)
        worker.configure_workflow(workflow)
        worker.start()
        try:
            client = DurableWorkflowClient(TaskHubGrpcClient(host_address=address), workflow_name="trip")
            instance = await asyncio.to_thread(client.start_workflow, input="say:3")
            async with asyncio.timeout(60), AgentStreamReader(store) as reader:
                for name, count in (("Planner", 3), ("Critic", 5)):
                    chunks = [chunk async for chunk in reader.read_stream(f"@trip-{name}@{instance}")]
                    assert "".join(chunk.text for chunk in chunks) == "".join(words(count))
                    assert chunks[-1].error is None
        finally:
            worker.stop()


async def test_an_agent_waits_when_much_is_pending_and_goes_on_when_there_is_room() -> None:
    run = Run(None, asyncio.get_running_loop(), "request-1", "s1", "TravelPlanner", None, 60.0, EVENT_MAX_BYTES)
    source = Source(run, "request-1")
    large = AgentResponseUpdate(contents=[Content.from_text("x" * PENDING_MAX_BYTES)])
    saying = [asyncio.create_task(run.say(large)) for _ in range(3)]
    await asyncio.wait(saying, timeout=0.05)
    assert not any(task.done() for task in saying)
    saying[0].cancel()
    await asyncio.wait(saying[:1])
    taken = 0
    while taken < 3 * PENDING_MAX_BYTES:
        taken += len((await anext(source)).data)
    reading = asyncio.create_task(anext(source))
    async with asyncio.timeout(15):
        await asyncio.gather(*saying[1:])
    run.finish(AgentResponse.from_updates(run.transcript.updates))
    with pytest.raises(StopAsyncIteration):
        await reading
    await run.say(large)
    await source.aclose()
    assert (run.is_over, source.closed.is_set(), len(run._pending)) == (True, True, 0)


def test_a_worker_process_ends_cleanly(tmp_path: Path) -> None:
    with running_backend() as address, WorkerProcess(address, PLAYHEAD_STORE=f"sqlite:///{tmp_path}/a.db") as worker:
        assert "Traceback" not in worker.stop()
        assert worker.process.returncode == 0
