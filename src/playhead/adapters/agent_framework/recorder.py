"""One Playhead for all runs of a process, on an event loop of its own in a thread of its own.

The framework runs its agents on a loop that tools may block; recording must not wait for them. A run is given a
stream when it begins. Requests may be delivered more than once:

    no stream with this correlation id ............ this delivery is recorded
    it is live .................................... wait a lease: its process may be dead and nobody has said so yet;
                                                    if it lives on, that one is recorded, this one is not
    it completed, or was cancelled ................ this one is not recorded; a cancelled request is stopped again
    it failed, or its process died ................ this one is recorded as the next attempt

A session has one run at a time; what is live on its thread is the turn before, closing, or a dead process's.
"""

import asyncio
import atexit
import logging
import threading
import weakref
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, TypeVar

from playhead.errors import (
    Draining,
    IdempotencyMismatch,
    PlayheadError,
    StoreError,
    StreamExpired,
    StreamNotFound,
    ThreadBusy,
)
from playhead.model import OutcomeKind, Status, StreamInfo
from playhead.options import Options
from playhead.streams import Playhead

from .run import Run, Source
from .sessions import AGENT, CORRELATION, stream_id_of, thread_of

_DELIVERY = "delivery"
_LAST_WORDS_S = 10.0
_RETRY_FIRST_S, _RETRY_MAX_S = 0.1, 2.0
T = TypeVar("T")

logger = logging.getLogger("playhead")


