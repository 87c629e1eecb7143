"""The turns of a thread as a page shows them: its history, and what is not part of it yet."""

from playhead.server.chat import Chat, user_message
from playhead.server.views import TurnView
from playhead.store import Query

_THREAD_STREAMS = 100


async def turns_of(chat: Chat, thread_id: str, *, principal: str) -> list[TurnView]:
    """The turns of a thread, oldest first; of another owner's thread as of an unknown one: none.

    The answer of a live stream is left out (follow the stream); the message that it answers is there.
    """
    await chat.playhead.settle(thread_id)
    # Streams first: one that is settled between the two reads is found in the history, never in neither.
    query = Query(thread_ids=(thread_id,), owner=principal, settled=False, limit=_THREAD_STREAMS)
    streams = await chat.playhead.find(query, principal=principal)
    entries = await chat.threads.entries(thread_id, owner=principal)
    views = [TurnView.of(entry) for entry in entries]
    known = {entry.stream_id for entry in entries}
    for info in reversed(streams):
        if info.stream_id in known:
            continue
        if said := user_message(info):
            views.append(TurnView.human(said.text, info))
        if info.outcome is not None:  # it could not be settled yet; a live one says itself what it has to say
            views.append(TurnView.ai(await chat.parts(info), info))
        elif said is None:
            views.append(TurnView.speaking(info))
    return views
