"""A producer in the hands of the app: what ``Playhead.produce`` gives. It writes by hand, and may take turns."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from playhead.model import COMPLETED, Outcome, OutcomeKind, StreamInfo
from playhead.producer import Producer, failed

WRITER_LOST = Outcome(OutcomeKind.INTERRUPTED, reason="producer-lost")

logger = logging.getLogger("playhead")


class Writer:
    """An outside writer of one stream: what ``Playhead.produce`` gives.

    Leaving ``async with`` closes the stream: ``completed``, or ``failed`` with the error that was raised, or
    ``interrupted`` when the block's task was cancelled. With ``keep_open`` a clean exit only ends this writer's turn.

    Attributes:
        stream_id, epoch: the lease; a later writer has a higher epoch.
        cancelled: set when somebody asked to cancel. Stop, and close; after the grace period it is done for you.
    """

    def __init__(self, producer: Producer, *, keep_open: bool) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._keep_open = keep_open
        self.stream_id, self.epoch = producer.lease
        self.cancelled = producer.cancelled = asyncio.Event()

    async def append(self, *items: object) -> None:
        """Take events, in order. Returns when they are on their way; ``flush`` waits until they are stored.

        Waits while the store is behind. Cancel: safe; an event is taken whole or not at all.
        Raises: InvalidEvent, EventTooLarge, StreamTooLarge, Fenced, StreamClosed, StreamNotFound, StoreError.
        """
        for item in items:
            if self._producer.is_crowded:
                await self._producer.room()
            self._producer.push(item)

    async def flush(self) -> None:
        """Return when everything appended so far is stored, and so visible to every reader. Raises: as append."""
        await self._producer.flush()

    async def close(self, outcome: Outcome = COMPLETED) -> StreamInfo | None:
        """Flush and close. Returns the final state; None when somebody else had taken or closed the stream."""
        return await self._producer.end(outcome)

    async def release(self) -> None:
        """Flush and end this writer's turn; the stream stays live for the next one. Raises: as append."""
        await self._producer.release()

    def __del__(self) -> None:
        # Nobody can write this stream any more, or end it: its readers must not wait for that.
        producer = getattr(self, "_producer", None)
        if producer is not None and not producer.is_ending and not self._loop.is_closed():
            logger.warning("stream %s: its writer was dropped without close() or release()", self.stream_id)
            self._loop.call_soon_threadsafe(producer.finish, WRITER_LOST)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._keep_open:
            await self.release()
        elif error is None:
            await self.close()
        elif isinstance(error, asyncio.CancelledError):
            await self.close(Outcome(OutcomeKind.INTERRUPTED, reason="producer-cancelled"))
        else:
            await self.close(failed(error))