class Recorder:
    """The thread, its loop, its Playhead. The thread begins with the first run, or ``connect``; so does the store."""

    def __init__(self, url: str, options: Options) -> None:
        """Raises: InvalidSetting when the URL is not one of a store."""
        self.url = url
        self.options = options
        self._playhead = Playhead.open(url, options=options)
        self._opening = asyncio.Lock()
        self._is_open = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._recording: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._at_exit = partial(_at_exit, weakref.ref(self))
        atexit.register(self._at_exit)

    # ---- any thread --------------------------------------------------------------------------------

    def begin(self, correlation_id: str, key: str | None, agent: str, owner: str | None, stalled_after_s: float) -> Run:
        """A run that is recorded from now to its end. Raises: Draining when this recorder is closed."""
        with self._lock:  # so that it comes before closing, which waits for it, or not at all
            loop = self._running_loop()
            max_bytes = self.options.event_max_bytes
            run = Run(self, loop, correlation_id, key, agent, owner, stalled_after_s, max_bytes)
            asyncio.run_coroutine_threadsafe(self._record(run), loop)
            return run

    def connect(self) -> None:
        """Open the store now. Blocks. Raises: StoreError; Draining when this recorder is closed."""
        with self._lock:
            loop = self._running_loop()
        asyncio.run_coroutine_threadsafe(self._opened(), loop).result()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise Draining("this worker is shutting down; its runs are not recorded any more")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run_loop, args=(self._loop,), name="playhead agent-framework", daemon=True
            )
            self._thread.start()
        return self._loop

    def close(self, grace_s: float = 5.0) -> None:
        """Give runs ``grace_s`` to end by themselves, close the rest ``interrupted``, end the thread. Idempotent.

        Blocks, for ``grace_s`` and about 10 s at most; not for the framework's loop.
        """
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            loop, thread = self._loop, self._thread
        atexit.unregister(self._at_exit)
        if loop is None or thread is None or not is_first:
            return
        try:
            closing = asyncio.run_coroutine_threadsafe(self._close(grace_s), loop)
            closing.result(grace_s + self.options.cancel_grace_s + 3 * _LAST_WORDS_S)
        except TimeoutError:
            logger.error("the store does not answer; what runs are recorded is left for others to close")
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_LAST_WORDS_S)

    def at_exit(self) -> None:
        """The interpreter ends, and nobody has closed: runs under way are closed for their readers at least."""
        with self._lock:
            loop, is_closed, self._is_closed = self._loop, self._is_closed, True
        if loop is not None and not is_closed and self._is_open:
            # Not more than that: threads that closing a store needs cannot be had any more.
            with suppress(TimeoutError, PlayheadError):
                asyncio.run_coroutine_threadsafe(self._playhead.drain(0), loop).result(_LAST_WORDS_S)

    # ---- the recorder's loop -----------------------------------------------------------------------

    async def _opened(self) -> Playhead:
        async with self._opening:
            if not self._is_open:
                await self._playhead.connect()
                self._is_open = True
                logger.info("agents' runs are recorded in %s", self.url.rpartition("@")[2])
            return self._playhead

    async def _close(self, grace_s: float) -> None:
        if self._is_open:
            await self._playhead.drain(grace_s)
            if self._recording:  # each still asks how its run ended
                await asyncio.wait(self._recording, timeout=_LAST_WORDS_S)
            await self._playhead.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_WORDS_S)
        await asyncio.get_running_loop().shutdown_asyncgens()

    async def _record(self, run: Run) -> None:
        recording = asyncio.current_task()
        assert recording is not None
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)
        try:
            source = await self._start(run)
            run.begun.set_result(None)
            if source is not None:
                await source.closed.wait()
                info = await self._playhead.wait(source.stream_id, principal=run.owner)
                if info.cancel is not None or run.has_stalled:
                    run.stop()
        except Draining:
            logger.info("%r: this process is shutting down", run)
        except PlayheadError as error:
            logger.error("%r is not recorded: %s", run, error)
        except Exception:
            logger.exception("%r is not recorded", run)
        finally:
            run.let_go()
            if not run.begun.done():
                run.begun.set_result(None)
            run.recorded.set_result(None)

    async def _start(self, run: Run) -> Source | None:
        """``_start_once``, until the store answers or patience is over."""
        now = asyncio.get_running_loop().time
        until, pause_s = now() + self.options.store_patience_s, _RETRY_FIRST_S
        while True:
            try:
                return await self._start_once(await self._opened(), run)
            except StoreError as error:
                if not error.retryable or now() >= until:
                    raise
                logger.warning("%r: trying again: %s", run, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_MAX_S)

    async def _start_once(self, playhead: Playhead, run: Run) -> Source | None:
        """The source of the run's own stream; None when it is not to be recorded. Raises: as ``Playhead.start``."""
        for attempt in count(1):
            stream_id = stream_id_of(run.correlation_id, attempt)
            info = await self._known(playhead, stream_id, run)
            if info is None:
                source = Source(run, stream_id)
                info = await self._make(playhead, source, run)
                if info.metadata.get(_DELIVERY) == source.delivery:
                    return source
            if info.is_live:
                info = await self._ended(playhead, stream_id, run)
            if info.status is Status.EXPIRED or info.outcome is None or info.outcome.kind is OutcomeKind.COMPLETED:
                logger.warning("%r was delivered once more; what is recorded as %s stays", run, stream_id)
                return None
            if info.outcome.kind is OutcomeKind.CANCELLED:
                logger.info("%r was cancelled before it began", run)
                run.stop()
                return None
        raise AssertionError  # attempts never run out

    async def _known(self, playhead: Playhead, stream_id: str, run: Run) -> StreamInfo | None:
        try:
            return await playhead.info(stream_id, principal=run.owner)
        except StreamNotFound:
            return None

    async def _make(self, playhead: Playhead, source: Source, run: Run) -> StreamInfo:
        """The stream: this delivery's, or another one's that was faster."""
        thread_id, supersedes = run.key, False
        while True:
            try:
                return await playhead.start(
                    source,
                    stream_id=source.stream_id,
                    thread_id=thread_id,
                    owner=run.owner,
                    metadata={AGENT: run.agent, CORRELATION: run.correlation_id, _DELIVERY: source.delivery},
                    supersede=supersedes,
                )
            except ThreadBusy as busy:
                source.renew()
                with suppress(StreamNotFound, StreamExpired):  # it has ended, and is forgotten already
                    other = await playhead.info(busy.stream_id, principal=run.owner)
                    if run.key is not None and thread_id == run.key and other.metadata.get(AGENT) != run.agent:
                        thread_id = thread_of(run.agent, run.key)
                        continue
                    supersedes = (await self._ended(playhead, busy.stream_id, run)).is_live
            except IdempotencyMismatch:
                return await playhead.info(source.stream_id, principal=run.owner)

    async def _ended(self, playhead: Playhead, stream_id: str, run: Run) -> StreamInfo:
        """The state of a stream once it is closed, or after all the time that a dead one takes to be."""
        try:
            async with asyncio.timeout(self.options.lease_s + 2.0):
                return await playhead.wait(stream_id, principal=run.owner)
        except TimeoutError:
            return await playhead.info(stream_id, principal=run.owner)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _at_exit(recorder: "weakref.ref[Recorder]") -> None:
    found = recorder()
    if found is not None:
        found.at_exit()
