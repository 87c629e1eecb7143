"""Threads and entries as frozen values. Times are seconds since the Unix epoch."""

from dataclasses import dataclass, field
from typing import Any, Literal

from playhead.model import Outcome, OutcomeKind

Part = dict[str, Any]
"""``{"type": "text", "text": …}`` or ``{"type": "tool_call", "name": …, "id": …, "args": …, "result": …}``."""

Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Thread:
    """A conversation. ``title`` is None until somebody named it; ``preview`` is how its first message begins."""

    thread_id: str
    owner: str
    title: str | None
    preview: str
    created_at: float
    last_activity_at: float
    archived_at: float | None


@dataclass(frozen=True)
class ThreadPage:
    """Some threads, newest activity first; ``next`` leads to the next page, None at the end."""

    threads: list[Thread]
    next: str | None


@dataclass(frozen=True)
class Entry:
    """One message of a user, or one answer. ``error`` says what went wrong when it failed."""

    entry_id: str
    thread_id: str
    stream_id: str | None
    role: Role
    parts: list[Part]
    outcome: OutcomeKind | None
    error: str | None
    created_at: float

    @property
    def text(self) -> str:
        """All that was said in words."""
        return "".join([part["text"] for part in self.parts if part["type"] == "text"])


@dataclass(frozen=True)
class Settled:
    """What a closed stream produced. ``user`` is the message it answers, ``(id, text)``; None if there was none."""

    thread_id: str
    owner: str
    stream_id: str
    created_at: float
    closed_at: float
    outcome: Outcome
    user: tuple[str, str] | None = None
    parts: list[Part] = field(default_factory=list)
