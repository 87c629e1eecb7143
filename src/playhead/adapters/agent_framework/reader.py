"""The client's side: a session's runs, as chunks.

Which run ``read_stream`` reads:

    correlation_id given .............. that run, from its start; its newest attempt
    cursor inside a run ............... the rest of that run
    cursor at the close of a run ...... the run after it
    none of both ...................... the newest run that this reader has not read to its end

What is not there yet is waited for, with a limit.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from agent_framework import AgentResponse, AgentResponseUpdate

from playhead.errors import BadRequest, Conflict, CursorOfAnotherStream, Draining, StreamNotFound
from playhead.model import Cursor, Event, Outcome, OutcomeKind, Status, StreamInfo, check_seconds
from playhead.options import Options
from playhead.store import Query
from playhead.streams import Playhead

from . import settings
from .events import text_of, update_of
from .sessions import AGENT, CORRELATION, Session, SessionLike, correlation_of, session_of, stream_id_of

STARTS_WITHIN_S = 30.0
CLOSE = "close"
_PAGE_STREAMS = 100
_REMEMBERED_SESSIONS = 10_000
_ACCEPTED = re.compile(r"\(correlation_id: ([^\s)]+)\)")

Select = Callable[[], Awaitable[StreamInfo | None]]


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


class AgentStreamReader:
    """Reads the runs of agents' sessions, from any process that reaches the store, for one event loop.

    async with AgentStreamReader() as reader:
        async for chunk in reader.read_stream("conv-42"):
            print(chunk.text, end="")
    """

    def __init__(
        self,
        store: str | Playhead | None = None,
        *,
        principal: str | None = None,
        starts_within_s: float = STARTS_WITHIN_S,
        options: Options | None = None,
    ) -> None:
        """Nothing is connected before the first call.

        Args:
            store: URL of the store; what the settings say when absent. Or an open Playhead, which stays open.
            principal: who reads: the ``owner`` that the worker's callback was given.
            starts_within_s: how long to wait for a run that has not begun.
        Raises: InvalidSetting, BadRequest.
        """
        check_seconds("starts_within_s", starts_within_s)
        self._is_mine = not isinstance(store, Playhead)
        self._place = "the given Playhead"
        if isinstance(store, Playhead):
            self._playhead = store
        else:
            url = settings.store_url(store)
            self._place = url.rpartition("@")[2]
            self._playhead = Playhead.open(url, options=options or settings.options())
        self._principal = principal
        self._starts_within_s = starts_within_s
        self._opening: asyncio.Task[Any] | None = None
        self._read_to_end: dict[Session, str] = {}

    # ---- life --------------------------------------------------------------------------------------

    async def _opened(self) -> Playhead:
        if self._is_mine:
            if self._opening is None:
                self._opening = asyncio.create_task(self._playhead.connect(), name="playhead agent reader open")
            try:
                await asyncio.shield(self._opening)
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._opening = None  # the next one tries again
                raise
        return self._playhead

    async def close(self) -> None:
        """Disconnect; the runs go on. Idempotent."""
        opening, self._opening = self._opening, None
        if opening is not None:
            await asyncio.wait([opening])
            await self._playhead.close()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- reading -----------------------------------------------------------------------------------

    async def read_stream(
        self,
        session_id: SessionLike,
        cursor: str | None = None,
        *,
        correlation_id: str | None = None,
        starts_within_s: float | None = None,
    ) -> AsyncGenerator[StreamChunk]:
        """A run of a session, from its start or after a cursor, live, to its end. Which run: see the module's head.

        Args:
            session_id: the session's key, ``@agent@key`` or the framework's session.
            cursor: of the last chunk that the caller has.
            correlation_id: of the request whose run it is to be: ``correlation_id_of(response)``.
        Shape: chunks; the last one, and no other, has ``is_done``, whatever the run's outcome.
        Cancel: safe; go on with the last chunk's cursor. The run goes on, too.
        Raises: BadRequest, CursorInvalid, CursorOfAnotherStream, StreamExpired, Diverged, Draining, StoreError.
        """
        session = session_of(session_id)
        check_seconds("starts_within_s", starts_within_s)
        limit_s = starts_within_s or self._starts_within_s
        playhead = await self._opened()
        after = None if not cursor else Cursor.parse(cursor)
        found = await self._awaited(playhead, session, correlation_id, after, limit_s)
        if found is None:
            error = (
                f"no new run of session {session.key} has begun within {limit_s:g} s;"
                f" is a worker running, and recording in {self._place}?"
            )
            yield StreamChunk(cursor or "", is_done=True, error=error, correlation_id=correlation_id)
            return
        start = cursor if after is not None and after.mark == found.mark else None
        correlation_id = correlation_of(found.metadata) or correlation_id
        async with playhead.tail(found.stream_id, after=start, principal=self._principal) as tail:
            async for event in tail:
                yield StreamChunk(
                    tail.cursor, text_of(event), type=event.type, event=event, correlation_id=correlation_id
                )
            self._remember(session, found)
            yield StreamChunk(
                tail.cursor,
                is_done=True,
                error=_error_of(tail.outcome),
                outcome=tail.outcome,
                correlation_id=correlation_id,
            )

    def _remember(self, session: Session, read: StreamInfo) -> None:
        self._read_to_end.pop(session, None)
        self._read_to_end[session] = read.stream_id
        if len(self._read_to_end) > _REMEMBERED_SESSIONS:
            del self._read_to_end[next(iter(self._read_to_end))]

    # ---- cancelling --------------------------------------------------------------------------------

    async def cancel(
        self, session_id: SessionLike, *, correlation_id: str | None = None, reason: str | None = None
    ) -> bool:
        """Cancel what runs in a session, or one request, which need not have begun. Durable when this returns.

        Returns: whether there was something to cancel.
        Raises: BadRequest, StoreError.
        """
        session = session_of(session_id)
        playhead = await self._opened()
        if correlation_id is None:
            live = await playhead.live(session.threads, principal=self._principal)
            found = [info for info in live if session.has(info)]
        else:
            newest = await self._newest_attempt(playhead, correlation_id)
            if newest is None and await self._cancel_early(playhead, session, correlation_id, reason):
                return True
            newest = newest or await self._newest_attempt(playhead, correlation_id)
            found = [] if newest is None else [newest]
        found = [info for info in found if info.is_live]
        for info in found:
            await playhead.cancel(info.stream_id, principal=self._principal, reason=reason)
        return bool(found)

    async def _cancel_early(
        self, playhead: Playhead, session: Session, correlation_id: str, reason: str | None
    ) -> bool:
        """A stream that is closed before its run begins: the worker finds it. False: it has begun meanwhile."""
        about = {CORRELATION: correlation_id, **({AGENT: session.agent} if session.agent else {})}
        try:
            writer = await playhead.produce(
                stream_id_of(correlation_id),
                thread_id=_early_thread(session, correlation_id),
                owner=self._principal,
                metadata=about,
            )
        except Conflict:
            return False
        await writer.close(Outcome(OutcomeKind.CANCELLED, by=self._principal, reason=reason))
        return True

    # ---- which run ---------------------------------------------------------------------------------

    async def _awaited(
        self, playhead: Playhead, session: Session, correlation_id: str | None, after: Cursor | None, limit_s: float
    ) -> StreamInfo | None:
        """The run to read, as soon as there is one; None when there is none in time."""

        async def select() -> StreamInfo | None:
            if correlation_id is not None:
                return await self._newest_attempt(playhead, correlation_id, after)
            if after is not None:
                return await self._at(playhead, session, after)
            return await self._unread(playhead, session)

        if (found := await select()) is not None:
            return found
        threads = session.threads
        if correlation_id is not None:
            threads = (*threads, _early_thread(session, correlation_id))
        try:
            async with asyncio.timeout(limit_s):
                return await self._watched(playhead, threads, select)
        except TimeoutError:
            return None

    async def _watched(self, playhead: Playhead, threads: Iterable[str], select: Select) -> StreamInfo:
        """Select again whenever a stream begins on one of these threads."""
        news, known = asyncio.Event(), set[str]()
        is_draining = False

        def tell(info: StreamInfo | None) -> None:
            nonlocal is_draining
            if info is None:
                is_draining = True
            if info is None or info.stream_id not in known:
                news.set()
            if info is not None:
                known.add(info.stream_id)

        with ExitStack() as watched:
            for thread_id in threads:
                await playhead.watch_thread(thread_id, tell, principal=self._principal)
                watched.callback(playhead.unwatch_thread, thread_id, tell)
            while True:
                news.clear()
                if (found := await select()) is not None:
                    return found
                if is_draining:
                    raise Draining("this process is shutting down; read again with the same cursor")
                await news.wait()

    async def _newest_attempt(
        self, playhead: Playhead, correlation_id: str, after: Cursor | None = None
    ) -> StreamInfo | None:
        """Of a request; the one that a cursor is of, when there is one."""
        newest: StreamInfo | None = None
        attempt = 1
        while newest is None or after is None or newest.mark != after.mark:
            try:
                info = await playhead.info(stream_id_of(correlation_id, attempt), principal=self._principal)
            except StreamNotFound:
                break
            newest, attempt = info, attempt + 1
        return newest

    async def _unread(self, playhead: Playhead, session: Session) -> StreamInfo | None:
        query = Query(thread_ids=session.threads, limit=_PAGE_STREAMS)
        for info in await playhead.find(query, principal=self._principal):
            if session.has(info) and info.status is not Status.EXPIRED:
                return None if self._read_to_end.get(session) == info.stream_id else info
        return None

    async def _at(self, playhead: Playhead, session: Session, cursor: Cursor) -> StreamInfo | None:
        """The run that a cursor is in, or the one after the run that it is at the close of.

        Raises: CursorOfAnotherStream.
        """
        newer: StreamInfo | None = None
        before: str | None = None
        while True:
            query = Query(thread_ids=session.threads, before=before, limit=_PAGE_STREAMS)
            page = await playhead.find(query, principal=self._principal)
            for info in page:
                if info.mark == cursor.mark:
                    return newer if info.outcome is not None and cursor.offset > info.tail else info
                if session.has(info) and info.status is not Status.EXPIRED:
                    newer = info
            if not page:
                raise CursorOfAnotherStream("this cursor is of no run of this session; read without one")
            before = page[-1].stream_id


def _early_thread(session: Session, correlation_id: str) -> str:
    """Where a request is cancelled that has not begun; the session's own thread may be busy with another one."""
    return f"{session.key}#{correlation_id}"


def _error_of(outcome: Outcome | None) -> str | None:
    """The outcome in words, unless it is the one that was hoped for."""
    if outcome is None or outcome.kind is OutcomeKind.COMPLETED:
        return None
    detail = outcome.error or outcome.reason or (f"by {outcome.by}" if outcome.by else None)
    return f"{outcome.kind}: {detail}" if detail else str(outcome.kind)


def correlation_id_of(response: AgentResponse[Any]) -> str:
    """Of a request that was sent with ``wait_for_response: False``; the framework tells it in words only.

    Raises: BadRequest when the response is none that says so.
    """
    found = _ACCEPTED.search(response.text)
    if found is None:
        raise BadRequest("this is not the framework's answer to a request that was sent without waiting")
    return found[1]
