"""The start-up self check of a Redis store, and its URL: each mistake is one clear line, without the password."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hiredis
import pytest
import redis
from redis_server import RedisServer, free_port

from playhead.errors import (
    InvalidSetting,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionUnsupported,
)
from playhead.log import Close, Create
from playhead.model import COMPLETED, Batch, Lease
from playhead.stores.redis import RedisStore
from playhead.stores.redis.address import Address
from playhead.stores.redis.faults import kind_of

SESAME = "open-sesame"

COMMANDS = [
    *("time", "info", "hmget", "hget", "hset", "del", "rename", "exists", "xadd", "xrange", "xlen", "xtrim", "zadd"),
    *("zrem", "zscore", "zrange", "zrangebyscore", "zrevrangebyscore", "sadd", "srem", "srandmember", "spop", "unlink"),
    *("set", "get", "incr", "publish", "subscribe", "unsubscribe", "evalsha", "eval", "select"),
]


async def refusal(url: str, kind: type[Exception] = StoreError) -> str:
    """What is said when the store is opened: one line that can be shown."""
    store = RedisStore(url)
    with pytest.raises(kind) as refused:
        async with asyncio.timeout(60):
            await store.open()
    assert type(refused.value) is kind
    said = str(refused.value)
    assert "\n" not in said
    assert SESAME not in said
    assert "Traceback" not in said
    await store.close()  # is nothing, but does no harm
    return said


async def works(url: str) -> None:
    store = RedisStore(url)
    await store.open()
    try:
        name = store.instance_id
        info = (await store.apply(name, Create(producer=name, idempotency_key=name, thread_id="t"))).info
        await store.append(Lease(name, info.epoch), Batch(1, info.epoch, "text", [b"hello"]))
        assert [batch.datas for batch in (await store.read(name, 0)).batches] == [[b"hello"]]
        await store.apply(name, Close(info.epoch, COMPLETED))
    finally:
        await store.close()


# ---- servers that are not the right ones ---------------------------------------------------------------


class Impostor(asyncio.Protocol):
    """Speaks Redis's protocol, answers INFO with what it is told, and everything else with OK."""

    def __init__(self, info: bytes) -> None:
        self.info = info
        self.parser = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed(data)
        while (words := self.parser.gets()) is not False:
            is_info = words[0] == b"INFO"
            self.transport.write(b"$%d\r\n%s\r\n" % (len(self.info), self.info) if is_info else b"+OK\r\n")


class WebServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@contextlib.asynccontextmanager
async def served(protocol: Callable[[], asyncio.Protocol]) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


async def test_nobody_listens_there() -> None:
    port = free_port()
    said = await refusal(f"redis://:{SESAME}@127.0.0.1:{port}/0", StoreUnavailable)
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in said
    assert "is it running?" in said


async def test_there_is_no_such_socket(tmp_path: Any) -> None:
    said = await refusal(f"unix://{tmp_path}/nothing.sock", StoreUnavailable)
    assert f"{tmp_path}/nothing.sock cannot be reached" in said


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.stores.redis.wire.CONNECT_MAX_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        said = await refusal(f"redis://127.0.0.1:{deaf.getsockname()[1]}/0", StoreUnavailable)
    assert "did not answer within" in said


async def test_something_else_listens_there() -> None:
    async with served(WebServer) as url:
        assert "does not speak Redis's protocol" in await refusal(url, StoreUnavailable)


async def test_too_old() -> None:
    async with served(lambda: Impostor(b"redis_version:6.0.16\r\nrole:master\r\n")) as url:
        said = await refusal(url)
    assert "is version 6.0.16; Playhead needs 6.2 or newer, or Valkey" in said


async def test_version_10_is_newer_than_6() -> None:
    async with served(lambda: Impostor(b"redis_version:10.0.1\r\nrole:slave\r\n")) as url:
        assert "replica" in await refusal(url, StoreReadOnly)


