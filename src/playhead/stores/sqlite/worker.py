"""What the store's threads have in common: a queue in, hand-overs to the loop out, an orderly end."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from playhead.model import Batch, StreamInfo
from playhead.stores.sqlite.rows import Mark
from playhead.stores.sqlite.turns import Turns

T = TypeVar("T")


class Answer(NamedTuple):
    """What becomes of the future that somebody holds."""

    done: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None


class News(NamedTuple):
    """What watchers of a stream are told, and the mark that it had then."""

    stream_id: str
    batch: Batch | None
    info: StreamInfo | None
    mark: Mark


Deliver = Callable[[list[News], list[Answer]], None]
"""Called on the loop: watchers first, then the futures."""


class Worker(Generic[T]):
    """A thread of the store. Its queue takes items, then one None: it finishes what came before and ends."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.queue: SimpleQueue[T | None] = SimpleQueue()
        self.turns = Turns(loop)
        self._loop = loop
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        # A daemon: a loop that died without closing its store must not keep the process
        self._thread = threading.Thread(target=self._main, name=f"playhead-sqlite-{name}", daemon=True)

    async def start(self) -> None:
        """Raises: what the thread's set-up raised."""
        self._thread.start()
        await asyncio.shield(self._ready)

    def hand_over(self, item: T) -> None:
        """On the loop: have the thread work on this."""
        self.queue.put(item)
        self.turns.given()

    async def stop(self) -> None:
        """Have everything that waits done, and the thread ended."""
        if self._thread.ident is None:
            return
        self.queue.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()
        self.turns.stop()

    # ---- in the thread -------------------------------------------------------------------------------

    def _set_up(self) -> None:
        raise NotImplementedError

    def _serve(self) -> None:
        """Work until the queue gives None."""
        raise NotImplementedError

    def _tear_down(self) -> None:
        raise NotImplementedError

    def _main(self) -> None:
        try:
            try:
                self._set_up()
            except Exception as error:  # noqa: BLE001 - handed to whoever started the thread
                self._tell(_resolve, Answer(self._ready, error=error))
                return
            self._tell(_resolve, Answer(self._ready))
            self._serve()
        finally:
            self._tear_down()
            self._tell(_resolve, Answer(self._ended))

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise  # else nobody is left to be told


def resolve(answers: list[Answer]) -> None:
    """On the loop: give each future what it waited for, unless its holder has gone away."""
    for answer in answers:
        _resolve(answer)


def _resolve(answer: Answer) -> None:
    if answer.done.done():
        return
    if answer.error is not None:
        answer.done.set_exception(answer.error)
    else:
        answer.done.set_result(answer.result)
