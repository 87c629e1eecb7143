"""What the doors answer with, as JSON: the public part of the engine's words, and nothing of its internals."""

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from playhead.conversations import Entry, Thread
from playhead.model import OutcomeKind, Status, StreamInfo
from playhead.server.answer import Part, text_of

NEW_CHAT = "New Chat"


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


class ThreadView(BaseModel):
    """A thread: a conversation."""

    id: str
    chat_name: str = Field(description="`New Chat` until somebody gives it a name.")
    preview: str = Field(description="How its first message begins.")
    created_at: datetime
    last_activity_time: datetime
    archived: bool
    live: bool = Field(description="An answer is being written.")

    @classmethod
    def of(cls, thread: Thread, *, live: bool) -> Self:
        facts = {
            "id": thread.thread_id,
            "chat_name": thread.title or NEW_CHAT,
            "preview": thread.preview,
            "created_at": thread.created_at,
            "last_activity_time": thread.last_activity_at,
            "archived": thread.archived_at is not None,
            "live": live,
        }
        return cls.model_validate(_sound(facts))


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
    error: str | None = Field(default=None, description="What went wrong, when it failed.")
    created_at: datetime | None = None
    parts: list[dict[str, Any]] | None = Field(
        default=None, description="Texts and tool calls in their order, when the answer called tools."
    )

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """A turn of the history."""
        view = cls(
            type="human" if entry.role == "user" else "ai",
            content=_sound(entry.text),
            stream_id=entry.stream_id,
            created_at=_time(entry.created_at),
        )
        if entry.role == "assistant":
            view._tell(entry.parts, entry.outcome, entry.error)
        return view

    @classmethod
    def human(cls, content: str, info: StreamInfo) -> Self:
        """A message whose answer is not part of the history yet."""
        live: Literal[True] | None = True if info.is_live else None
        return cls(
            type="human",
            content=_sound(content),
            stream_id=info.stream_id,
            live=live,
            created_at=_time(info.created_at),
        )

    @classmethod
    def ai(cls, parts: list[Part], info: StreamInfo) -> Self:
        """An answer that is not part of the history yet."""
        view = cls(
            type="ai", content=_sound(text_of(parts)), stream_id=info.stream_id, created_at=_time(info.created_at)
        )
        if info.outcome is not None:
            view._tell(parts, info.outcome.kind, info.outcome.error)
        return view

    @classmethod
    def speaking(cls, info: StreamInfo) -> Self:
        """An answer without a question, recorded by somebody else just now."""
        return cls(type="ai", content="", stream_id=info.stream_id, live=True, created_at=_time(info.created_at))

    def _tell(self, parts: list[Part], outcome: OutcomeKind | None, error: str | None) -> None:
        self.outcome = None if outcome is OutcomeKind.COMPLETED else outcome
        self.error = _sound(error)
        if any(part["type"] != "text" for part in parts):
            self.parts = _sound(parts)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


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
