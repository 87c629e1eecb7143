"""Which store a context uses, from what its caller gives it."""

import logging
import ssl
from typing import Any

import pytest
import redis
import redis.asyncio
import resumable_stream as original
from resumable_libraries import in_memory_pair, text_of
from streaming import say

from playhead.adapters import resumable_stream as ours
from playhead.adapters.resumable_stream import (
    CreateResumableStreamContextOptions,
    RedisPublisher,
    RedisSubscriber,
    create_resumable_stream_context,
    places,
)
from playhead.adapters.resumable_stream.places import Place, place_of
from playhead.errors import InvalidSetting

URL = "redis://redis.internal:6380/3"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("KV_URL", raising=False)


def place(**given: Any) -> Place:
    return place_of(CreateResumableStreamContextOptions(**given))


class Around:
    """A publisher or a subscriber of a user's own, around something else."""

    def __init__(self, inner: object) -> None:
        self._inner = inner


def test_a_url_says_where() -> None:
    assert place(redis_url=URL) == Place(URL)
    assert place(store_url="sqlite:///streams.db") == Place("sqlite:///streams.db")
    assert place(store_url=URL + "?prefix=mine") == Place(URL + "?prefix=mine")
    publisher, subscriber = in_memory_pair(ours)
    assert place(redis_url=URL, publisher=publisher, subscriber=subscriber) == Place(URL)
    with pytest.raises(ValueError, match="not both"):
        place(redis_url=URL, store_url="memory://")


def test_the_environment_says_where_when_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KV_URL", "redis://kv:1")
    assert place() == Place("redis://kv:1")
    monkeypatch.setenv("REDIS_URL", "")
    assert place() == Place("redis://kv:1")
    monkeypatch.setenv("REDIS_URL", "redis://first:1?decode_responses=true")
    assert place() == Place("redis://first:1")
    assert place(store_url="memory://") == Place("memory://")
    publisher, subscriber = in_memory_pair(ours)
    assert place(publisher=publisher, subscriber=subscriber) == Place("memory://", publisher)
    assert place(publisher=RedisPublisher(URL)) == Place(URL)
    with pytest.raises(ValueError, match="redis_url"):  # half a pair is a mistake, and no reason to take another Redis
        place(subscriber=subscriber)


@pytest.mark.parametrize("library", [ours, original])
def test_a_redis_publisher_or_subscriber_says_where(library: Any) -> None:
    publisher, subscriber = library.RedisPublisher(URL), library.RedisSubscriber(URL)
    for pair in ({"publisher": publisher}, {"subscriber": subscriber}, {"publisher": Around(publisher)}):
        assert place(**pair) == Place(URL)
    mine, _ = in_memory_pair(ours)
    assert place(publisher=mine, subscriber=subscriber) == Place(URL)


CLIENTS = [
    ({"host": "h", "port": 7, "db": 2}, "redis://h:7/2"),
    ({}, "redis://localhost:6379/0"),
    ({"host": "::1", "password": "p/w:@#?"}, "redis://:p%2Fw%3A%40%23%3F@[::1]:6379/0"),
    ({"host": "h", "username": "ann", "password": "pw"}, "redis://ann:pw@h:6379/0"),
    ({"unix_socket_path": "/run/my redis.sock", "db": 4}, "unix:///run/my%20redis.sock?db=4"),
    ({"host": "h", "ssl": True}, "rediss://h:6379/0?verify=true"),
    (
        {"host": "h", "ssl": True, "ssl_cert_reqs": "none", "ssl_ca_certs": "/ca.pem"},
        "rediss://h:6379/0?ca=%2Fca.pem&verify=false",
    ),
    ({"host": "h", "ssl": True, "ssl_cert_reqs": ssl.CERT_NONE}, "rediss://h:6379/0?verify=false"),
]


@pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis])
@pytest.mark.parametrize(("settings", "url"), CLIENTS)
def test_a_redis_py_client_says_where(kind: Any, settings: dict[str, Any], url: str) -> None:
    client = kind(**settings, decode_responses=True)
    for publisher in (client, Around(client)):
        assert place(publisher=publisher, subscriber=object()) == Place(url)
    from playhead.stores.redis.address import Address

    if "ssl" not in settings:
        assert Address.parse(url).login.password == settings.get("password")


