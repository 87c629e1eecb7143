"""What a server tells about streams, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from playhead.client.trouble import BadAnswer
from playhead.model import Outcome, OutcomeKind, Status


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that may be known of a stream except its events.

    Attributes:
        epoch: raised each time somebody else becomes the producer.
        tail: offset of the newest event, 0 when there is none.
        size_bytes: data bytes stored so far.
        cancel_requested: ``{"by", "at", "reason"}`` of a stored request to cancel.
        outcome: None while the stream is live.
        cursor: of a reader that has everything up to here.
    """

    stream_id: str
    thread_id: str | None
    status: Status
    epoch: int
    tail: int
    size_bytes: int
    created_at: datetime
    closed_at: datetime | None
    cancel_requested: dict[str, Any] | None
    outcome: Outcome | None
    cursor: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, view: Any) -> Self:
        """Raises: BadAnswer."""
        try:
            closed_at, outcome = view["closed_at"], view["outcome"]
            return cls(
                stream_id=str(view["stream_id"]),
                thread_id=view["thread_id"],
                status=Status(view["status"]),
                epoch=int(view["epoch"]),
                tail=int(view["tail"]),
                size_bytes=int(view["size_bytes"]),
                created_at=datetime.fromisoformat(view["created_at"]),
                closed_at=None if closed_at is None else datetime.fromisoformat(closed_at),
                cancel_requested=view["cancel_requested"],
                outcome=None if outcome is None else outcome_of(outcome["kind"], outcome),
                cursor=str(view["cursor"]),
                metadata=dict(view["metadata"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswer("the server's answer is not the state of a stream") from error


@dataclass(frozen=True, slots=True)
class Started:
    """A message was stored, and its answer is being written: follow the stream."""

    thread_id: str
    stream_id: str

    @classmethod
    def of(cls, view: Any) -> Self:
        """Raises: BadAnswer."""
        try:
            return cls(str(view["thread_id"]), str(view["stream_id"]))
        except (KeyError, TypeError) as error:
            raise BadAnswer("the server's answer does not name the stream that it started") from error


def outcome_of(kind: Any, facts: Mapping[str, Any]) -> Outcome:
    """Raises: ValueError for an outcome that there is not."""
    return Outcome(OutcomeKind(kind), facts.get("error"), facts.get("by"), facts.get("reason"))
