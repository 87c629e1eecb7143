"""Which stream a request for a thread's stream means.

    cursor inside a stream of the thread ......... the rest of that stream
    cursor at the close of one ................... the stream that came after it, from its start
    no cursor .................................... the live stream; a little patience for one that is about to start
    nothing of all that .......................... None: there is nothing to follow

A front end that posts a message and opens the stream without waiting in between may be here first, hence the patience.
"""

import asyncio

from playhead.errors import CursorOfAnotherStream, Draining
from playhead.model import Cursor, Status, StreamInfo
from playhead.reader import Tail
from playhead.store import Query
from playhead.streams import Playhead

PATIENCE_S = 2.0
_PAGE_STREAMS = 100


async def open_thread_tail(playhead: Playhead, thread_id: str, after: str | None, principal: str | None) -> Tail | None:
    """An open tail, or None when there is nothing to follow.

    Raises: CursorInvalid, CursorOfAnotherStream (no stream of this thread), and what ``Tail.open`` raises.
    """
    if after is None:
        live = await _awaited(playhead, thread_id, principal)
        return None if live is None else await _open(playhead, live.stream_id, None, principal)
    mine, newer = await _stream_of(playhead, thread_id, Cursor.parse(after), principal)
    tail = await _open(playhead, mine.stream_id, after, principal)
    if tail.outcome is None:
        return tail
    await tail.aclose()
    return None if newer is None else await _open(playhead, newer.stream_id, None, principal)


async def _open(playhead: Playhead, stream_id: str, after: str | None, principal: str | None) -> Tail:
    tail = playhead.tail(stream_id, after=after, principal=principal)
    await tail.open()
    return tail


async def _awaited(playhead: Playhead, thread_id: str, principal: str | None) -> StreamInfo | None:
    """The live stream, or the first one to begin meanwhile, even if it ends before we look."""
    begun = asyncio.Event()

    def tell(_: StreamInfo | None) -> None:
        begun.set()

    found = await playhead.watch_thread(thread_id, tell, principal=principal)
    latest = first = found[0] if found else None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while latest is None or not (latest.is_live or first is None or latest.stream_id != first.stream_id):
                if playhead.is_draining:
                    raise Draining("this process is shutting down; reconnect")
                await begun.wait()
                begun.clear()
                latest = await playhead.latest(thread_id, principal=principal)
    except TimeoutError:
        return None
    finally:
        playhead.unwatch_thread(thread_id, tell)
    return latest


async def _stream_of(
    playhead: Playhead, thread_id: str, cursor: Cursor, principal: str | None
) -> tuple[StreamInfo, StreamInfo | None]:
    """The thread's stream that a cursor belongs to, and the next one after it that can still be read."""
    newer: StreamInfo | None = None
    before: str | None = None
    while True:
        query = Query(thread_ids=(thread_id,), before=before, limit=_PAGE_STREAMS)
        page = await playhead.find(query, principal=principal)
        for info in page:
            if info.mark == cursor.mark:
                return info, newer
            if info.status is not Status.EXPIRED:
                newer = info
        if not page:
            raise CursorOfAnotherStream("this cursor belongs to no stream of this thread; read without one")
        before = page[-1].stream_id
