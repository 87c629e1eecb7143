"""The chat agent of ``playhead serve``: one LangGraph graph, one model, a history that survives every ending.

A server opens one agent for its life and hands each answer to Playhead as a source of events::

    async with open_agent("checkpoints.sqlite", choose_model()) as agent:
        async with aclosing(agent.reply(thread_id, message_id, "Hello")) as pieces:
            async for piece in pieces:
                ...
        await agent.settle(thread_id, stream_id, message_id, "Hello", streamed_text, OutcomeKind.COMPLETED)

This package knows nothing of streams, stores or HTTP: of a stream only its id and its outcome reach it.
"""

from .chat import ChatAgent, ThreadBusy, build_graph, open_agent
from .checkpoints import StaleCheckpoint
from .demo import DemoChatModel, DemoModelError
from .history import Turn
from .model import choose_model
from .pieces import Piece, TextPiece, ToolCallPiece, ToolResultPiece

__all__ = [
    "ChatAgent",
    "DemoChatModel",
    "DemoModelError",
    "Piece",
    "StaleCheckpoint",
    "TextPiece",
    "ThreadBusy",
    "ToolCallPiece",
    "ToolResultPiece",
    "Turn",
    "build_graph",
    "choose_model",
    "open_agent",
]
