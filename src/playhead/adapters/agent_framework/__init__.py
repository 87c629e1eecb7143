"""Microsoft Agent Framework: agents whose runs outlive the connection, the client and, for their readers, the worker.

    callback = PlayheadResponseCallback()                        # in the worker
    worker = PlayheadAgentWorker(task_hub_worker, callback)

    async with AgentStreamReader() as reader:                    # in the client
        async for chunk in reader.read_stream("conv-42", cursor):
            print(chunk.text, end="")

    info = await record_agent_run(agent, "Hello", session=session, playhead=playhead)    # without the extension

Which stream a run is, how its end is known and what a cancel does: docs/agent-framework.md.
"""

from typing import TYPE_CHECKING, Any

try:
    import agent_framework as _agent_framework  # noqa: F401 - is it there?
except ImportError as missing:
    raise ImportError(
        "playhead.adapters.agent_framework needs Microsoft Agent Framework, which is not installed:"
        " pip install 'playhead[agent-framework]'"
    ) from missing

from .chunks import StreamChunk
from .direct import record_agent_run
from .events import agent_response_of, text_of, update_of
from .reader import AgentStreamReader, correlation_id_of

if TYPE_CHECKING:
    from .callback import PlayheadResponseCallback
    from .worker import PlayheadAgentWorker

__all__ = [
    "AgentStreamReader",
    "PlayheadAgentWorker",
    "PlayheadResponseCallback",
    "StreamChunk",
    "agent_response_of",
    "correlation_id_of",
    "record_agent_run",
    "text_of",
    "update_of",
]

_OF_THE_EXTENSION = {"PlayheadResponseCallback": "callback", "PlayheadAgentWorker": "worker"}


def __getattr__(name: str) -> Any:
    """What needs the durable extension is imported when it is asked for: the rest works without."""
    if name not in _OF_THE_EXTENSION:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_OF_THE_EXTENSION[name]}"), name)
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"{name} needs the framework's durable extension, which is not installed:"
            " pip install 'playhead[agent-framework]'"
        ) from missing
