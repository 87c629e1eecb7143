"""The worker's side: the framework's response callback, which records each run of each agent.

How the end of a run is known:

    ``on_agent_response`` ............... completed. It never comes when the provider failed, the retry too
    the framework's task of the run ..... its result is an error response then: failed, with the error
    nothing for ``stalled_after_s`` ..... failed, as stalled
    the process ends, or dies ........... interrupted, by whoever looks next

With a ``PlayheadAgentWorker`` the beginning and the end of the entity's operation are known as well, so a run that
failed before its first update is known too.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from agent_framework import AgentResponse, AgentResponseUpdate
from agent_framework_durabletask import AgentCallbackContext, AgentEntity, AgentResponseCallbackProtocol

from playhead.errors import PlayheadError
from playhead.model import check_seconds
from playhead.options import Options

from . import settings
from .recorder import Recorder
from .run import CURRENT, Run

STALLED_AFTER_S = 600.0
_BEGUN_WITHIN_S = 2.0
_RECORDED_WITHIN_S = 90.0
_RUNS_MAX = 10_000

Owner = Callable[[AgentCallbackContext], str | None]

logger = logging.getLogger("playhead")


class PlayheadResponseCallback(AgentResponseCallbackProtocol):
    """Records the runs of a worker's agents as streams. Make one for a worker process, and close it at the end.

        with PlayheadResponseCallback() as callback:
            worker = PlayheadAgentWorker(task_hub_worker, callback)      # or DurableAIAgentWorker(…, callback)

    Nothing that it does, and no trouble that it has, ends an agent's run; trouble is in the log ``playhead``.
    """

    def __init__(
        self,
        store: str | None = None,
        *,
        owner: str | Owner | None = None,
        stalled_after_s: float = STALLED_AFTER_S,
        options: Options | None = None,
    ) -> None:
        """Nothing is connected before the first run, or ``connect``.

        Args:
            store: URL of the store; what the settings say when absent (see ``settings``).
            owner: whose the streams are: one name for all, or asked for each run with the framework's context.
            stalled_after_s: a run that says nothing for so long is closed ``failed``. Tools that work for longer
                without a word need more.
            options: of the engine; as the settings say when absent.
        Raises: InvalidSetting, BadRequest.
        """
        check_seconds("stalled_after_s", stalled_after_s)
        self._recorder = Recorder(settings.store_url(store), options or settings.options())
        self._owner = owner
        self._stalled_after_s = stalled_after_s
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    # ---- what the framework calls ------------------------------------------------------------------

    async def on_streaming_response_update(self, update: AgentResponseUpdate, context: AgentCallbackContext) -> None:
        """Record an update. Returns at once; waits when the store is behind by a mebibyte."""
        run = self._run_of(context)
        if run is not None:
            await self._told(run, lambda: run.say(update))

    async def on_agent_response(self, response: AgentResponse[Any], context: AgentCallbackContext) -> None:
        """Close the run's stream ``completed``; returns when that is stored."""
        run = self._run_of(context)
        if run is not None:

            async def finish() -> None:
                run.finish(response)
                self._forget(run)
                async with asyncio.timeout(_RECORDED_WITHIN_S):
                    await asyncio.shield(asyncio.wrap_future(run.recorded))

            await self._told(run, finish)

    async def _told(self, run: Run, tell: Callable[[], Any]) -> None:
        """The framework swallows what a callback raises: it is logged here, and the run's readers are told."""
        try:
            await tell()
        except TimeoutError:
            logger.error("%r: its end is not stored yet", run)
        except Exception as error:
            logger.exception("%r: an update cannot be recorded", run)
            run.fail(error)

    # ---- runs --------------------------------------------------------------------------------------

    def _run_of(self, context: AgentCallbackContext) -> Run | None:
        """The run that this call is about; one that is new begins. None for a second delivery at the same time."""
        current = CURRENT.get()
        if current is not None and current.recorder is self._recorder:
            return current if current.correlation_id == context.correlation_id else None
        task = asyncio.current_task()
        with self._lock:
            run = self._runs.get(context.correlation_id)
            if run is not None:
                return None if run.task is not task and _is_of_entity(task) and _is_of_entity(run.task) else run
            run = self._begin(context, context.agent_name)
            if run is None:
                return None
            self._runs[context.correlation_id] = run
            self._forget_oldest()
        if task is not None:
            run.task = task
            task.add_done_callback(lambda done: self._task_ended(run, done))
        return run

    def _begin(self, context: AgentCallbackContext, agent: str) -> Run | None:
        owner = self._owner(context) if callable(self._owner) else self._owner
        try:
            return self._recorder.begin(context.correlation_id, context.session_id, agent, owner, self._stalled_after_s)
        except PlayheadError as error:
            logger.error("run %s is not recorded: %s", context.correlation_id, error)
            return None

    def _task_ended(self, run: Run, task: "asyncio.Task[Any]") -> None:
        run.task = None
        if task.cancelled():
            run.fail("the run was cancelled by the framework")
        elif (error := task.exception()) is not None:
            run.fail(error if isinstance(error, Exception) else repr(error))
        elif isinstance(task.result(), AgentResponse):
            run.returned(task.result())
        else:  # it was no run's task: the app hands updates on in tasks of its own
            return
        self._forget(run)

    def _forget(self, run: Run) -> None:
        with self._lock:
            if self._runs.get(run.correlation_id) is run:
                del self._runs[run.correlation_id]

    def _forget_oldest(self) -> None:
        """Of runs whose end nobody told: there is no task to tell when an app hands updates on in tasks of its own."""
        if len(self._runs) > _RUNS_MAX:
            for correlation_id in [one for one, run in self._runs.items() if run.is_over][: _RUNS_MAX // 2]:
                del self._runs[correlation_id]

    @contextmanager
    def recording(self, context: AgentCallbackContext, agent: str) -> Iterator[Run | None]:
        """A run from before the agent begins to its end, in the thread that waits for it. None: not recorded.

        For whoever hosts agents; ``PlayheadAgentWorker`` does it. The agent's loop must inherit the context.
        """
        run = self._begin(context, agent)
        if run is not None:  # a request that was cancelled before it began must not be answered
            wait([run.begun], _BEGUN_WITHIN_S)
        token = CURRENT.set(run)
        try:
            yield run
        except BaseException as error:
            if run is not None:
                run.fail(error if isinstance(error, Exception) else repr(error))
            raise
        finally:
            CURRENT.reset(token)
            if run is not None:
                run.fail("the run ended without an answer")
                if wait([run.recorded], _RECORDED_WITHIN_S).not_done:
                    logger.error("%r: its end is not stored yet", run)

    # ---- life --------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect now, to know at the worker's start that runs can be recorded. Blocks. Raises: StoreError."""
        self._recorder.connect()

    def close(self, grace_s: float = 5.0) -> None:
        """Give runs under way ``grace_s``, close the rest ``interrupted`` (reason ``shutdown``). Idempotent. Blocks.

        Readers are told at once. Call it before the worker's ``stop``, which waits for agents to end.
        """
        self._recorder.close(grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_of_entity(task: "asyncio.Task[Any] | None") -> bool:
    """Is this the framework's own task of a run? Else the app hands updates on in tasks of its own."""
    return task is not None and getattr(task.get_coro(), "cr_code", None) is AgentEntity.run.__code__
