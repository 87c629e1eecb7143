"""Is this Redis one that streams can be trusted to? Asked when a store is opened; each answer is one clear line."""

import uuid
from contextlib import suppress

import hiredis

from playhead.errors import StoreError, StoreReadOnly, StoreUnavailable, StoreVersionUnsupported
from playhead.stores.redis.faults import kind_of, named
from playhead.stores.redis.keys import FORMAT, Keys
from playhead.stores.redis.router import ASK, WRITE, Router
from playhead.stores.redis.scripts import APPEND, COMMIT, READ
from playhead.stores.redis.wire import Word

OLDEST = (6, 2)


async def check_server(router: Router, keys: Keys) -> None:
    """Raises: StoreError."""
    for reply in await router.ask_each("INFO"):
        _check_info(router, _parsed(reply))
    await _check_permissions(router, keys)
    await _check_format(router, keys)


def _check_info(router: Router, info: dict[str, str]) -> None:
    version = tuple(int(part) for part in info.get("redis_version", "0").split(".")[:2] if part.isdecimal())
    if version < OLDEST:
        raise StoreError(
            f"Redis at {router.name} is version {info.get('redis_version', 'unknown')};"
            f" Playhead needs {'.'.join(map(str, OLDEST))} or newer, or Valkey"
        )
    if info.get("role") == "slave" and router.address.kind == "single":
        raise StoreReadOnly(f"Redis at {router.name} is a read-only replica; name its primary")
    if info.get("loading") == "1":
        raise StoreUnavailable(f"Redis at {router.name} is still reading its data from disk")
    _check_eviction(router, info)


def _parsed(text: bytes) -> dict[str, str]:
    rows = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in rows}


def _check_eviction(router: Router, info: dict[str, str]) -> None:
    # Keys of Playhead carry no time to live, so that policies which take only such keys spare them.
    policy = info.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys-") and not router.address.allow_eviction:
        raise StoreError(
            f"Redis at {router.name} may throw streams away when its memory is full (maxmemory-policy {policy});"
            " set maxmemory-policy noeviction, or allow it with ?allow_eviction=true"
        )


async def _check_permissions(router: Router, keys: Keys) -> None:
    """Does this user have what Playhead needs? Every command once, on a stream of nobody's.

    Also those that only scripts use: what Redis says of a script does not name the command that it may not run.
    """
    check = f"playhead-check-{uuid.uuid4().hex}"  # another process may be asking the same just now
    stream, place, begun = keys.stream(check), keys.thread(check), keys.begun(check)
    gone = stream.gone.encode()
    asked: list[tuple[bytes, list[Word]]] = [
        (keys.instances, ["TIME"]),
        (place, ["UNLINK", place]),
        (place, ["ZADD", place, 0, "x"]),
        (place, ["ZSCORE", place, "x"]),
        (place, ["ZRANGE", place, 0, 0]),
        (place, ["ZRANGEBYSCORE", place, "-inf", "+inf"]),
        (place, ["ZREVRANGEBYSCORE", place, "+inf", "-inf"]),
        (place, ["ZREM", place, "x"]),
        (place, ["SADD", place, "x"]),
        (place, ["SRANDMEMBER", place, 1]),
        (place, ["SREM", place, "x"]),
        (place, ["SPOP", place, 1]),
        (place, ["INCR", place]),
        (place, ["DEL", place]),
        (stream.state, ["HSET", stream.state, "v", "0"]),
        (stream.state, ["HMGET", stream.state, "v"]),
        (stream.state, ["HGET", stream.state, "v"]),
        (stream.state, ["EXISTS", stream.state]),
        (stream.state, ["UNLINK", stream.state]),
        (stream.log, ["XADD", stream.log, "1-0", "p", "1"]),
        (stream.log, ["XRANGE", stream.log, "-", "+"]),
        (stream.log, ["XLEN", stream.log]),
        (stream.log, ["RENAME", stream.log, gone]),
        (gone, ["XTRIM", gone, "MAXLEN", 0]),
        (gone, ["UNLINK", gone]),
        (stream.news, ["PUBLISH", stream.news, ""]),
        (begun, ["PUBLISH", begun, ""]),
        (stream.state, ["EVAL", "return 1", 1, stream.state]),
    ]
    if router.address.replicas:
        asked.append((stream.state, ["WAIT", 0, 1]))
    fields: list[Word] = ["v", "1", "live", 1, "epoch", 1, "info", "{}", "tail", 0, "size", 0, "no", 0]
    try:
        await router.ask_all(ASK, asked)
        await COMMIT.ask(router, WRITE, [stream.state], "", stream.news, "", begun, *fields)
        await APPEND.ask(router, WRITE, [stream.state, stream.log], 1, 1, 1, 0, 1, b"", stream.events, 0)
        await READ.ask(router, WRITE, [stream.state, stream.log], 0, 1)
        await COMMIT.ask(router, WRITE, [stream.state, stream.log, gone], "1", stream.news, "", "")
    finally:
        with suppress(StoreError):  # it has been said already that this user may not
            left = [stream.state, stream.log, gone, place]
            await router.ask_all(WRITE, [(key, ["UNLINK", key]) for key in left])
    wire = await router.open_wire(None, "playhead-check")
    try:
        for word in ("SUBSCRIBE", "UNSUBSCRIBE"):
            for channel in (stream.news, begun):
                reply = await wire.ask(word, channel)
                if isinstance(reply, hiredis.ReplyError) and kind_of(reply) != "LOADING":
                    raise named(reply, router.name)
    finally:
        wire.abort()


async def _check_format(router: Router, keys: Keys) -> None:
    await router.ask(WRITE, keys.format, "SET", keys.format, FORMAT, "NX")
    found = await router.ask(WRITE, keys.format, "GET", keys.format)
    if found is not None and int(found) > FORMAT:
        raise StoreVersionUnsupported(
            f"Redis at {router.name} holds streams of a newer Playhead (format {int(found)}, this one reads {FORMAT})",
            found=int(found),
            supported=FORMAT,
        )
