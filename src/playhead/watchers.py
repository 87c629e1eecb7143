"""Who in this process is to be told of news of which stream. Stores keep one; engines call ``Store.watch``."""

import asyncio
from collections.abc import Callable, Iterator

from playhead.model import Batch, StreamInfo
from playhead.store import Wake


class Watchers:
    """The watchers of each stream, in the order in which they came. For one event loop."""

    def __init__(self) -> None:
        self._wakes: dict[str, dict[object, Wake]] = {}

    def __contains__(self, stream_id: str) -> bool:
        return stream_id in self._wakes

    def __iter__(self) -> Iterator[str]:
        return iter(self._wakes)

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, stream_id: str, wake: Wake, *, gone: Callable[[], None] | None = None) -> Callable[[], None]:
        """Returns the undo; ``gone`` is called when the last watcher of the stream has been undone."""
        wakes = self._wakes.setdefault(stream_id, {})
        key = object()  # the same callable may watch twice
        wakes[key] = wake

        def undo() -> None:
            if wakes.pop(key, None) and not wakes:
                del self._wakes[stream_id]
                if gone is not None:
                    gone()

        return undo

    def tell(self, stream_id: str, batch: Batch | None, info: StreamInfo | None) -> None:
        wakes = self._wakes.get(stream_id)
        if wakes is None:
            return
        for wake in tuple(wakes.values()):
            try:
                wake(batch, info)
            except Exception as error:  # noqa: BLE001 - one bad watcher must not cost the others their answers
                context = {"message": "a watcher of a stream failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