async def test_still_loading() -> None:
    async with served(lambda: Impostor(b"redis_version:7.2.0\r\nrole:master\r\nloading:1\r\n")) as url:
        assert "still reading its data from disk" in await refusal(url, StoreUnavailable)


async def test_a_read_only_replica(redis_url: str, redis_server: RedisServer, make_redis: Callable[..., Any]) -> None:
    replica = make_redis("--replicaof", "127.0.0.1", str(redis_server.port))
    said = await refusal(replica.url, StoreReadOnly)
    assert f"Redis at 127.0.0.1:{replica.port} is a read-only replica; name its primary" in said


async def test_a_newer_format(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.command("SET", "playhead:format", "2")
    said = await refusal(redis_url, StoreVersionUnsupported)
    assert "newer Playhead (format 2, this one reads 1)" in said
    await works(f"{redis_url}?prefix=another")


async def test_something_else_under_our_keys(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.command("SET", "playhead:1:instances", "mine")
    said = await refusal(redis_url, StoreCorrupt)
    assert "use another prefix" in said


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("READONLY You can't write against a read only replica. script: 5f, on @user_script:14.", "READONLY"),
        # Redis 6.2 says what a script met in the middle of its own words.
        ("ERR Error running script (call to f_5f): @user_script:14: -READONLY You can't write.", "READONLY"),
        ("ERR Error running script (call to f_5f): @user_script:14: @user_script: 14: -OOM command not", "OOM"),
        ("ERR Error running script (call to f_5f): @user_script:1: user_script:1: attempt to index", "ERR"),
        ("ERR Protocol error: unauthenticated multibulk length", "NOAUTH"),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
    ],
)
def test_what_a_script_met_is_known_by_its_kind(said: str, kind: str) -> None:
    assert kind_of(hiredis.ReplyError(said)) == kind


