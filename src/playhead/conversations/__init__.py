"""Threads and their history in SQL (a thread IS a conversation): SQLite beside the streams, or PostgreSQL.

    async with open_threads("sqlite:///threads.db") as threads:
        await threads.touch("t1", owner="ann", preview="Hello")
        ...
        await threads.settle(Settled(…))             # what a stream produced, once
        await threads.entries("t1", owner="ann")

This is the truth for what was said, from the moment that a stream is settled. Until then its stream is.
"""

from playhead.conversations.database import is_postgresql, open_threads
from playhead.conversations.model import Entry, Part, Settled, Thread, ThreadPage
from playhead.conversations.threads import Threads

__all__ = ["Entry", "Part", "Settled", "Thread", "ThreadPage", "Threads", "is_postgresql", "open_threads"]
