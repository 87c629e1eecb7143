"""The client's side: a session's runs, as chunks. Which run is read: see ``choosing``."""

import asyncio
import re
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self

from agent_framework import AgentResponse

from playhead.errors import BadRequest, Conflict
from playhead.model import Cursor, Outcome, OutcomeKind, check_seconds
from playhead.options import Options
from playhead.streams import Playhead

from . import settings
from .choosing import Choice, early_thread
from .chunks import StreamChunk, error_of
from .events import text_of
from .sessions import AGENT, CORRELATION, Session, SessionLike, correlation_of, session_of, stream_id_of

STARTS_WITHIN_S = 30.0
_ACCEPTED = re.compile(r"\(correlation_id: ([^\s)]+)\)")


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
        self._choice = Choice(self._playhead, principal)

    # ---- life --------------------------------------------------------------------------------------

    async def _opened(self) -> Playhead:
        if self._is_mine:
            if self._opening is not None and self._opening.get_loop() is not asyncio.get_running_loop():
                raise Conflict("this reader belongs to another event loop; make one for each, or close it there")
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
        """A run of a session, from its start or after a cursor, live, to its end. Which run: see ``choosing``.

        Args:
            session_id: the session's key, ``@agent@key`` or the framework's session.
            cursor: of the last chunk that the caller has.
            correlation_id: of the request whose run it is to be: ``correlation_id_of(response)``. With a cursor at
                the close of one that was interrupted: its next attempt, if it is delivered again in time.
        Shape: chunks; the last one, and no other, has ``is_done``, whatever the run's outcome.
        Cancel: safe; go on with the last chunk's cursor. The run goes on, too.
        Raises: BadRequest, CursorInvalid, CursorOfAnotherStream, StreamExpired, Diverged, Draining, StoreError;
            Conflict in another event loop.
        """
        session = session_of(session_id)
        check_seconds("starts_within_s", starts_within_s)
        limit_s = starts_within_s or self._starts_within_s
        playhead = await self._opened()
        after = None if not cursor else Cursor.parse(cursor)
        found = await self._choice.awaited(session, correlation_id, after, limit_s)
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
            self._choice.has_read(session, found, tail.cursor)
            yield StreamChunk(
                tail.cursor,
                is_done=True,
                error=error_of(tail.outcome),
                outcome=tail.outcome,
                correlation_id=correlation_id,
            )

    # ---- cancelling --------------------------------------------------------------------------------

    async def cancel(
        self, session_id: SessionLike, *, correlation_id: str | None = None, reason: str | None = None
    ) -> bool:
        """Cancel what runs in a session, or one request, which need not have begun. Durable when this returns.

        Returns: whether there was something to cancel.
        Raises: BadRequest (also: the request is another session's), StoreError.
        """
        session = session_of(session_id)
        playhead = await self._opened()
        if correlation_id is None:
            live = await playhead.live(session.threads, principal=self._principal)
            found = [info for info in live if session.has(info)]
        else:
            found = await self._choice.attempts(session, correlation_id)
            if not found and await self._cancel_early(playhead, session, correlation_id, reason):
                return True
            found = found or await self._choice.attempts(session, correlation_id)
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
                thread_id=early_thread(session, correlation_id),
                owner=self._principal,
                metadata=about,
            )
        except Conflict:
            return False
        await writer.close(Outcome(OutcomeKind.CANCELLED, by=self._principal, reason=reason))
        return True


def correlation_id_of(response: AgentResponse[Any]) -> str:
    """Of a request that was sent with ``wait_for_response: False``; the framework tells it in words only.

    Raises: BadRequest when the response is none that says so.
    """
    found = _ACCEPTED.search(response.text)
    if found is None:
        raise BadRequest("this is not the framework's answer to a request that was sent without waiting")
    return found[1]
