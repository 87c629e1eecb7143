"""Which thread a session's runs are on, and which stream a run is.

thread   the session's key: "conv-42". Of a second agent that runs on the same key at the same time:
         "@Weather@conv-42", as the framework writes a session's id
stream   the correlation id of the request; its second attempt, after a worker died, ends in ".2"
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from agent_framework import AgentSession

from playhead.errors import BadRequest
from playhead.model import StreamInfo

if TYPE_CHECKING:
    from agent_framework_durabletask import AgentSessionId

AGENT, CORRELATION = "agent", "correlation_id"


class Session(NamedTuple):
    """A session's key; and its agent, when that is known."""

    key: str
    agent: str | None = None

    @property
    def threads(self) -> tuple[str, ...]:
        """Where its runs may be."""
        return (self.key,) if self.agent is None else (self.key, thread_of(self.agent, self.key))

    def threads_of(self, info: StreamInfo) -> tuple[str, ...]:
        """Where this run may be, if it is one of the session."""
        agent = info.metadata.get(AGENT)
        return (*self.threads, thread_of(str(agent), self.key)) if self.agent is None and agent else self.threads

    def has(self, info: StreamInfo) -> bool:
        """Is this stream a run of the session?"""
        return self.agent is None or str(info.metadata.get(AGENT, self.agent)).casefold() == self.agent.casefold()


SessionLike = Union[str, AgentSession, "AgentSessionId"]


def session_of(given: SessionLike) -> Session:
    """A session by its key, by ``@agent@key``, or by the framework's objects. Raises: BadRequest."""
    # By their attributes: an AgentSessionId needs the durable extension, which may not be there.
    durable = getattr(given, "durable_session_id", None) or given
    if isinstance(durable, AgentSession):
        return Session(durable.session_id)
    if not isinstance(durable, str) and isinstance(getattr(durable, "key", None), str):
        return Session(durable.key, durable.name)
    if not isinstance(given, str) or not given:
        raise BadRequest(f"a session is its key, @agent@key, or the framework's session, not {given!r}")
    if given.startswith("@") and "@" in given[1:]:
        agent, _, key = given[1:].partition("@")
        return Session(key, agent)
    return Session(given)


def thread_of(agent: str, key: str) -> str:
    """The thread for runs of an agent while another agent is running on the same key."""
    return f"@{agent}@{key}"


def stream_id_of(correlation_id: str, attempt: int = 1) -> str:
    return correlation_id if attempt == 1 else f"{correlation_id}.{attempt}"


def correlation_of(metadata: Mapping[str, Any]) -> str | None:
    found = metadata.get(CORRELATION)
    return found if isinstance(found, str) else None
