"""When a context's store is opened and closed: at first use, and with the event loop; nobody has to care."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenPlayhead
from redis_server import RedisServer
from resumable_app import complaints_of
from resumable_libraries import first_of, in_memory_pair, text_of
from streaming import Scripted, at_once, say, until

from playhead import Playhead
from playhead.adapters import resumable_stream, sharing
from playhead.adapters.resumable_stream import ResumableStreamContext, create_resumable_stream_context
from playhead.errors import Conflict, Draining, SourceFailed, StoreUnavailable


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/streams.db"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/streams.db"
    return request.getfixturevalue("redis_url")


def context_on(url: str, **settings: Any) -> ResumableStreamContext:
    return create_resumable_stream_context(store_url=url, **settings)


def heartbeats() -> int:
    """How many Playheads are open in this process."""
    return sum(thread.name == "playhead heartbeat" for thread in threading.enumerate())


WITHOUT_CLOSE = """
import asyncio, sys
from playhead.adapters.resumable_stream import create_resumable_stream_context

context = create_resumable_stream_context(store_url=sys.argv[1])

async def source():
    try:
        yield "Hello "
        await asyncio.Event().wait()
    finally:
        print("stopped", flush=True)

async def main():
    assert await context.has_existing_stream("s") is None
    stream = await context.resumable_stream("s", source)
    other = await context.resume_existing_stream("s")
    print(await anext(stream), await anext(other), flush=True)

async def look():
    try:
        async for chunk in await context.resume_existing_stream("s"):
            print(chunk, flush=True)
    except Exception as error:
        print(error, flush=True)

asyncio.run(main())
print("over", flush=True)
asyncio.run(look())
"""


def test_nobody_has_to_close_anything(any_url: str) -> None:
    """With every warning an error and asyncio's debug mode: what ran is interrupted, and not a word is said."""
    arguments = [sys.executable, "-X", "dev", "-W", "error", "-c", WITHOUT_CLOSE, any_url]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert complaints_of(done.stderr) == []
    assert done.stdout.split("\n") == [
        "Hello  Hello ",
        "stopped",
        "over",
        "Hello ",
        "stream interrupted: shutdown",
        "",
    ]


def test_a_context_goes_from_loop_to_loop(any_url: str) -> None:
    context = context_on(any_url)
    before = heartbeats()

    async def say_it() -> str:
        return await text_of(await context.resumable_stream("s", lambda: say("Hello")))

    async def state() -> Any:
        return await context.has_existing_stream("s")

    assert asyncio.run(say_it()) == "Hello"
    assert heartbeats() == before
    assert asyncio.run(state()) == "DONE"
    assert heartbeats() == before
    assert not sharing._alive


def test_a_pair_of_ones_own_goes_from_loop_to_loop() -> None:
    publisher, subscriber = in_memory_pair(resumable_stream)
    first = create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    second = create_resumable_stream_context(publisher=publisher, subscriber=subscriber)

    async def say_it() -> str:
        return await text_of(await first.resumable_stream("s", lambda: say("Hello")))

    assert asyncio.run(say_it()) == "Hello"
    assert asyncio.run(second.has_existing_stream("s")) == "DONE"


def test_a_loop_that_lets_nothing_end_is_left_behind(url: str) -> None:
    """No lifeline is pulled when a loop is just closed: the next loop opens a store of its own all the same."""
    context = context_on(url)
    loop = asyncio.new_event_loop()
    stream = loop.run_until_complete(context.resumable_stream("s", lambda: say("Hello")))
    assert loop.run_until_complete(text_of(stream)) == "Hello"
    (life,) = sharing._alive
    loop.run_until_complete(life.playhead.close())  # so that this test leaves nothing; the loop knows nothing of it
    loop.close()
    assert asyncio.run(context.has_existing_stream("s")) == "DONE"
    assert not sharing._alive


async def test_contexts_of_one_store_share_it(url: str) -> None:
    before = heartbeats()
    contexts = [context_on(url, key_prefix=str(number)) for number in range(5)]
    assert heartbeats() == before
    states = await at_once(*[lambda one=one: one.has_existing_stream("s") for one in contexts * 3])
    assert states == [None] * 15
    assert heartbeats() == before + 1
    for one in contexts[1:]:
        await one.close()
        await one.close()
    assert heartbeats() == before + 1
    assert await text_of(await contexts[0].resumable_stream("s", lambda: say("Hello"))) == "Hello"
    await contexts[0].close()
    assert heartbeats() == before


async def test_a_context_per_request_may_be_dropped(url: str) -> None:
    source = Scripted("Hello ", then=("world",))
    stream = await context_on(url).resumable_stream("s", source)
    await stream.aclose()  # type: ignore[union-attr]
    del stream
    gc.collect()
    await source.said.wait()
    resumed = await context_on(url).resume_existing_stream("s")
    assert await first_of(resumed) == "Hello "
    source.go_on.set()
    assert await text_of(resumed) == "world"


async def test_closing_leaves_nothing_behind(any_url: str) -> None:
    before = asyncio.all_tasks()
    threads = heartbeats()
    context = context_on(any_url, wait_until=lambda waited: None)
    async with context:
        assert heartbeats() == threads + 1
        source = Scripted("Hello")
        await context.resumable_stream("s", source)
        await context.resumable_stream("t", lambda: say("Hello"))
        source.go_on.set()
    assert heartbeats() == threads
    await until(lambda: asyncio.all_tasks() <= before)


async def test_sources_may_end_by_themselves_before_it_closes(url: str) -> None:
    source = Scripted("Hello ", then=("world",))
    async with context_on(url, replay_finished=True) as context:
        await context.resumable_stream("s", source)
        await source.said.wait()
        asyncio.get_running_loop().call_later(0.05, source.go_on.set)
    assert await text_of(await context.resume_existing_stream("s")) == "Hello world"  # it opens again when it is used


