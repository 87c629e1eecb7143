"""The framework's worker, with the beginning and the end of each run told to the callback, and runs that can stop.

    worker = PlayheadAgentWorker(task_hub_worker, callback)
    worker.add_agent(agent)

It is a ``DurableAIAgentWorker``: agents and workflows are added as always. What it adds, it adds from outside: each
entity class that is registered is given an operation ``run`` around its own, each agent one around its ``run``.
"""

from typing import Any, cast

from agent_framework import AgentResponse, SupportsAgentRun
from agent_framework_durabletask import (
    AgentCallbackContext,
    AgentResponseCallbackProtocol,
    AgentSessionId,
    DurableAIAgentWorker,
    RunRequest,
    load_agent_response,
)
from durabletask.worker import TaskHubGrpcWorker

from .callback import PlayheadResponseCallback
from .stopping import StoppableAgent


class PlayheadAgentWorker(DurableAIAgentWorker):
    """A ``DurableAIAgentWorker`` whose runs always end for their readers, and stop when they are cancelled."""

    def __init__(self, worker: TaskHubGrpcWorker, callback: PlayheadResponseCallback) -> None:
        """``worker`` is the app's own, a ``DurableTaskSchedulerWorker`` for example; ``callback`` is not closed.

        Raises: TypeError.
        """
        if not isinstance(callback, PlayheadResponseCallback):
            raise TypeError(
                f"PlayheadAgentWorker needs a PlayheadResponseCallback, not {type(callback).__name__};"
                " a callback of your own may be given to add_agent"
            )
        super().__init__(cast(TaskHubGrpcWorker, _Registering(worker, callback)), callback)

    def add_agent(
        self,
        agent: SupportsAgentRun,
        callback: AgentResponseCallbackProtocol | None = None,
        *,
        entity_id: str | None = None,
    ) -> None:
        """As the framework's. An agent with a callback of its own is recorded whole, when its answer is complete."""
        super().add_agent(cast(SupportsAgentRun, StoppableAgent(agent)), callback, entity_id=entity_id)


class _Registering:
    """The app's worker; but entities are registered recorded."""

    def __init__(self, worker: TaskHubGrpcWorker, callback: PlayheadResponseCallback) -> None:
        self._worker = worker
        self._callback = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def add_entity(self, entity: Any, *args: Any, **kwargs: Any) -> str:
        return self._worker.add_entity(_recorded(entity, self._callback), *args, **kwargs)


def _recorded(entity: Any, callback: PlayheadResponseCallback) -> Any:
    """The same entity, each ``run`` of which is a recorded run. Other entities as they are."""
    if not (isinstance(entity, type) and entity.__name__.startswith(AgentSessionId.ENTITY_NAME_PREFIX)):
        return entity
    agent = entity.__name__.removeprefix(AgentSessionId.ENTITY_NAME_PREFIX)
    inner: Any = entity

    def run(self: Any, request: Any) -> Any:
        try:
            asked = RunRequest.from_json(request) if isinstance(request, str) else RunRequest.from_dict(request)
        except (ValueError, AttributeError):  # no request: the entity says so itself
            return inner.run(self, request)
        context = AgentCallbackContext(agent, asked.correlation_id, self.entity_context.entity_id.key, asked.message)
        with callback.recording(context, agent) as recorded:
            response = inner.run(self, request)
            if recorded is not None:
                recorded.returned(_response_of(response))
            return response

    return type(entity.__name__, (entity,), {"run": run, "__module__": entity.__module__})


def _response_of(response: Any) -> AgentResponse[Any]:
    return response if isinstance(response, AgentResponse) else load_agent_response(response)
