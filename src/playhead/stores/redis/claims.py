"""Who may make a stream: claims of what must be unique, an idempotency key or a live stream's thread.

A claim lies in another slot than its stream, so they cannot change together. Claim first, stream second:

    nobody's ──swap──► claimed ──► the stream is made ──► the claim holds for as long as the stream is what it says
        ▲                 │
        └── left behind ◄─┘  its maker said goodbye, or CLAIM_MAX_S went by and there is still no stream

Who needed longer than that between the two looks once more whether the claim is still its own, and takes its stream
back when it is not: nobody has been told of it.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from playhead.errors import StoreUnavailable
from playhead.model import StreamInfo
from playhead.stores.redis.keys import decoded, encoded
from playhead.stores.redis.router import ASK, WRITE, Router
from playhead.stores.redis.scripts import COMMIT
from playhead.stores.redis.wire import Word

CLAIM_MAX_S = 5.0
_LOOK_EVERY_S = 0.01

Load = Callable[[str], Awaitable[StreamInfo | None]]
IsGone = Callable[[str], Awaitable[bool]]


class Claim(NamedTuple):
    """What somebody holds; ``token`` is empty when it was this stream's already."""

    key: bytes
    token: bytes
    since: float


class Claims:
    """Takes and gives back claims on behalf of one instance."""

    def __init__(self, router: Router, instance_id: str, load: Load, is_gone: IsGone) -> None:
        self._router, self._instance_id = router, instance_id
        self._load, self._is_gone = load, is_gone
        self._numbers = itertools.count()

    async def take(self, key: bytes, stream_id: str, holds: Callable[[StreamInfo], bool]) -> Claim | StreamInfo:
        """Claim ``key`` for a stream. Returns the other stream, when one that ``holds`` it has it.

        Raises: StoreError.
        """
        token = f"{self._instance_id}/{next(self._numbers)}".encode()
        since = time.monotonic()
        before = b""
        while True:
            if await self._swap(key, before, token, stream_id):
                return Claim(key, token, time.monotonic())
            before, holder, maker = await self._held(key)
            if not before:
                continue
            if holder == stream_id:
                return Claim(key, b"", time.monotonic())
            info = await self._load(holder)
            if info is not None and holds(info):
                return info
            if info is None and time.monotonic() - since < CLAIM_MAX_S and not await self._is_gone(maker):
                before = b""  # its stream is about to be made
                await asyncio.sleep(_LOOK_EVERY_S)

    async def check(self, claim: Claim) -> bool:
        """Whether the claim still stands; nobody takes one away that is younger than CLAIM_MAX_S."""
        if not claim.token or time.monotonic() - claim.since < CLAIM_MAX_S / 2:
            return True
        return (await self._held(claim.key))[0] == claim.token

    async def give_back(self, claim: Claim) -> None:
        """Undo ``take``. What fails here is healed by age."""
        if claim.token:
            with contextlib.suppress(StoreUnavailable):
                await COMMIT.ask(self._router, WRITE, [claim.key], claim.token, "", "", "")

    async def keep(self, key: bytes, stream_id: str) -> None:
        """Claim again for a stream what was its own, unless somebody has it. Raises: StoreError."""
        await self._swap(key, b"", f"{self._instance_id}/{next(self._numbers)}".encode(), stream_id)

    async def forget(self, key: bytes, stream_id: str) -> None:
        """Drop the claim of a stream that is no more. Raises: StoreError."""
        token, holder, _ = await self._held(key)
        if token and holder == stream_id:
            await COMMIT.ask(self._router, WRITE, [key], token, "", "", "")

    async def holder(self, key: bytes) -> str | None:
        """The stream that has the claim. Raises: StoreError."""
        token, holder, _ = await self._held(key)
        return holder if token else None

    async def _swap(self, key: bytes, before: bytes, token: bytes, stream_id: str) -> bool:
        fields: list[Word] = ["v", token, "id", encoded(stream_id), "by", self._instance_id]
        return await COMMIT.ask(self._router, WRITE, [key], before, "", "", "", *fields) is not None

    async def _held(self, key: bytes) -> tuple[bytes, str, str]:
        token, holder, maker = await self._router.ask(ASK, key, "HMGET", key, "v", "id", "by")
        return token or b"", decoded(holder or b""), decoded(maker or b"")
