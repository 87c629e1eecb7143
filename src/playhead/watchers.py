"""Who in this process is to be told of news of what. Stores keep them; engines call ``Store.watch`` and its like."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Watchers(Generic[P]):
    """The watchers of each stream, or of each thread, in the order in which they came. For one event loop."""

    def __init__(self) -> None:
        self._wakes: dict[str, dict[object, Callable[P, None]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._wakes

    def __iter__(self) -> Iterator[str]:
        return iter(self._wakes)

    def __len__(self) -> int:
        return len(self._wakes)

    def add(self, name: str, wake: Callable[P, None], *, gone: Callable[[], None] | None = None) -> Callable[[], None]:
        """Returns the undo; ``gone`` is called when the last watcher of that name has been undone."""
        wakes = self._wakes.setdefault(name, {})
        key = object()  # the same callable may watch twice
        wakes[key] = wake

        def undo() -> None:
            if wakes.pop(key, None) and not wakes:
                del self._wakes[name]
                if gone is not None:
                    gone()

        return undo

    def tell(self, name: str, *news: P.args, **more: P.kwargs) -> None:
        wakes = self._wakes.get(name)
        if wakes is None:
            return
        for wake in tuple(wakes.values()):
            try:
                wake(*news, **more)
            except Exception as error:  # noqa: BLE001 - one bad watcher must not cost the others their answers
                context = {"message": "a watcher failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