def test_a_client_of_unknown_whereabouts_is_no_reason_to_keep_streams_in_memory() -> None:
    sentinel = redis.asyncio.Sentinel([("h", 1)]).master_for("mymaster")
    with_credentials = redis.asyncio.Redis(credential_provider=redis.UsernamePasswordCredentialProvider("a", "b"))
    for client in (sentinel, with_credentials, redis.asyncio.RedisCluster(host="h")):
        with pytest.raises(ValueError, match="give redis_url= as well"):
            place(publisher=Around(client), subscriber=object())
        assert place(publisher=Around(client), subscriber=object(), redis_url=URL) == Place(URL)


class NoConnection(redis.asyncio.Connection):
    """As a stand-in for Redis has it that runs in this process."""


def test_a_stand_in_for_redis_is_this_process(caplog: pytest.LogCaptureFixture) -> None:
    client = redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(connection_class=NoConnection))
    publisher = Around(client)
    assert place(publisher=publisher, subscriber=object()) == Place("memory://", publisher)


def test_streams_that_only_this_process_sees_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    places._warn_of_memory.cache_clear()
    publisher, subscriber = in_memory_pair(ours)
    with caplog.at_level(logging.WARNING, "playhead"):
        for _ in range(3):  # one for each request, say
            create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    (told,) = caplog.messages
    assert "kept in this process only" in told
    assert "InMemoryPublisher" in told


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("redis://h/0?decode_responses=True&max_connections=10&socket_timeout=5&protocol=3", "redis://h/0"),
        ("rediss://:pw@h:6380?ssl_cert_reqs=none", "rediss://:pw@h:6380?verify=false"),
        ("rediss://:pw@h:6380?ssl_cert_reqs=required&db=2", "rediss://:pw@h:6380?verify=true&db=2"),
        ("redis://h/0?prefix=mine&replicas=1", "redis://h/0?prefix=mine&replicas=1"),
        ("redis+sentinel://h:1,i:2/mymaster/0", "redis+sentinel://h:1,i:2/mymaster/0"),
    ],
)
def test_urls_for_redis_py_are_understood(given: str, meant: str) -> None:
    assert place(redis_url=given) == Place(meant)
    create_resumable_stream_context(redis_url=given)


@pytest.mark.parametrize("url", ["http://h", "redis://h?no_such_setting=1", "h:6379", "rediss://h?ssl_certfile=/x"])
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidSetting):
        create_resumable_stream_context(redis_url=url)


async def test_the_original_takes_no_url(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with pytest.raises(TypeError, match="redis_url"):
        original.create_resumable_stream_context(redis_url=redis_url)
    with pytest.raises(ValueError, match="redis_url"):
        original.create_resumable_stream_context()


async def test_all_ways_to_name_a_redis_meet_there(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = redis.asyncio.from_url(redis_url, decode_responses=True)
    monkeypatch.setenv("REDIS_URL", redis_url)
    contexts = [
        create_resumable_stream_context(redis_url=redis_url),
        create_resumable_stream_context(store_url=redis_url),
        create_resumable_stream_context(),
        create_resumable_stream_context(publisher=RedisPublisher(redis_url), subscriber=RedisSubscriber(redis_url)),
        create_resumable_stream_context(publisher=client, subscriber=Around(client.pubsub())),
        create_resumable_stream_context(CreateResumableStreamContextOptions("resumable-stream"), redis_url=redis_url),
    ]
    assert await text_of(await contexts[0].resumable_stream("s", lambda: say("Hello"))) == "Hello"
    assert [await context.has_existing_stream("s") for context in contexts] == ["DONE"] * len(contexts)
    await client.aclose()


def test_keywords_win_over_options() -> None:
    options = CreateResumableStreamContextOptions(key_prefix="a", store_url="memory://")
    context = create_resumable_stream_context(options, key_prefix="b", replay_finished=True)
    assert (context._options.key_prefix, context._options.replay_finished) == ("b", True)
    assert (options.key_prefix, options.replay_finished) == ("a", False)
