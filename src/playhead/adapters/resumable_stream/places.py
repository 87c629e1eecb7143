"""Where a context's streams are: the URL of a store, out of whatever its caller has given.

playhead= | store_url= | redis_url=      what the caller says
publisher=, subscriber=                  the Redis that they stand for: a RedisPublisher or RedisSubscriber, a redis-py
                                         client, an object that holds one of these or the URL; else this process
REDIS_URL, KV_URL                        only if there is none of the above
"""

import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from playhead.adapters.resumable_stream.options import CreateResumableStreamContextOptions

MEMORY = "memory://"
_PAIR = ("publisher", "subscriber")
_URL_NAMES = ("redis_url", "_redis_url")
_NAMES = {"ssl_ca_certs": "ca"}
_CLIENT_ONLY = frozenset(
    {
        "client_name",
        "decode_responses",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "lib_name",
        "lib_version",
        "max_connections",
        "protocol",
        "retry_on_error",
        "retry_on_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_read_size",
        "socket_timeout",
        "timeout",
    }
)
"""What a URL for redis-py may say about redis-py itself."""

logger = logging.getLogger("playhead")


class Place(NamedTuple):
    """A store's URL; for streams in memory also whose they are: contexts with the same pair share them."""

    url: str
    whose: object = None


@cache
def _warn_of_memory(publisher: str) -> None:
    """Once is enough: an app may make a context for each request."""
    logger.warning(
        "resumable streams are kept in this process only: the publisher %s stands for no Redis that is known;"
        " redis_url= or store_url= puts them where every process sees them",
        publisher,
    )


def place_of(options: CreateResumableStreamContextOptions) -> Place:
    """Raises: ValueError when nothing says where, or several things do."""
    given = [name for name in ("redis_url", "store_url") if getattr(options, name)]
    if len(given) > 1:
        raise ValueError("give redis_url= or store_url=, not both")
    if options.store_url:
        return Place(options.store_url)
    if options.redis_url:
        return Place(_for_playhead(options.redis_url))
    pair = [thing for name in _PAIR if (thing := getattr(options, name)) is not None]
    for thing in pair:
        if url := _url_of(thing):
            return Place(url)
    if len(pair) == len(_PAIR):
        _warn_of_memory(type(options.publisher).__name__)
        return Place(MEMORY, options.publisher)
    if not pair and (url := os.environ.get("REDIS_URL") or os.environ.get("KV_URL")):
        return Place(_for_playhead(url))
    raise ValueError(
        "where are the streams to be stored? Give redis_url= or store_url=, a publisher and a subscriber, or set"
        " REDIS_URL or KV_URL"
    )


def _for_playhead(url: str) -> str:
    """A URL as redis-py takes it, without what it says about redis-py itself."""
    address, _, query = url.partition("?")
    settings: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "ssl_cert_reqs":
            settings.append(("verify", "false" if value in ("none", "0", "CERT_NONE") else "true"))
        elif name not in _CLIENT_ONLY:
            settings.append((_NAMES.get(name, name), value))
    return f"{address}?{urlencode(settings)}" if settings else address


def _url_of(thing: object) -> str | None:
    """The Redis that one of a pair stands for, or holds; None when that is none. Raises: ValueError."""
    for candidate in (thing, *_held_by(thing)):
        for name in _URL_NAMES:
            if isinstance(url := getattr(candidate, name, None), str):
                return _for_playhead(url)
        if _is_of_redis_py(type(candidate)) and (found := _url_of_client(candidate)):
            return found
    return None


def _held_by(thing: object) -> Iterator[object]:
    yield from getattr(thing, "__dict__", {}).values()


def _is_of_redis_py(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "redis" for base in kind.__mro__)


def _url_of_client(client: Any) -> str | None:
    """The URL of a redis-py client; None of one that only looks like it (fakeredis). Raises: ValueError."""
    pool = getattr(client, "connection_pool", None)
    settings: dict[str, Any] = getattr(pool, "connection_kwargs", {})
    connection: type = getattr(pool, "connection_class", type(client))
    if connection.__module__.partition(".")[0] != "redis":
        return None
    is_plain = connection.__name__ in ("Connection", "SSLConnection", "UnixDomainSocketConnection")
    if not is_plain or settings.get("credential_provider"):
        raise ValueError(f"which Redis this {type(client).__name__} stands for is not known; give redis_url= as well")
    username, password = settings.get("username") or "", settings.get("password") or ""
    login = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    if path := settings.get("path"):
        return f"unix://{login}{quote(path)}?db={settings.get('db') or 0}"
    host, port, database = settings.get("host", "localhost"), settings.get("port", 6379), settings.get("db") or 0
    host = f"[{host}]" if ":" in host else host
    if connection.__name__ != "SSLConnection":
        return f"redis://{login}{host}:{port}/{database}"
    tls = {name: settings[name] for name in ("ssl_ca_certs", "ssl_cert_reqs") if settings.get(name) is not None}
    return _for_playhead(f"rediss://{login}{host}:{port}/{database}?{urlencode(tls)}")
