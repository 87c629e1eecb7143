"""A store that goes away and comes back on command."""

from collections.abc import Callable
from typing import Any

import pytest

from playhead.model import Page, StreamInfo
from playhead.store import Store, Wake
from playhead.stores.memory import MemoryData, MemoryStore
from playhead.testing.faults import FaultyStore


class Outages(FaultyStore):
    """Goes away as a store over a network does: who watches is told that something may have been missed.

    Attributes:
        asked: how often somebody asked in vain.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = 0
        self._wakes: dict[object, Wake] = {}

    def watch(self, stream_id: str, wake: Wake) -> Callable[[], None]:
        key, undo = object(), super().watch(stream_id, wake)
        self._wakes[key] = wake

        def gone() -> None:
            del self._wakes[key]
            undo()

        return gone

    async def load(self, stream_id: str) -> StreamInfo:
        self.asked += self._away
        return await super().load(stream_id)

    async def read(self, stream_id: str, after: int) -> Page:
        self.asked += self._away
        return await super().read(stream_id, after)

    def leave(self) -> None:
        self.fail_everything(True)
        self.asked = 0
        for wake in list(self._wakes.values()):
            wake(None, None)

    def come_back(self) -> None:
        """Without a word: readers must find out."""
        self.fail_everything(False)

    @property
    def is_unwatched(self) -> bool:
        return not self._wakes


def outages_of_servers(monkeypatch: pytest.MonkeyPatch) -> list[Outages]:
    """From now on each server opens one of these, in memory; they are added to the list."""
    made: list[Outages] = []

    def open_one(_: str, options: Any) -> Outages:
        made.append(Outages(MemoryStore(MemoryData(), options=options)))
        return made[-1]

    monkeypatch.setattr("playhead.streams.open_store", open_one)
    return made
