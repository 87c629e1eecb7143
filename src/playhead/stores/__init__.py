"""Where streams live. Each store is one module; none imports another."""

from typing import Literal

from playhead.errors import InvalidSetting
from playhead.store import Store, StoreOptions

_SYNCHRONOUS: dict[str, Literal["normal", "full"]] = {
    "": "normal",
    "synchronous=normal": "normal",
    "synchronous=full": "full",
}


def open_store(url: str, options: StoreOptions) -> Store:
    """The store of a URL: ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``.

    ``?synchronous=full`` makes SQLite wait for the disk at each commit (see docs/operations.md).
    Raises: InvalidSetting.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "memory" and rest in ("", "/"):
        from playhead.stores.memory import MemoryStore

        return MemoryStore(options=options)
    if separator and scheme == "sqlite":
        from playhead.stores.sqlite import SQLiteStore

        path, _, query = rest.partition("?")
        synchronous = _SYNCHRONOUS.get(query)
        if path.startswith("/") and len(path) > 1 and synchronous is not None:
            return SQLiteStore(path[1:], options=options, synchronous=synchronous)
    raise InvalidSetting(
        "a store is memory:// or sqlite:///path/to/file.db (optionally with ?synchronous=full)", setting="store"
    )