async def test_full_memory_is_waited_out(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis("--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
    store = RedisStore(server.url)
    await store.open()
    try:
        info = (await store.apply("s", Create(producer=store.instance_id))).info
        server.command("CONFIG", "SET", "maxmemory", "1")
        batch = Batch(1, info.epoch, "text", [b"hello"])
        with pytest.raises(StoreFull, match="has no memory left") as full:
            await store.append(Lease("s", info.epoch), batch)
        assert full.value.retryable
        server.command("CONFIG", "SET", "maxmemory", "100mb")
        await store.append(Lease("s", info.epoch), batch)
    finally:
        await store.close()


# ---- users and passwords -------------------------------------------------------------------------------


@pytest.fixture
def guarded(make_redis: Callable[..., RedisServer]) -> RedisServer:
    return make_redis("--requirepass", SESAME)


async def test_passwords(guarded: RedisServer) -> None:
    at = f"127.0.0.1:{guarded.port}/0"
    assert "wants a password; put it into the URL" in await refusal(f"redis://{at}")
    assert "does not accept this user name or password" in await refusal(f"redis://:{SESAME}x@{at}")
    assert "does not accept this user name or password" in await refusal(f"redis://nobody:{SESAME}@{at}")
    await works(f"redis://:{SESAME}@{at}")
    await works(f"redis://default:{SESAME}@{at}")


@pytest.fixture
def limited(redis_server: RedisServer, redis_url: str) -> Iterator[Callable[..., str]]:
    """Makes a user with a few permissions less, and its URL."""

    def limit(*rules: str, keys: str = "~playhead:*", channels: str = "&playhead:*") -> str:
        redis_server.command(
            "ACL", "SETUSER", "limited", "reset", "on", f">{SESAME}", keys, "resetchannels", channels, "+@all", *rules
        )
        return f"redis://limited:{SESAME}@127.0.0.1:{redis_server.port}/1"

    yield limit
    redis_server.command("ACL", "DELUSER", "limited")


async def test_a_user_who_may_do_what_is_documented_and_no_more(limited: Callable[..., str]) -> None:
    await works(limited("-@all", *(f"+{command}" for command in COMMANDS)))


@pytest.mark.parametrize("scripts_are_known", [False, True])
async def test_each_permission_that_lacks_is_told_at_once(
    limited: Callable[..., str], redis_server: RedisServer, scripts_are_known: bool
) -> None:
    await works(limited())
    for command in COMMANDS:
        if not scripts_are_known:
            redis_server.command("SCRIPT", "FLUSH")
        said = await refusal(limited(f"-{command}"))
        assert f"'{command}'" in said, said
        assert "does not let this user do what Playhead needs" in said


async def test_a_refused_check_leaves_nothing_behind(limited: Callable[..., str], redis_server: RedisServer) -> None:
    for command in COMMANDS:
        if command != "unlink":  # nobody can clean up without it
            await refusal(limited(f"-{command}"))
    with redis.Redis(port=redis_server.port, db=1) as client:
        left = {key.decode() for key in client.keys("*")}
    assert left <= {"playhead:format"}, left


@pytest.mark.parametrize(
    "narrow",
    [{"keys": "~other:*"}, {"keys": "%R~playhead:*"}, {"channels": "&other:*"}, {"channels": "&playhead:1:{s:*"}],
    ids=["no keys", "keys to read only", "no channels", "channels of streams only"],
)
async def test_keys_and_channels_that_are_out_of_reach(
    limited: Callable[..., str], redis_server: RedisServer, narrow: dict[str, str]
) -> None:
    if "%" in narrow.get("keys", "") and redis_server.command("INFO")["redis_version"] < "7":
        pytest.skip("this Redis cannot tell reading from writing")
    assert "does not let this user do what Playhead needs" in await refusal(limited(**narrow))


async def test_permission_to_wait_for_replicas_is_only_asked_for_when_it_is_needed(limited: Callable[..., str]) -> None:
    url = limited("-wait")
    await works(url)
    assert "'wait'" in await refusal(f"{url}?replicas=1")


# ---- memory --------------------------------------------------------------------------------------------


async def test_a_redis_that_may_evict_streams_is_refused_unless_allowed(
    redis_url: str, redis_server: RedisServer
) -> None:
    try:
        for policy in ("allkeys-lru", "allkeys-lfu", "allkeys-random"):
            redis_server.command("CONFIG", "SET", "maxmemory-policy", policy)
            said = await refusal(redis_url)
            assert f"(maxmemory-policy {policy})" in said
            assert "?allow_eviction=true" in said
            redis_server.command("FLUSHALL")
            await works(f"{redis_url}?allow_eviction=true")
        redis_server.command("FLUSHALL")
        redis_server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")  # takes none of our keys
        await works(redis_url)
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")


# ---- URLs ----------------------------------------------------------------------------------------------


def parsed(url: str) -> dict[str, Any]:
    """What a URL says beyond the defaults."""
    address = Address.parse(url)
    found: dict[str, Any] = {"kind": address.kind, "at": [str(endpoint) for endpoint in address.endpoints]}
    login = address.login
    asked = {"user": login.username, "password": login.password, "db": login.database, "service": address.service}
    asked |= {"replicas": address.replicas, "evicts": address.allow_eviction, "tls": login.tls is not None}
    asked |= {"sentinel": address.sentinel_login.password, "prefix": address.prefix.removeprefix("playhead")}
    return found | {name: value for name, value in asked.items() if value}


ONE = {"kind": "single", "at": ["h:6379"]}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h", ONE),
        ("redis://", {"kind": "single", "at": ["localhost:6379"]}),
        ("redis://:7000", {"kind": "single", "at": ["localhost:7000"]}),
        ("redis://h:7000/2", {"kind": "single", "at": ["h:7000"], "db": 2}),
        ("redis://h?db=3", ONE | {"db": 3}),
        ("redis://:secret@h", ONE | {"password": "secret"}),
        ("redis://ann:secret@h", ONE | {"user": "ann", "password": "secret"}),
        ("redis://a%40b:p%2F%3F%23%40%3Aw@h/1", ONE | {"user": "a@b", "password": "p/?#@:w", "db": 1}),
        ("redis://[::1]:7/1", {"kind": "single", "at": ["::1:7"], "db": 1}),
        ("rediss://h", ONE | {"tls": True}),
        ("rediss://h?verify=false", ONE | {"tls": True}),
        ("redis://h/0?replicas=2&allow_eviction=true&prefix=mine", ONE | {"replicas": 2, "evicts": True}),
        ("unix:///run/redis.sock", {"kind": "single", "at": ["/run/redis.sock"]}),
        ("unix://:secret@/run/redis.sock?db=4", {"at": ["/run/redis.sock"], "password": "secret", "db": 4}),
        ("redis+sentinel://a,b:7/main", {"kind": "sentinel", "at": ["a:26379", "b:7"], "service": "main"}),
        (
            "redis+sentinel://u:p@a/main/3?sentinel_password=q&tls=true",
            {"at": ["a:26379"], "user": "u", "password": "p", "db": 3, "sentinel": "q", "tls": True},
        ),
        ("redis+cluster://a:1,b", {"kind": "cluster", "at": ["a:1", "b:6379"]}),
        ("redis+cluster://:p@a/0", {"kind": "cluster", "at": ["a:6379"], "password": "p"}),
    ],
)
def test_every_form_of_url(url: str, says: dict[str, Any]) -> None:
    assert parsed(url).items() >= says.items()
    if "prefix=" not in url and "main" not in url:
        assert parsed(url) == {"kind": "single"} | says


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://h:port", "port from 1 to 65535"),
        ("redis://h:0", "port from 1 to 65535"),
        ("redis://h:65536", "port from 1 to 65535"),
        ("redis://h:-1", "port from 1 to 65535"),
        ("redis://a:b:1", "port from 1 to 65535"),
        ("redis://[::1/0", "does not belong there"),
        ("redis://h/first", "the database is a number"),
        ("redis://h/1/2", "the database is a number"),
        ("redis://h?db=-1", "the database is a number"),
        ("redis://ann@h", "a user name wants a password"),
        ("redis://a,b/0", "several hosts are for"),
        ("redis+cluster://a,,b", "no host"),
        ("redis+cluster://a/1", "a cluster has only number 0"),
        ("redis+sentinel://a,b", "the name of the service"),
        ("unix://", "the whole path of a socket"),
        ("unix://run/redis.sock", "the whole path of a socket"),
        ("redis://h?replicas=-1", "replicas is a number"),
        ("redis://h?replicas=two", "replicas is a number"),
        ("redis://h?prefix=", "the prefix is"),
        ("redis://h?prefix={a}", "the prefix is"),
        ("redis://h?allow_eviction=perhaps", "allow_eviction is true or false"),
        ("redis://h?tls=perhaps", "tls is true or false"),
        ("rediss://h?ca=/does/not/exist.pem", "ca= cannot be read"),
        ("redis://h?colour=red&allow_evictions=true", "there is no option allow_evictions, colour"),
        ("http://h", "a Redis store begins with"),
        # Whoever forgets to encode a password must not find it in a log.
        ("redis://:open/open-sesame@h/0", "are written %2F"),
        ("redis://:open?open-sesame@h/0", "are written %2F"),
        ("redis://:open?open-sesame=1@h/0", "are written %2F"),
        ("redis://:open-sesame#@h/0", "are written %2F"),
        ("redis://:open-sesame#open-sesame@h/0", "are written %2F"),
        ("redis://h:open-sesame", "port from 1 to 65535"),
        ("redis://u:open-sesame℀@h/0", "does not belong there"),
        ("redis://u:open-sesame@h:x/0", "port from 1 to 65535"),
        ("redis://u:open-sesame@h/x", "the database is a number"),
    ],
)
def test_every_mistake_in_a_url(url: str, complaint: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Address.parse(url)
    assert complaint in str(refused.value)
    assert SESAME not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_url_is_shown_without_its_password() -> None:
    store = RedisStore(f"redis://ann:{SESAME}@h:7000/2")
    assert str(Address.parse(f"redis://ann:{SESAME}@h:7000/2")) == "h:7000"
    assert SESAME not in repr(store)
