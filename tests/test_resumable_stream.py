"""The same code on the original and on ours: same calls, same results, wherever the original works."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
import redis
import resumable_stream as original
from resumable_libraries import LIBRARIES, chunks_of, first_of, in_memory_pair, text_of
from streaming import Scripted, say, until

from playhead.adapters import resumable_stream as ours

CALLS = ("resumable_stream", "create_new_resumable_stream", "resume_existing_stream", "has_existing_stream")
MakeContext = Callable[..., Awaitable[Any]]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return LIBRARIES[request.param]


@pytest_asyncio.fixture
async def make_context(library: Any, redis_url: str) -> AsyncIterator[MakeContext]:
    """Makes one more context on one Redis, with a publisher and a subscriber of its own: like one more instance."""
    pairs: list[Any] = []

    async def make(**settings: Any) -> Any:
        publisher, subscriber = library.RedisPublisher(redis_url), library.RedisSubscriber(redis_url)
        pairs.extend((publisher, subscriber))
        await publisher.connect()
        await subscriber.connect()
        return library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber, **settings)

    yield make
    for one in pairs:
        await one.close()


async def is_done(context: Any, stream_id: str = "s") -> None:
    async def done() -> bool:
        return bool(await context.has_existing_stream(stream_id) == "DONE")

    await until(done)


# ---- the surface ---------------------------------------------------------------------------------------


def test_everything_that_the_original_exports_is_here() -> None:
    assert set(original.__all__) <= set(ours.__all__)
    for name in ours.__all__:
        assert getattr(ours, name).__doc__


@pytest.mark.parametrize("call", CALLS)
def test_calls_take_the_same_arguments(call: str) -> None:
    def shape(context: Any) -> list[tuple[str, Any, Any]]:
        parameters = inspect.signature(getattr(context, call)).parameters.values()
        return [(one.name, one.kind, one.default) for one in parameters]

    assert shape(ours.ResumableStreamContext) == shape(original.ResumableStreamContext)


@pytest.mark.parametrize("name", ["Publisher", "Subscriber", "RedisPublisher", "RedisSubscriber"])
def test_publishers_and_subscribers_have_the_same_methods(name: str) -> None:
    def shape(kind: Any) -> dict[str, list[tuple[str, Any, Any]]]:
        methods = {key: value for key, value in inspect.getmembers(kind, inspect.isfunction) if not key.startswith("_")}
        return {
            key: [(one.name, one.kind, one.default) for one in inspect.signature(value).parameters.values()]
            for key, value in methods.items()
        }

    assert shape(getattr(ours, name)) == shape(getattr(original, name))
    assert getattr(ours, name).__abstractmethods__ == getattr(original, name).__abstractmethods__


def test_options_have_the_same_fields_in_the_same_order(library: Any) -> None:
    options = library.CreateResumableStreamContextOptions("prefix", print, "subscriber", "publisher")
    assert (options.key_prefix, options.wait_until) == ("prefix", print)
    assert (options.subscriber, options.publisher) == ("subscriber", "publisher")
    assert library.CreateResumableStreamContextOptions().key_prefix == "resumable-stream"


async def test_a_context_is_made_from_options_or_from_keywords(library: Any) -> None:
    publisher, subscriber = in_memory_pair(library)
    options = library.CreateResumableStreamContextOptions(publisher=publisher, subscriber=subscriber)
    for context in (
        library.create_resumable_stream_context(options),
        library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber),
    ):
        assert await context.has_existing_stream("nothing") is None
    with pytest.raises(TypeError):
        library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber, no_such_option=1)


def test_a_context_needs_to_know_where(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("KV_URL", raising=False)
    with pytest.raises(ValueError, match="redis_url"):
        library.create_resumable_stream_context()
    with pytest.raises(ValueError, match="redis_url"):
        library.create_resumable_stream_context(publisher=in_memory_pair(library)[0])


# ---- results -------------------------------------------------------------------------------------------


async def test_the_idempotent_call_begins_then_resumes_then_is_none(make_context: MakeContext) -> None:
    one, other = await make_context(), await make_context()
    source, never = Scripted("Hello ", "wor", then=("ld", "!")), Scripted("never")
    begun = await one.resumable_stream("s", source)
    await source.said.wait()
    resumed = await other.resumable_stream("s", never)
    again = await one.resumable_stream("s", never)
    seen = [await first_of(resumed), await first_of(again)]
    source.go_on.set()
    assert await chunks_of(begun) == ["Hello ", "wor", "ld", "!"]
    assert "".join([seen[0], *await chunks_of(resumed)]) == "Hello world!"
    assert "".join([seen[1], *await chunks_of(again)]) == "Hello world!"
    await is_done(other)
    assert await one.resumable_stream("s", never) is None
    assert await other.resumable_stream("s", never, skip_characters=5) is None
    assert (source.runs, never.runs) == (1, 0)


async def test_the_explicit_calls(make_context: MakeContext) -> None:
    one, other = await make_context(), await make_context()
    source = Scripted("Hello ", then=("world",))
    assert await other.resume_existing_stream("s") == "NOT_FOUND"
    begun = await one.create_new_resumable_stream("s", source)
    await source.said.wait()
    resumed = await other.resume_existing_stream("s")
    assert await first_of(resumed) == "Hello "
    source.go_on.set()
    assert await text_of(begun) == "Hello world"
    assert await text_of(resumed) == "world"
    await is_done(other)
    assert await other.resume_existing_stream("s") is None
    assert await other.resume_existing_stream("another") == "NOT_FOUND"


async def test_the_state_of_a_stream(make_context: MakeContext) -> None:
    context = await make_context()
    source = Scripted("Hello", then=())
    assert await context.has_existing_stream("s") is None
    stream = await context.create_new_resumable_stream("s", source)
    assert await context.has_existing_stream("s") is True
    await source.said.wait()
    assert await context.has_existing_stream("s") is True
    source.go_on.set()
    assert await chunks_of(stream) == ["Hello"]
    await is_done(context)
    assert await context.has_existing_stream("s") == "DONE"


async def test_a_finished_stream_can_be_begun_anew(make_context: MakeContext) -> None:
    one, other = await make_context(), await make_context()
    for turn in ("first", "second", "third"):
        stream = await one.create_new_resumable_stream("s", lambda turn=turn: say(turn, " answer"))
        assert await text_of(stream) == f"{turn} answer"
        await is_done(other)
    source = Scripted("fourth")
    stream = await one.create_new_resumable_stream("s", source)
    assert await first_of(stream) == "fourth"
    resumed = await other.resume_existing_stream("s", 2)
    assert await first_of(resumed) == "urth"
    source.go_on.set()
    assert await text_of(stream) == ""
    assert await text_of(resumed) == ""


TEXT = ("aé", "日本", "", "🙂🙃x", "\n\n", "end")
WHOLE = "".join(TEXT)
BORDERS = [None, 0, 1, 2, 3, 4, 5, 6, 7, 9, len(WHOLE) - 1, len(WHOLE), len(WHOLE) + 1, 1000]


@pytest.mark.parametrize("skip", BORDERS)
async def test_skip_characters_counts_characters_across_borders(make_context: MakeContext, skip: int | None) -> None:
    """… of what was said when the reader came: what comes later is given in any case, as in the original."""
    one, other = await make_context(), await make_context()
    source = Scripted(*TEXT, then=("later", "!"))
    begun = await one.resumable_stream("s", source)
    assert [await first_of(begun) for _ in TEXT] == list(TEXT)
    readers = [await other.resumable_stream("s", source, skip), await other.resume_existing_stream("s", skip)]
    # Requests are answered in turn: when this one has its answer, the readers have been heard.
    assert await first_of(await other.resume_existing_stream("s")) is not None
    source.go_on.set()
    assert await chunks_of(begun) == ["later", "!"]
    for reader in readers:
        assert await text_of(reader) == WHOLE[skip or 0 :] + "later!"


@pytest.mark.parametrize("call", ["resumable_stream", "create_new_resumable_stream"])
async def test_whoever_begins_a_stream_skips_nothing(make_context: MakeContext, call: str) -> None:
    context = await make_context()
    assert await chunks_of(await getattr(context, call)("s", lambda: say("Hello ", "world"), 3)) == ["Hello ", "world"]


async def test_a_stream_goes_on_when_its_readers_leave(make_context: MakeContext) -> None:
    one, other = await make_context(), await make_context()
    source = Scripted("a", then=("b",))
    begun = await one.resumable_stream("s", source)
    assert await first_of(begun) == "a"
    await begun.aclose()
    reading = asyncio.ensure_future(text_of(await other.resume_existing_stream("s")))
    await asyncio.sleep(0)
    reading.cancel()
    await source.said.wait()
    last = await other.resume_existing_stream("s")
    assert await first_of(last) == "a"
    source.go_on.set()
    assert await text_of(last) == "b"
    await is_done(other)


async def test_many_readers_get_everything(make_context: MakeContext) -> None:
    one, other = await make_context(), await make_context()
    source = Scripted("0", then=tuple(str(number) for number in range(1, 50)))
    begun = await one.resumable_stream("s", source)
    await source.said.wait()
    readers = [await context.resumable_stream("s", source) for context in (one, other) * 10]
    firsts = [await first_of(reader) for reader in readers]
    source.go_on.set()
    whole = "".join(str(number) for number in range(50))
    assert await text_of(begun) == whole
    assert [first + await text_of(reader) for first, reader in zip(firsts, readers, strict=True)] == [whole] * 20


async def test_prefixes_keep_streams_apart(make_context: MakeContext) -> None:
    one, other, same = [await make_context(key_prefix=prefix) for prefix in ("a", "b", "a")]
    source = Scripted("Hello")
    stream = await one.resumable_stream("s", source)
    await source.said.wait()
    assert await other.has_existing_stream("s") is None
    assert await other.resume_existing_stream("s") == "NOT_FOUND"
    assert await same.has_existing_stream("s") is True
    source.go_on.set()
    assert await text_of(stream) == "Hello"
    await is_done(same)


@pytest.mark.parametrize("stream_id", ["", " ", "a:b/c#d%", "line\nbreak\x00", "日本🙂", "x" * 5_000])
async def test_any_text_is_an_id(make_context: MakeContext, stream_id: str) -> None:
    one, other = await make_context(), await make_context()
    source = Scripted("Hello ", then=("world",))
    begun = await one.resumable_stream(stream_id, source)
    assert await first_of(begun) == "Hello "
    resumed = await other.resumable_stream(stream_id, source, 1)
    assert await first_of(resumed) == "ello "
    source.go_on.set()
    assert (await text_of(begun), await text_of(resumed)) == ("world", "world")
    await is_done(other, stream_id)
    assert await other.has_existing_stream(stream_id + "x") is None


@pytest.mark.parametrize("call", ["resumable_stream", "create_new_resumable_stream"])
async def test_wait_until_gets_something_that_ends_with_the_stream(make_context: MakeContext, call: str) -> None:
    waited: list[Any] = []
    context = await make_context(wait_until=waited.append)
    source = Scripted("Hello")
    stream = await getattr(context, call)("s", source)
    await source.said.wait()
    resumed = await context.resume_existing_stream("s")
    assert await first_of(resumed) == "Hello"
    assert len(waited) == 1  # for the one that was begun here
    assert not waited[0].done()
    source.go_on.set()
    async with asyncio.timeout(60):
        assert await waited[0] is None
    assert await context.has_existing_stream("s") == "DONE"
    assert (await text_of(stream), await text_of(resumed)) == ("Hello", "")


async def test_the_two_do_not_see_each_other_and_do_no_harm(redis_url: str) -> None:
    """On one Redis, with the same prefix and the same id."""
    contexts, pairs = [], []
    for library in LIBRARIES.values():
        publisher, subscriber = library.RedisPublisher(redis_url), library.RedisSubscriber(redis_url)
        await publisher.connect()
        await subscriber.connect()
        pairs += [publisher, subscriber]
        contexts.append(library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber))
    sources = [Scripted("original ", then=("a",)), Scripted("playhead ", then=("b",))]
    streams = []
    for context, source in zip(contexts, sources, strict=True):
        assert await context.resume_existing_stream("s") == "NOT_FOUND"
        streams.append(await context.resumable_stream("s", source))
        assert await first_of(streams[-1]) == source.items[0]
        assert await context.has_existing_stream("s") is True
    resumed = [await context.resume_existing_stream("s", 4) for context in contexts]
    assert [await first_of(stream) for stream in resumed] == ["inal ", "head "]
    for source in sources:
        source.go_on.set()
    assert [await text_of(stream) for stream in streams] == ["a", "b"]
    assert [await text_of(stream) for stream in resumed] == ["a", "b"]
    for one in pairs:
        await one.close()


# ---- a publisher and a subscriber of the user's own ------------------------------------------------------


async def test_a_pair_of_ones_own_works_in_this_process(library: Any) -> None:
    publisher, subscriber = in_memory_pair(library)

    def make() -> Any:
        return library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber, key_prefix="test")

    one, other = make(), make()
    source = Scripted("Hello ", then=("wörld",))
    assert await other.resume_existing_stream("s") == "NOT_FOUND"
    begun = await one.resumable_stream("s", source)
    assert await first_of(begun) == "Hello "
    assert await other.has_existing_stream("s") is True
    resumed = await other.resume_existing_stream("s", skip_characters=2)
    assert await first_of(resumed) == "llo "
    source.go_on.set()
    assert (await text_of(begun), await text_of(resumed)) == ("wörld", "wörld")
    await is_done(other)
    assert await other.resumable_stream("s", source) is None


async def test_pairs_of_ones_own_are_apart(library: Any) -> None:
    contexts = []
    for _ in range(2):
        publisher, subscriber = in_memory_pair(library)
        contexts.append(library.create_resumable_stream_context(publisher=publisher, subscriber=subscriber))
    assert await text_of(await contexts[0].resumable_stream("s", lambda: say("one"))) == "one"
    await is_done(contexts[0])
    assert await contexts[1].has_existing_stream("s") is None
    assert await text_of(await contexts[1].resumable_stream("s", lambda: say("two"))) == "two"


# ---- the classes for Redis -------------------------------------------------------------------------------


async def test_redis_publisher_and_subscriber(library: Any, redis_url: str) -> None:
    publisher, subscriber = library.RedisPublisher(redis_url), library.RedisSubscriber(redis_url)
    for call in (publisher.get("k"), publisher.publish("c", "m"), subscriber.subscribe("c", print)):
        with pytest.raises(RuntimeError, match="not connected"):
            await call
    await subscriber.unsubscribe("c")
    for one in (publisher, subscriber, publisher, subscriber):
        await one.connect()
    assert await publisher.get("k") is None
    assert [await publisher.incr("k"), await publisher.incr("k"), await publisher.get("k")] == [1, 2, "2"]
    assert await publisher.set("k", "DONE", ex=60)
    assert await publisher.set("k", "DONE", {"ex": 60})
    assert await publisher.get("k") == "DONE"
    with pytest.raises(Exception, match="not an integer"):
        await publisher.incr("k")

    heard: list[tuple[str, str]] = []

    def listener(name: str, fails: bool = False) -> Any:
        async def hear(message: str) -> None:
            heard.append((name, message))
            if fails:
                raise ValueError("a callback's own trouble")

        return hear

    await subscriber.subscribe("bad", listener("bad", fails=True))
    await subscriber.subscribe("good", listener("good"))

    async def are_both_heard() -> bool:
        return await publisher.publish("bad", "1") + await publisher.publish("good", "2") == 2

    await until(are_both_heard)
    await until(lambda: {("bad", "1"), ("good", "2")} <= set(heard))
    await subscriber.unsubscribe("bad")
    await subscriber.unsubscribe("good")
    await subscriber.unsubscribe("good")

    async def nobody_hears() -> bool:
        return await publisher.publish("good", "3") == 0

    await until(nobody_hears)  # Redis is told of the end and of the message on two connections
    assert ("good", "3") not in heard
    await publisher.close()
    await subscriber.close()
    with pytest.raises(RuntimeError, match="not connected"):
        await publisher.get("k")


async def test_a_redis_that_is_not_there(library: Any) -> None:
    for kind in (library.RedisPublisher, library.RedisSubscriber):
        one = kind("redis://127.0.0.1:1/0")
        with pytest.raises(redis.ConnectionError):
            await one.connect()
        await one.close()
