"""What the doors answer with, as JSON: the public part of the engine's words, and nothing of its internals."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from playhead.model import OutcomeKind, Status, StreamInfo


class OutcomeView(BaseModel):
    """How a stream ended."""

    kind: OutcomeKind
    error: str | None = Field(default=None, description="What went wrong, when it failed.")
    by: str | None = Field(default=None, description="Who cancelled.")
    reason: str | None = Field(default=None, description="Why it was interrupted or cancelled, such as `shutdown`.")


class CancelView(BaseModel):
    """A stored request to cancel."""

    by: str | None
    at: datetime
    reason: str | None


class StreamView(BaseModel):
    """All that may be known of a stream except its events."""

    stream_id: str
    thread_id: str | None
    status: Status
    epoch: int = Field(description="Raised each time somebody else becomes the producer.")
    tail: int = Field(description="Offset of the newest event; 0 when there is none.")
    size_bytes: int = Field(description="Data bytes stored so far.")
    created_at: datetime
    closed_at: datetime | None
    cancel_requested: CancelView | None
    outcome: OutcomeView | None = Field(description="Null while the stream is live.")
    cursor: str = Field(description="The cursor of a reader that has everything up to here.")
    metadata: dict[str, Any]

    @classmethod
    def of(cls, info: StreamInfo) -> Self:
        cancel, outcome = info.cancel, info.outcome
        facts = {
            "stream_id": info.stream_id,
            "thread_id": info.thread_id,
            "status": info.status,
            "epoch": info.epoch,
            "tail": info.tail,
            "size_bytes": info.size_bytes,
            "created_at": info.created_at,
            "closed_at": info.closed_at,
            "cancel_requested": cancel and cancel._asdict(),
            "outcome": outcome and outcome._asdict(),
            "cursor": info.cursor,
            "metadata": dict(info.metadata),
        }
        return cls.model_validate(_sound(facts))


class StreamList(BaseModel):
    """Streams, newest first; the next page begins `before` the last one's id."""

    streams: list[StreamView]


class StateView(BaseModel):
    status: Literal["ok", "ready"]


class StartedView(BaseModel):
    """The answer to a message is being written: follow the stream."""

    thread_id: str
    stream_id: str


class CancelledView(BaseModel):
    """Whether a cancel is stored for a stream that was live."""

    cancelled: bool
    thread_id: str
    stream_id: str | None


class TurnView(BaseModel):
    """One turn of a conversation. Keys behind the first two are there only when they say something."""

    type: Literal["human", "ai"]
    content: str
    stream_id: str | None = Field(
        default=None, description="The stream that answers this message, or gave this answer."
    )
    live: Literal[True] | None = Field(default=None, description="That stream is live: follow it for the answer.")
    outcome: OutcomeKind | None = Field(
        default=None, description="How the answer ended, if not as a plain finished one."
    )
    error: str | None = Field(default=None, description="What went wrong, while the stream is still known.")

    @classmethod
    def human(cls, content: str, info: StreamInfo | None) -> Self:
        view = cls(type="human", content=_sound(content), stream_id=info.stream_id if info else None)
        if info is not None and info.is_live:
            view.live = True
        return view

    @classmethod
    def ai(cls, content: str, outcome: OutcomeKind | None, stream_id: str | None, info: StreamInfo | None) -> Self:
        error = info.outcome.error if info and info.outcome else None
        kind = None if outcome is OutcomeKind.COMPLETED else outcome
        return cls(type="ai", content=_sound(content), stream_id=stream_id, outcome=kind, error=_sound(error))


def _sound(value: Any) -> Any:
    """The value with lone surrogates replaced, which a source may yield and UTF-8 cannot carry."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_sound(key): _sound(item) for key, item in value.items()}
        case list():
            return [_sound(item) for item in value]
    return value
