"""The framework's backend, worker and client as the tests use them; and the worker's process.

    python agent_framework_hosting.py <address of the backend> plain|recorded <name of an agent> …

It records where its settings say, tells "ready", and ends cleanly when a line comes on its standard input.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from agent_framework_durabletask import (
    AgentSessionId,
    DurableAgentSession,
    DurableAIAgentClient,
    DurableAIAgentWorker,
    RunRequest,
)
from agent_framework_scripted import scripted_agent
from durabletask.client import TaskHubGrpcClient
from durabletask.entities import EntityInstanceId
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend
from durabletask.worker import TaskHubGrpcWorker

from playhead.adapters.agent_framework import PlayheadAgentWorker, PlayheadResponseCallback, correlation_id_of

AGENT = "TravelPlanner"
START_S = 60.0


@contextlib.contextmanager
def running_backend() -> Iterator[str]:
    """The framework's in-memory backend, on a free port of the loopback interface; gives its address."""
    backend = InMemoryOrchestrationBackend()
    server = grpc.server(ThreadPoolExecutor(max_workers=20))
    stubs.add_TaskHubSidecarServiceServicer_to_server(backend, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    backend._server = server
    try:
        yield f"127.0.0.1:{port}"
    finally:
        backend.stop()


@contextlib.contextmanager
def running_worker(
    address: str,
    recorder: PlayheadResponseCallback,
    *agents: Any,
    recorded: bool = True,
    stop: Callable[[Callable[[], None]], object] = lambda stop: stop(),
    **more: Any,
) -> Iterator[Any]:
    """A worker in this process. ``recorded``: a PlayheadAgentWorker, else the framework's own.

    ``stop`` is given what stops the worker, which takes the framework a second.
    """
    hub = TaskHubGrpcWorker(host_address=address)
    worker = PlayheadAgentWorker(hub, recorder) if recorded else DurableAIAgentWorker(hub, recorder)
    for agent in agents:
        worker.add_agent(agent, **more)
    worker.start()
    try:
        yield worker
    finally:
        recorder.close(grace_s=0.1)
        stop(worker.stop)


class Asker:
    """The framework's client: sends requests, and does not wait for what becomes of them."""

    def __init__(self, address: str) -> None:
        self._hub = TaskHubGrpcClient(host_address=address)
        self._client = DurableAIAgentClient(self._hub)

    def ask(self, message: str, key: str, agent: str = AGENT) -> str:
        """Send a message; the correlation id of the request."""
        session = DurableAgentSession.from_session_id(AgentSessionId(agent, key))
        asked = self._client.get_agent(agent).run(message, session=session, options={"wait_for_response": False})
        return correlation_id_of(asked)

    def send(self, message: str, key: str, correlation_id: str, agent: str = AGENT) -> None:
        """Deliver a request with a correlation id of one's own; once more, if it was delivered before."""
        entity = EntityInstanceId(AgentSessionId(agent, key).entity_name, key)
        self._hub.signal_entity(entity, "run", RunRequest(message, correlation_id).to_dict())

    def state(self, key: str, agent: str = AGENT) -> str:
        """What the framework keeps of a session."""
        entity = EntityInstanceId(AgentSessionId(agent, key).entity_name, key)
        kept = self._hub.get_entity(entity, include_state=True)
        return "" if kept is None else str(kept.get_state())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.close()


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, address: str, *agents: str, how: str = "recorded", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, address, how, *(agents or (AGENT,))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(**environment),
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"the worker did not start:\n{self.process.communicate()[1]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """End it cleanly; what it logged."""
        return self.process.communicate("stop\n", timeout=START_S)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def clean_environment(**environment: str) -> dict[str, str]:
    """This process's, without settings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PLAYHEAD_", "REDIS_", "OPENAI_"))
    }
    return {**kept, "PYTHONPATH": str(Path(__file__).parent), **environment}


def main(address: str, how: str, *agents: str) -> None:
    callback = PlayheadResponseCallback()
    with running_worker(address, callback, *map(scripted_agent, agents), recorded=how == "recorded"):
        print("ready", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
