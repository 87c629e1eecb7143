"""One Playhead per event loop, on the store of the settings, for whoever has none: opened at first use, closed with
its loop.

The loop tells of its end by closing the async generators that it has seen, as ``asyncio.run``, uvicorn and every
``asyncio.Runner`` do; each Playhead here waits in one.
"""

import asyncio
from collections.abc import AsyncGenerator

from playhead.streams import Playhead

from . import settings

_lives: dict[asyncio.AbstractEventLoop, "_Life"] = {}


async def playhead() -> Playhead:
    """The running loop's, open. Raises: InvalidSetting, StoreError."""
    for loop in [loop for loop in _lives if loop.is_closed()]:  # by somebody who let nothing end before
        del _lives[loop]
    loop = asyncio.get_running_loop()
    life = _lives.get(loop)
    if life is None:
        life = _lives[loop] = _Life(Playhead.open(settings.store_url(), options=settings.options()))
    try:
        await asyncio.shield(life.opening)
    except Exception:
        if _lives.get(loop) is life:
            del _lives[loop]  # the next one tries again
        raise
    return life.playhead


class _Life:
    def __init__(self, made: Playhead) -> None:
        self.playhead = made
        self._lifeline = self._live()
        self.opening = asyncio.create_task(self._open(), name="playhead agent-framework open")

    async def _open(self) -> None:
        await anext(self._lifeline)
        await self.playhead.connect()

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            _lives.pop(asyncio.get_running_loop(), None)
            await self.playhead.close()
