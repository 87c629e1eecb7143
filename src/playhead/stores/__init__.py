"""Where streams live. Each store is one module; none imports another."""

from typing import Literal

from playhead.errors import InvalidSetting
from playhead.store import Store, StoreOptions

_SYNCHRONOUS: dict[str, Literal["normal", "full"]] = {
    "": "normal",
    "synchronous=normal": "normal",
    "synchronous=full": "full",
}
_REDIS = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")


def open_store(url: str, options: StoreOptions) -> Store:
    """The store of a URL: ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``redis://host:6379``.

    ``?synchronous=full`` makes SQLite wait for the disk at each commit (see docs/operations.md). For the URLs of Redis,
    Sentinel and Cluster see ``playhead.stores.redis.address``.
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
    if separator and scheme in _REDIS:
        try:
            from playhead.stores.redis import RedisStore
        except ModuleNotFoundError as error:
            raise InvalidSetting("a Redis store wants: pip install 'playhead[redis]'", setting="store") from error
        return RedisStore(url, options=options)
    raise InvalidSetting(
        "a store is memory://, sqlite:///path/to/file.db (optionally with ?synchronous=full) or redis://host:6379/0",
        setting="store",
    )
