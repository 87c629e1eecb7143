"""Streams as they are stored: their states and their pages."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from playhead.entry import unpack
from playhead.errors import StreamNotFound
from playhead.log import check_readable
from playhead.model import Page, StreamInfo
from playhead.state import unpack_state
from playhead.store import PAGE_MAX_BYTES
from playhead.stores.redis.keys import Keys
from playhead.stores.redis.router import ASK, Router
from playhead.stores.redis.scripts import READ


class Row(NamedTuple):
    """A state, the version that a commit must find unchanged, and the number of the stream's creation."""

    version: bytes
    number: int
    info: StreamInfo


class States:
    """Reads states and events."""

    def __init__(self, router: Router, keys: Keys) -> None:
        self._router, self._keys = router, keys

    async def row(self, stream_id: str) -> Row | None:
        return (await self.rows([stream_id]))[0]

    async def info(self, stream_id: str) -> StreamInfo | None:
        row = await self.row(stream_id)
        return row.info if row else None

    async def rows(self, stream_ids: Sequence[str]) -> list[Row | None]:
        keys = [self._keys.stream(stream_id).state for stream_id in stream_ids]
        asked: list[Any] = [(key, ["HMGET", key, "v", "no", "info", "tail", "size"]) for key in keys]
        return [
            None if version is None else Row(version, int(number), unpack_state(state, int(tail), int(size_bytes)))
            for version, number, state, tail, size_bytes in await self._router.ask_all(ASK, asked)
        ]

    async def page(self, stream_id: str, after: int) -> Page:
        keys = self._keys.stream(stream_id)
        found = await READ.ask(self._router, ASK, [keys.state, keys.log], max(after, 0), PAGE_MAX_BYTES)
        if found is None:
            raise unknown(stream_id)
        _, tail, size_bytes, state, page = found
        info = unpack_state(state, int(tail), int(size_bytes))
        check_readable(info)
        batches = [
            unpack(int(last), int(epoch), entry)
            for last, epoch, entry in zip(page[::3], page[1::3], page[2::3], strict=True)
        ]
        return Page(batches, info)


def fields(version: bytes, info: StreamInfo, packed: str) -> list[Any]:
    """What a state's hash holds, but for what appends change."""
    return ["v", version, "live", int(info.is_live), "epoch", info.epoch, "info", packed]


def unknown(stream_id: str) -> StreamNotFound:
    return StreamNotFound("there is no such stream", stream_id=stream_id)