async def test_what_does_not_end_is_interrupted(url: str) -> None:
    source = Scripted("Hello ", then=("never",))
    context = context_on(url)
    await context.resumable_stream("s", source)
    await source.said.wait()
    await context.close(grace_s=0.01)
    assert source.ended.is_set()
    stream = await context.resume_existing_stream("s")
    assert await first_of(stream) == "Hello "
    with pytest.raises(SourceFailed, match="shutdown"):
        await first_of(stream)


async def test_a_playhead_of_ones_own_stays_open(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    async with create_resumable_stream_context(playhead=playhead) as context:
        stream = await context.resumable_stream("s", lambda: say("Hello"))
        assert await text_of(stream) == "Hello"
    assert not playhead.is_draining
    assert await context.has_existing_stream("s") == "DONE"
    assert stream is not None
    assert [event.text async for event in playhead.tail(stream.stream_id)] == ["Hello"]


async def test_whoever_opens_it_may_be_cancelled(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, go_on = asyncio.Event(), asyncio.Event()
    connect = Playhead.connect

    async def slowly(self: Playhead) -> Playhead:
        opening.set()
        await go_on.wait()
        return await connect(self)

    monkeypatch.setattr(Playhead, "connect", slowly)
    context = context_on(url)
    first = asyncio.ensure_future(context.has_existing_stream("s"))
    await opening.wait()
    second = asyncio.ensure_future(context.has_existing_stream("s"))
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    go_on.set()
    assert await second is None
    await context.close()


async def test_whoever_uses_it_while_it_closes_has_it_opened_again(url: str) -> None:
    context = context_on(url)
    source = Scripted("Hello")
    await context.resumable_stream("s", source)
    await source.said.wait()
    closing = asyncio.ensure_future(context.close(grace_s=5))
    await until(lambda: any(life.closing for life in sharing._alive))
    using = asyncio.ensure_future(context.resumable_stream("t", lambda: say("too")))
    await asyncio.sleep(0)
    source.go_on.set()
    assert await text_of(await using) == "too"
    await closing
    await context.close()


async def test_a_failure_that_nobody_waits_for_is_no_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    opening, go_on = asyncio.Event(), asyncio.Event()

    async def fail(self: Playhead) -> Playhead:
        opening.set()
        await go_on.wait()
        raise StoreUnavailable("it is not there")

    with monkeypatch.context() as patch:
        patch.setattr(Playhead, "connect", fail)
        context = context_on(f"sqlite:///{tmp_path}/streams.db")
        using = asyncio.ensure_future(context.has_existing_stream("s"))
        await opening.wait()
        using.cancel()
        await asyncio.wait([using])
        go_on.set()
        await until(lambda: not sharing._alive)
    del using
    gc.collect()
    await asyncio.sleep(0)
    assert not complaints
    assert await context.has_existing_stream("s") is None
    await context.close()


async def test_a_store_that_is_not_there_is_told_to_all_and_asked_again(
    make_redis: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_redis()
    server.kill()
    context = create_resumable_stream_context(redis_url=server.url)
    failures = await at_once(*[lambda: context.has_existing_stream("s")] * 5)
    assert [type(failure) for failure in failures] == [StoreUnavailable] * 5
    assert str(server.port) in str(failures[0])
    server.start()
    assert await context.has_existing_stream("s") is None
    await context.close()


def test_memory_belongs_to_one_loop_at_a_time() -> None:
    context = context_on("memory://")

    async def main() -> None:
        assert await context.has_existing_stream("s") is None
        with pytest.raises(Conflict, match="SQLite will do"):
            await asyncio.to_thread(asyncio.run, context.has_existing_stream("s"))

    asyncio.run(main())


def test_two_loops_share_a_file(url: str) -> None:
    context = context_on(url)

    async def main() -> None:
        source = Scripted("Hello")
        await context.resumable_stream("s", source)
        assert await asyncio.to_thread(asyncio.run, context.has_existing_stream("s")) is True
        source.go_on.set()

    asyncio.run(main())


async def test_wait_until_ends_when_the_store_is_closed_under_it(url: str) -> None:
    waited: list[Any] = []
    context = context_on(url, wait_until=waited.append)
    source = Scripted("Hello")
    await context.resumable_stream("s", source)
    await source.said.wait()
    await context.close(grace_s=0)
    async with asyncio.timeout(60):
        assert await waited[0] is None


async def test_readers_are_sent_away_when_it_closes(open_playhead: OpenPlayhead) -> None:
    """With an error, not with an end: what they have is not all."""
    playhead = await open_playhead()
    context = create_resumable_stream_context(playhead=playhead)
    stream = await context.resumable_stream("s", Scripted("Hello"))
    assert await first_of(stream) == "Hello"
    reading = asyncio.ensure_future(first_of(stream))
    await asyncio.sleep(0)
    await playhead.drain(grace_s=0)
    with pytest.raises((Draining, SourceFailed)):
        await reading


async def test_streams_start_fast_enough_to_be_used_once_per_request(url: str) -> None:
    """A hundred contexts, streams and readers, one store."""

    async def request(number: int) -> str:
        async def source() -> AsyncIterator[str]:
            for part in range(5):
                yield f"{number}.{part} "

        return await text_of(await context_on(url).resumable_stream(f"s{number}", source))

    before = heartbeats()
    texts = await asyncio.gather(*(request(number) for number in range(100)))
    assert texts == ["".join(f"{number}.{part} " for part in range(5)) for number in range(100)]
    assert heartbeats() <= before + 1
