"""Deleting a thread: its streams, its history and the agent's memory of it all go.

    1  tombstone (SQL) ....... from here on nobody sees the thread, and nothing that is settled late brings it back
    2  live answer ........... cancelled, and waited for
    3  streams ............... deleted
    4  the agent's memory .... deleted
    5  tombstone marked ...... nothing is left

Whoever dies between two steps leaves a tombstone that says so; every server looks for such ones now and then.
A process that settles meanwhile may write to the agent's memory after step 4. It looks for the tombstone once it has
written, and deletes that memory again (``Chat.settle``).
"""

import asyncio
import logging
from contextlib import suppress

from playhead.errors import PlayheadError, StreamNotFound, ThreadNotFound
from playhead.server.chat import Chat, agent_thread
from playhead.store import Query

HEAL_EVERY_S = 30.0
_PAGE_STREAMS = 100
_SLACK_S = 5.0

logger = logging.getLogger("playhead")


async def delete_thread(chat: Chat, thread_id: str, *, owner: str) -> None:
    """Delete all of a thread; carried out even if the caller goes away. Idempotent.

    Raises: ThreadNotFound: unknown, or somebody else's.
    """
    try:
        await chat.threads.begin_delete(thread_id, owner=owner)
    except ThreadNotFound:
        # What others record on a thread is known here only once it is settled.
        if await chat.playhead.latest(thread_id, principal=owner) is None:
            raise
        await chat.threads.touch(thread_id, owner=owner)
        await chat.threads.begin_delete(thread_id, owner=owner)
    await asyncio.shield(asyncio.create_task(_clear(chat, thread_id, owner)))


async def _clear(chat: Chat, thread_id: str, owner: str) -> None:
    """Steps 2 to 5."""
    playhead = chat.playhead
    query = Query(thread_ids=(thread_id,), owner=owner, limit=_PAGE_STREAMS)
    while streams := await playhead.find(query, principal=owner):
        for info in streams:
            with suppress(StreamNotFound):
                if info.is_live:
                    await playhead.cancel(info.stream_id, principal=owner, reason="deleted")
                    # A source that does not stop is fenced by the deletion itself.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(playhead.options.cancel_grace_s + _SLACK_S):
                            await playhead.wait(info.stream_id, principal=owner)
                await playhead.delete(info.stream_id, principal=owner)
    await chat.agent.delete(agent_thread(owner, thread_id))
    await chat.threads.end_delete(thread_id)


async def heal_deletions(chat: Chat) -> None:
    """Finish what a crash left half deleted; for ever, until cancelled."""
    while True:
        try:
            for thread_id, owner in await chat.threads.deleting():
                await _clear(chat, thread_id, owner)
        except PlayheadError as error:
            logger.warning("deleting threads: %s", error)
        except Exception:  # the next look must come, whatever this one met
            logger.exception("deleting threads")
        await asyncio.sleep(HEAL_EVERY_S)
