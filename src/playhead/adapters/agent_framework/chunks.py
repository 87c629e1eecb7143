"""What a reader of a session gets: chunks, as the framework's own sample has them, and more."""

from dataclasses import dataclass

from agent_framework import AgentResponseUpdate

from playhead.model import Event, Outcome, OutcomeKind

from .events import update_of

CLOSE = "close"


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """A piece of a run; the last one tells how the run ended.

    Attributes:
        cursor: keep it; ``read_stream`` with it goes on after this chunk, in any process.
        text: what it adds to the answer; "" for all that is no text.
        is_done: this is the last chunk.
        error: in the last chunk: what went wrong, for people; None when the run completed.
        type: of the event: ``text``, ``function_call`` … (see ``events``); ``close`` in the last chunk.
        outcome: in the last chunk: how the run ended; None when no run began in time.
        event: what is stored; None in the last chunk.
        correlation_id: of the request that this run answers.
    """

    cursor: str
    text: str = ""
    is_done: bool = False
    error: str | None = None
    type: str = CLOSE
    outcome: Outcome | None = None
    event: Event | None = None
    correlation_id: str | None = None

    @property
    def update(self) -> AgentResponseUpdate | None:
        """The framework's update; None where there is none."""
        return None if self.event is None else update_of(self.event)


def error_of(outcome: Outcome | None) -> str | None:
    """The outcome in words, unless it is the one that was hoped for."""
    if outcome is None or outcome.kind is OutcomeKind.COMPLETED:
        return None
    detail = outcome.error or outcome.reason or (f"by {outcome.by}" if outcome.by else None)
    return f"{outcome.kind}: {detail}" if detail else str(outcome.kind)
