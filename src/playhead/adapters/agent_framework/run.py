"""One run of an agent: its events on their way from the framework's loop to the recorder's, and its one end.

    framework's loop, thread                    recorder's loop, thread
    Run.say(update) ──► pending ──wakes──► Source ──► Playhead.start ──► stored
          ▲                                  │
          └── waits while much is pending ◄──┘               Run.stop() ──► whoever can stop the agent

``say`` and the ends belong to the side that runs the agent, one call at a time; the source to the recorder. What
comes after the end, or after the recorder has let the run go, is dropped.
"""

import asyncio
import logging
import threading
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Self

from agent_framework import AgentResponse, AgentResponseUpdate

from playhead.adapters.provider_errors import ProviderError, without_secrets
from playhead.model import Draft

from .events import Transcript

PENDING_MAX_BYTES = 1024 * 1024

CURRENT: ContextVar["Run | None"] = ContextVar("playhead_agent_run", default=None)
"""The run that this code is part of, where a ``PlayheadAgentWorker`` runs it."""

logger = logging.getLogger("playhead")


class Run:
    """A delivery of a request to an agent.

    Attributes:
        recorder: who records it.
        correlation_id: of the request; the same when it is delivered again.
        key: the session's; None when the framework told none.
        agent: the name that it is registered under.
        task: the framework's task of this run, as far as it is known.
        is_over: nothing that it says is recorded any more.
        begun: done when it is known whether it is recorded, and whether it was cancelled before it began.
        recorded: done when the run's stream is closed, or it is certain that there is none.
    """

    def __init__(
        self,
        recorder: object,
        loop: asyncio.AbstractEventLoop,
        correlation_id: str,
        key: str | None,
        agent: str,
        owner: str | None,
        stalled_after_s: float,
        event_max_bytes: int,
    ) -> None:
        self.recorder = recorder
        self.correlation_id, self.key, self.agent, self.owner = correlation_id, key, agent, owner
        self.task: asyncio.Task[Any] | None = None
        self.transcript = Transcript(event_max_bytes)
        self.is_over = False
        self.has_stalled = False
        self.begun: Future[None] = Future()
        self.recorded: Future[None] = Future()
        self._loop = loop
        self._stalled_after_s = stalled_after_s
        self._pending: deque[Draft] = deque()
        self._pending_bytes = 0
        self._news = asyncio.Event()
        self._told = False
        self._error: Exception | None = None
        self._ended = False
        self._room: Future[None] | None = None
        self._lock = threading.Lock()
        self._is_stopped = False
        self._stoppers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"run {self.correlation_id} of {self.agent} in session {self.key}"

    # ---- the agent's side --------------------------------------------------------------------------

    async def say(self, update: AgentResponseUpdate) -> None:
        """Take an update; waits while the store is behind."""
        if self.is_over or self._ended:
            return
        self._put(self.transcript.add(update))
        while (room := self._crowded()) is not None:
            await asyncio.shield(asyncio.wrap_future(room))  # others wait for it, too

    def finish(self, response: AgentResponse[Any]) -> None:
        """The framework has the whole answer: completed. First end wins."""
        if not (self.is_over or self._ended):
            self._put(self.transcript.finish(response))
            self._end(None)

    def returned(self, response: AgentResponse[Any]) -> None:
        """The framework's last word, when it called no callback: an error response, or an answer all the same."""
        contents = [content for message in response.messages for content in message.contents]
        error = next((content for content in contents if content.type == "error"), None)
        if error is None:
            self.finish(response)
        else:
            self.fail(": ".join(part for part in (error.error_code, error.message) if part) or "the run failed")

    def fail(self, error: Exception | str) -> None:
        """The run has ended without an answer, for this reason. First end wins."""
        if not (self.is_over or self._ended):
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            self._end(ProviderError(without_secrets(text)))

    def _put(self, drafts: list[Draft]) -> None:
        self._pending.extend(drafts)
        with self._lock:
            self._pending_bytes += sum(len(draft.data) for draft in drafts)
        self._tell()

    def _end(self, error: Exception | None) -> None:
        self._error, self._ended = error, True
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            try:
                self._loop.call_soon_threadsafe(self._news.set)
            except RuntimeError:  # that loop is closed
                self.let_go()

    def _crowded(self) -> "Future[None] | None":
        with self._lock:
            if self._pending_bytes < PENDING_MAX_BYTES or self.is_over:
                return None
            self._room = self._room or Future()
            return self._room

    # ---- the recorder's side -----------------------------------------------------------------------

    async def said(self) -> AsyncGenerator[Draft]:
        """For the source: all that the run says, to its end. Raises: ProviderError (it failed, or has stalled)."""
        try:
            while True:
                ended = self._ended  # looked at first: what was said before the end is pending by now
                while self._pending:
                    draft = self._pending.popleft()
                    with self._lock:
                        self._pending_bytes -= len(draft.data)
                    yield draft
                self._make_room()
                if ended:
                    break
                await self._wait()
            if self._error is not None:
                raise self._error
        finally:
            self.let_go()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._stalled_after_s):
                await self._news.wait()
        except TimeoutError:
            self.has_stalled = True
            raise ProviderError(
                f"the agent has said nothing for {self._stalled_after_s:g} s, and is taken for stalled"
            ) from None
        self._news.clear()
        self._told = False

    def let_go(self) -> None:
        """Drop what is pending and all that comes; whoever waits for room goes on."""
        self.is_over = True
        self._pending.clear()
        with self._lock:
            self._pending_bytes = 0
        self._make_room()

    def _make_room(self) -> None:
        with self._lock:
            room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    # ---- cancelling --------------------------------------------------------------------------------

    @property
    def is_stopped(self) -> bool:
        return self._is_stopped

    def stop(self) -> None:
        """Somebody cancelled: have the agent stopped, now or when it begins. Any thread."""
        with self._lock:
            stoppers, self._stoppers, self._is_stopped = self._stoppers, [], True
        for stopper in stoppers:
            stopper()

    def on_stop(self, stopper: Callable[[], None]) -> Callable[[], None]:
        """Have this called, in any thread, when the run is to stop; at once when it is already. Returns the undo."""
        with self._lock:
            if not self._is_stopped:
                self._stoppers.append(stopper)
                return lambda: self._forget(stopper)
        stopper()
        return lambda: None

    def _forget(self, stopper: Callable[[], None]) -> None:
        with self._lock:
            if stopper in self._stoppers:
                self._stoppers.remove(stopper)


class Source:
    """A run as a source for ``Playhead.start``, which closes each one that it was given, whether it ran it or not.

    Attributes:
        stream_id: of the stream that it is for.
        delivery: tells this delivery of a request from any other one.
        closed: set when it is not asked any more.
    """

    def __init__(self, run: Run, stream_id: str) -> None:
        self.stream_id = stream_id
        self.delivery = uuid.uuid4().hex
        self._run = run
        self.renew()

    def renew(self) -> None:
        """For another start, after one that was refused."""
        self.closed = asyncio.Event()
        self._said = self._run.said()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Draft:
        return await anext(self._said)

    async def aclose(self) -> None:
        try:
            await self._said.aclose()
        finally:
            self.closed.set()
