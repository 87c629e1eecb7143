"""An agent whose runs can be stopped: by a cancel of the stream that records them.

A run that is stopped ends as if the model had said no more: its updates end, and the final response is what was said.
So the framework puts the partial answer into the conversation's history, where the next turn finds it. Calls of
functions that were not answered yet are left out: providers refuse a history that has them.
"""

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agent_framework import AgentResponse, AgentResponseUpdate, ResponseStream

from .run import CURRENT, Run

GRACE_S = 5.0

logger = logging.getLogger("playhead")

_left_behind: set["asyncio.Task[Any]"] = set()


class StoppableAgent:
    """The agent itself, but for ``run``."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """As the agent's own ``run``; outside a recorded run just that."""
        run = CURRENT.get()
        if run is None:
            return self._agent.run(*args, **kwargs)

        async def ask() -> Any:
            # Called where it is read: agents set context variables when they begin, and reset them when they end.
            answer = self._agent.run(*args, **kwargs)
            return await answer if inspect.isawaitable(answer) else answer

        if kwargs.get("stream"):
            reading = _Reading(run, ask)
            return ResponseStream(reading.updates(), finalizer=reading.response)
        return _whole(run, ask)


Ask = Callable[[], Coroutine[Any, Any, Any]]


async def _whole(run: Run, ask: Ask) -> Any:
    """The agent's response without streaming, stoppable."""
    if run.is_stopped:
        return partial(run.transcript.updates)
    work = _Work(run, ask())
    try:
        await work.ended()
        return partial(run.transcript.updates) if work.was_stopped else work.task.result()
    finally:
        await work.end()


class _Work:
    """A part of a run in a task of its own, which is cancelled when the run is to stop."""

    def __init__(self, run: Run, work: Coroutine[Any, Any, Any], news: asyncio.Event | None = None) -> None:
        """``news`` is set when the work has ended, or is to stop."""
        self._run = run
        self._news = news or asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._grace: asyncio.TimerHandle | None = None
        self.is_stopping = False
        self.task = asyncio.create_task(work, name=f"playhead agent {run.correlation_id}")
        self.task.add_done_callback(lambda _: self._tell())
        self._undo = run.on_stop(self._stop_from_any_thread)

    def _stop_from_any_thread(self) -> None:
        with suppress(RuntimeError):  # the agent's loop is closed, and so nothing of it runs
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._grace is None:
            self.is_stopping = True
            self._news.set()
            self.task.cancel()
            self._grace = self._loop.call_later(GRACE_S, self._tell)

    def _tell(self) -> None:
        self._news.set()
        if not self._over.done():
            self._over.set_result(None)

    async def ended(self) -> None:
        """Wait for its end; when it is stopping, not for longer than the grace period."""
        await asyncio.shield(self._over)

    @property
    def was_stopped(self) -> bool:
        """It was stopped, and has no result of its own."""
        has_result = self.task.done() and not self.task.cancelled() and self.task.exception() is None
        return self.is_stopping and not has_result

    async def end(self) -> None:
        """Leave nothing behind, or say so."""
        self._undo()
        if not self.task.done():
            self._stop()
            await self.ended()
        if self._grace is not None:
            self._grace.cancel()
        if not self.task.done():
            logger.warning("%r was stopped, and goes on all the same; nobody listens", self._run)
            _left_behind.add(self.task)  # loops know their tasks only weakly
            self.task.add_done_callback(_left_behind.discard)
        elif not self.task.cancelled() and (error := self.task.exception()) is not None and self.is_stopping:
            logger.info("%r failed while it was being stopped: %r", self._run, error)


class _Reading:
    """A stream read by one task from its start to its final response: some clients must be left where entered."""

    def __init__(self, run: Run, ask: Ask) -> None:
        self._run = run
        self._ask = ask
        self._read: deque[AgentResponseUpdate] = deque()
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._response: Any = None

    async def updates(self) -> AsyncGenerator[AgentResponseUpdate]:
        """All updates. Raises: what the agent's stream raised, also for its final response."""
        if self._run.is_stopped:
            self._response = partial(self._run.transcript.updates)
            return
        work = _Work(self._run, self._pump(), self._news)
        try:
            while not (work.is_stopping or (work.task.done() and not self._read)):
                while self._read and not work.is_stopping:
                    yield self._read.popleft()
                self._taken.set()
                if not work.task.done():
                    await self._news.wait()
                    self._news.clear()
            await work.ended()
            self._response = partial(self._run.transcript.updates) if work.was_stopped else work.task.result()
        finally:
            await work.end()

    async def _pump(self) -> Any:
        stream = await self._ask()
        async for update in stream:
            self._read.append(update)
            self._taken.clear()
            self._news.set()
            await self._taken.wait()
        return await stream.get_final_response()

    def response(self, _: Sequence[AgentResponseUpdate]) -> AgentResponse[Any]:
        response: AgentResponse[Any] = self._response
        return response


def partial(updates: Sequence[AgentResponseUpdate]) -> AgentResponse[Any]:
    """What was said before a run was stopped, as a response that a provider takes as history."""
    response = AgentResponse.from_updates(updates)
    contents = [content for message in response.messages for content in message.contents]
    answered = {content.call_id for content in contents if content.type == "function_result"}
    for message in response.messages:
        message.contents = [
            content for content in message.contents if content.type != "function_call" or content.call_id in answered
        ]
    response.created_at = response.created_at or datetime.now(UTC).isoformat()
    response.messages = [message for message in response.messages if message.contents]
    return response
