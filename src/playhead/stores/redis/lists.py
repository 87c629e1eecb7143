"""The lists of streams: what ``find``, ``orphans`` and ``due`` look into.

    streams, live, unsettled, thread:…, owner:…, owner-live:…     sorted by the number of their creation
    due                                                           sorted by time
    written-by:<instance>                                         a set: live streams of one producer

They lie in other slots than the streams, so a list may only be a superset of the truth: a stream is listed before it
becomes what the list says, and struck off after it has ceased to be. Readers check every id against its state; what
a crash left behind is struck off when it has been seen twice, ORPHAN_S apart.
"""

import time
from collections.abc import Sequence

from playhead.model import Status, StreamInfo
from playhead.stores.redis.keys import Keys, decoded, encoded
from playhead.stores.redis.router import ASK, WRITE, Router
from playhead.stores.redis.wire import Word

ORPHAN_S = 10.0
_REMEMBERED_MAX = 10_000

Listing = tuple[bytes, list[Word]]
"""A key, and a command about it."""


class Lists:
    """Commands about lists, and the healing."""

    def __init__(self, router: Router, keys: Keys) -> None:
        self._router, self._keys = router, keys
        self._missing: dict[tuple[bytes, str], float] = {}

    async def carry_out(self, listings: Sequence[Listing]) -> None:
        """All at once. Raises: StoreError."""
        await self._router.ask_all(WRITE, listings)

    # ---- when a stream changes -------------------------------------------------------------------------

    def before(self, old: StreamInfo | None, new: StreamInfo | None, number: int) -> list[Listing]:
        """What must be listed before ``old`` becomes ``new``. ``number`` is that of the stream's creation."""
        keys = self._keys
        if new is None:
            return []
        name = encoded(new.stream_id)
        listings: list[Listing] = []
        if old is None:
            places = [keys.streams, keys.live, keys.owner(new.owner), keys.owner_live(new.owner)]
            if new.thread_id is not None:
                places.append(keys.thread(new.thread_id))
            listings += [(place, ["ZADD", place, number, name]) for place in places]
        if new.producer is not None and (old is None or new.producer != old.producer):
            place = keys.written_by(new.producer)
            listings.append((place, ["SADD", place, name]))
        if new.due_at is not None and (old is None or new.due_at != old.due_at):
            listings.append((keys.due, ["ZADD", keys.due, repr(new.due_at), name]))
        if _is_unsettled(new) and not (old and _is_unsettled(old)):
            listings.append((keys.unsettled, ["ZADD", keys.unsettled, number, name]))
        return listings

    def after(self, old: StreamInfo, new: StreamInfo | None) -> list[Listing]:
        """What is to be struck off once ``old`` has become ``new``."""
        keys, name = self._keys, encoded(old.stream_id)
        gone: list[bytes] = []
        # What is forgotten is struck off everywhere, also where that should have been done before.
        if new is None or (old.is_live and not new.is_live):
            gone += [keys.live, keys.owner_live(old.owner)]
        if new is None or (_is_unsettled(old) and not _is_unsettled(new)):
            gone.append(keys.unsettled)
        if new is None or (old.due_at is not None and new.due_at is None):
            gone.append(keys.due)
        if new is None:
            gone += [keys.streams, keys.owner(old.owner)]
            gone += [keys.thread(old.thread_id)] if old.thread_id is not None else []
        listings: list[Listing] = [(place, ["ZREM", place, name]) for place in gone]
        if old.producer is not None and (new is None or new.producer != old.producer):
            place = keys.written_by(old.producer)
            listings.append((place, ["SREM", place, name]))
        if new is not None and new.due_at is not None and new.due_at != old.due_at:
            # Once more: who looked in between may have struck it off.
            listings.append((keys.due, ["ZADD", keys.due, repr(new.due_at), name]))
        return listings

    # ---- healing ---------------------------------------------------------------------------------------

    def suspect(self, place: bytes, stream_id: str) -> list[Listing]:
        """A list names a stream that is not what the list says. Returns how to strike it off, the second time."""
        now = time.monotonic()
        first = self._missing.setdefault((place, stream_id), now)
        if now - first < ORPHAN_S:
            if len(self._missing) > _REMEMBERED_MAX:
                del self._missing[next(iter(self._missing))]
            return []
        del self._missing[place, stream_id]
        word = "SREM" if place.startswith(self._keys.written_by("")) else "ZREM"
        return [(place, [word, place, encoded(stream_id)])]

    def trust(self, place: bytes, stream_id: str) -> None:
        self._missing.pop((place, stream_id), None)

    # ---- looking ---------------------------------------------------------------------------------------

    async def newest(self, place: bytes, below: str, limit: int) -> list[tuple[int, str]]:
        """Numbers and ids, newest first. ``below`` as Redis writes borders. Raises: StoreError."""
        words: list[Word] = ["ZREVRANGEBYSCORE", place, below, "-inf", "WITHSCORES", "LIMIT", 0, limit]
        found = await self._router.ask(ASK, place, *words)
        return [(int(float(number)), decoded(name)) for name, number in zip(found[::2], found[1::2], strict=True)]


def _is_unsettled(info: StreamInfo) -> bool:
    return info.status is Status.CLOSED and not info.settled
