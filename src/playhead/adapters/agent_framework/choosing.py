"""Which run of a session a reader reads, and the wait for one that is to come.

    correlation_id given .............. that run, from its start; its newest attempt
    … and a cursor .................... the rest of it; at the close of one that was interrupted: its next attempt
    cursor inside a run ............... the rest of that run
    cursor at the close of a run ...... the run after it
    none of both ...................... the run after the one that this reader has read to its end, else the newest

What is not there yet is waited for, with a limit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack

from playhead.errors import BadRequest, CursorOfAnotherStream, Draining, StreamNotFound
from playhead.model import Cursor, OutcomeKind, Status, StreamInfo
from playhead.store import Query
from playhead.streams import Playhead

from .sessions import Session, stream_id_of

_PAGE_STREAMS = 100
_REMEMBERED_SESSIONS = 10_000

Select = Callable[[], Awaitable[StreamInfo | None]]


class Choice:
    """One reader's choices; it knows which runs that reader has read to their end."""

    def __init__(self, playhead: Playhead, principal: str | None) -> None:
        self._playhead = playhead
        self._principal = principal
        self._read_to_end: dict[Session, tuple[float, Cursor]] = {}

    def has_read(self, session: Session, run: StreamInfo, cursor: str) -> None:
        """This run was read to its end, where this is the cursor."""
        before = self._read_to_end.pop(session, (0.0, None))
        read = (run.created_at, Cursor.parse(cursor))
        self._read_to_end[session] = read if before[1] is None or before[0] < read[0] else (before[0], before[1])
        if len(self._read_to_end) > _REMEMBERED_SESSIONS:
            del self._read_to_end[next(iter(self._read_to_end))]

    async def awaited(
        self, session: Session, correlation_id: str | None, after: Cursor | None, limit_s: float
    ) -> StreamInfo | None:
        """The run to read, as soon as there is one; None when there is none in time.

        Raises: BadRequest (a request of another session), CursorOfAnotherStream.
        """

        async def select() -> StreamInfo | None:
            if correlation_id is not None:
                return _attempt_to_read(await self.attempts(session, correlation_id), after)
            if after is not None:
                return await self._at(session, after)
            return await self._unread(session)

        if (found := await select()) is not None:
            return found
        threads = session.threads
        if correlation_id is not None:
            threads = (*threads, early_thread(session, correlation_id))
        try:
            async with asyncio.timeout(limit_s):
                return await self._watched(threads, select)
        except TimeoutError:
            before = await self.attempts(session, correlation_id) if correlation_id is not None else []
            return before[-1] if before else None

    async def _watched(self, threads: Iterable[str], select: Select) -> StreamInfo:
        """Select again whenever a stream begins on one of these threads."""
        news, known = asyncio.Event(), set[str]()

        def tell(info: StreamInfo | None) -> None:
            if info is None or info.stream_id not in known:
                news.set()
            if info is not None:
                known.add(info.stream_id)

        with ExitStack() as watched:
            for thread_id in threads:
                await self._playhead.watch_thread(thread_id, tell, principal=self._principal)
                watched.callback(self._playhead.unwatch_thread, thread_id, tell)
            while True:
                news.clear()
                if (found := await select()) is not None:
                    return found
                if self._playhead.is_draining:
                    raise Draining("this process is shutting down; read again with the same cursor")
                await news.wait()

    async def attempts(self, session: Session, correlation_id: str) -> list[StreamInfo]:
        """The runs of a request, oldest first: more than one when it was delivered again. Raises: BadRequest."""
        found: list[StreamInfo] = []
        while True:
            try:
                stream_id = stream_id_of(correlation_id, len(found) + 1)
                info = await self._playhead.info(stream_id, principal=self._principal)
            except StreamNotFound:
                return found
            if info.thread_id not in (None, *session.threads_of(info), early_thread(session, correlation_id)):
                raise BadRequest(f"request {correlation_id} is none of session {session.key}")
            found.append(info)

    async def _unread(self, session: Session) -> StreamInfo | None:
        read = self._read_to_end.get(session)
        if read is not None:
            try:
                return await self._at(session, read[1])
            except CursorOfAnotherStream:  # it is forgotten
                del self._read_to_end[session]
        query = Query(thread_ids=session.threads, limit=_PAGE_STREAMS)
        for info in await self._playhead.find(query, principal=self._principal):
            if session.has(info) and info.status is not Status.EXPIRED:
                return info
        return None

    async def _at(self, session: Session, cursor: Cursor) -> StreamInfo | None:
        """The run that a cursor is in, or the one after the run that it is at the close of.

        Raises: CursorOfAnotherStream.
        """
        newer: StreamInfo | None = None
        before: str | None = None
        while True:
            query = Query(thread_ids=session.threads, before=before, limit=_PAGE_STREAMS)
            page = await self._playhead.find(query, principal=self._principal)
            for info in page:
                if info.mark == cursor.mark:
                    return newer if info.outcome is not None and cursor.offset > info.tail else info
                if session.has(info) and info.status is not Status.EXPIRED:
                    newer = info
            if not page:
                raise CursorOfAnotherStream("this cursor is of no run of the session; read without one")
            before = page[-1].stream_id


def _attempt_to_read(attempts: Sequence[StreamInfo], after: Cursor | None) -> StreamInfo | None:
    """Of a request's runs: the newest; the one that a cursor is in; after the close of one the next.

    None: there is none yet, or it broke off and may be delivered again. Raises: CursorOfAnotherStream.
    """
    if after is None or not attempts:
        return attempts[-1] if attempts else None
    for number, info in enumerate(attempts, 1):
        if info.mark == after.mark:
            if info.outcome is None or after.offset <= info.tail:
                return info
            if number < len(attempts):
                return attempts[number]
            return None if info.outcome.kind is OutcomeKind.INTERRUPTED else info
    raise CursorOfAnotherStream("this cursor is of no run of this request; read without one")


def early_thread(session: Session, correlation_id: str) -> str:
    """Where a request is cancelled that has not begun; the session's own thread may be busy with another one."""
    return f"{session.key}#{correlation_id}"
