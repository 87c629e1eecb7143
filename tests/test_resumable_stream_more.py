"""What the original lacks and this has: the rows of the table in docs/resumable-stream.md.

``instances`` are contexts on Playheads of their own, on one store: like so many processes.
"""

import asyncio
import gc
import json
import re
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import resumable_stream as original
from conftest import OpenPlayhead
from resumable_libraries import chunks_of, first_of, in_memory_pair, text_of
from streaming import Scripted, at_once, say, until

from playhead import OutcomeKind, event
from playhead.adapters.resumable_stream import (
    ResumableStream,
    ResumableStreamContext,
    create_resumable_stream_context,
)
from playhead.errors import BadRequest, SourceFailed

PROGRAM = Path(__file__).with_name("resumable_process.py")
PATIENCE_S = 60.0

Instances = Callable[..., Awaitable[list[ResumableStreamContext]]]


@pytest.fixture
def instances(open_playhead: OpenPlayhead) -> Instances:
    async def make(count: int = 2, **settings: Any) -> list[ResumableStreamContext]:
        playheads = [await open_playhead() for _ in range(count)]
        return [create_resumable_stream_context(playhead=playhead, **settings) for playhead in playheads]

    return make


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that several processes can share."""
    return request.getfixturevalue("redis_url") if request.param == "redis" else f"sqlite:///{tmp_path}/streams.db"


def context_on(url: str, **settings: Any) -> ResumableStreamContext:
    return create_resumable_stream_context(store_url=url, **settings)


@pytest_asyncio.fixture
async def start_process() -> AsyncIterator[Callable[..., Awaitable[asyncio.subprocess.Process]]]:
    started: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        return (await process.stdout.readline()).decode().strip()


async def failure_of(stream: Any) -> tuple[str, SourceFailed]:
    """The text up to the error that must end the stream."""
    chunks: list[str] = []

    async def read() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - they are wanted when it fails

    with pytest.raises(SourceFailed) as raised:
        await read()
    return "".join(chunks), raised.value


# ---- the stream outlives its producer process --------------------------------------------------------------


@pytest.mark.crash
async def test_a_stream_outlives_its_producer_process(url: str, start_process: Any) -> None:
    """Killed with -9: readers elsewhere get what was recorded and a clear error, the same whenever they come."""
    speaker = await start_process("speak", url)
    assert [await line_of(speaker), await line_of(speaker)] == ["one", "two"]
    context = context_on(url)
    assert await context.has_existing_stream("s") is True
    attached = await context.resume_existing_stream("s", skip_characters=2)
    assert isinstance(attached, ResumableStream)
    assert await first_of(attached) == "e "
    speaker.send_signal(signal.SIGKILL)
    text, error = await failure_of(attached)
    assert text == "two "
    assert error.outcome == "interrupted"
    assert "producer-lost" in str(error)
    assert attached.outcome is not None
    assert await context.has_existing_stream("s") == "DONE"
    for late in (await context.resume_existing_stream("s"), await context.resumable_stream("s", Scripted("never"))):
        text, error = await failure_of(late)
        assert text == "one two "
        assert "producer-lost" in str(error)
    assert await text_of(await context.create_new_resumable_stream("s", lambda: say("once more"))) == "once more"
    await context.close()


# ---- an exception in the source ----------------------------------------------------------------------------


class Failing(Scripted):
    async def __call__(self) -> AsyncIterator[Any]:
        async for item in super().__call__():
            yield item
        raise ValueError("the model is out of order")


async def test_an_exception_in_the_source_reaches_every_reader(instances: Instances) -> None:
    one, other = await instances()
    source = Failing("Hello ", then=("wor",))
    readers = [
        await one.resumable_stream("s", source),
        await one.resumable_stream("s", source),
        await other.resume_existing_stream("s"),
    ]
    await source.said.wait()
    source.go_on.set()
    readers_with_trouble = [await failure_of(reader) for reader in readers]
    late = await failure_of(await other.resume_existing_stream("s", skip_characters=3))
    for text, error in [*readers_with_trouble, late]:
        assert text in ("Hello wor", "lo wor")
        assert error.outcome == "failed"
        assert "ValueError: the model is out of order" in str(error)
    assert late[0] == "lo wor"
    assert await one.has_existing_stream("s") == "DONE"
    assert await text_of(await one.create_new_resumable_stream("s", lambda: say("better"))) == "better"


async def test_the_original_ends_quietly_and_stays_live_for_ever() -> None:
    publisher, subscriber = in_memory_pair(original)
    context = original.create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    source = Failing("Hello ")
    stream = await context.resumable_stream("s", source)
    await source.said.wait()
    source.go_on.set()
    assert await chunks_of(stream) == ["Hello "]
    await source.ended.wait()
    assert await context.has_existing_stream("s") is True


async def test_a_source_that_is_none_fails_for_its_readers(instances: Instances) -> None:
    (context,) = await instances(1)

    async def no_iterator() -> str:
        return "text"

    text, error = await failure_of(await context.resumable_stream("s", no_iterator))
    assert text == ""
    assert "must be an async iterator" in str(error)


# ---- racing callers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["resumable_stream", "create_new_resumable_stream"])
async def test_racing_callers_run_the_source_once(instances: Instances, call: str) -> None:
    contexts = await instances(2)
    for name in ("a", "b", "c", "d"):
        sources = [Scripted(f"{name} says ", then=("it",)) for _ in range(8)]
        calls = [
            lambda number=number, source=source: getattr(contexts[number % 2], call)(name, source)  # noqa: B023
            for number, source in enumerate(sources)
        ]
        streams = await at_once(*calls)
        for source in sources:
            source.go_on.set()
        texts = [None if stream is None else await text_of(stream) for stream in streams]
        assert sum(source.runs for source in sources) == 1
        assert texts.count(f"{name} says it") == (8 if call == "resumable_stream" else 1)
        assert texts.count(None) == (0 if call == "resumable_stream" else 7)


@pytest.mark.parametrize("call", ["resumable_stream", "create_new_resumable_stream"])
async def test_racing_processes_run_the_source_once(url: str, start_process: Any, call: str) -> None:
    count = 30
    async with context_on(url):
        pass  # so that they race for streams, and not to make the file
    racers = [await start_process("race", url, call, str(count)) for _ in range(2)]
    for word in ("ready", "called"):
        assert [await line_of(racer) for racer in racers] == [word, word]
        for racer in racers:
            racer.stdin.write(b"go on\n")
    results = [json.loads(await line_of(racer)) for racer in racers]
    assert sorted(results[0]["runs"] + results[1]["runs"]) == list(range(count))
    for number in range(count):
        texts = [result["texts"][number] for result in results]
        whole = "".join(f"{number}.{part} " for part in range(20))
        if call == "resumable_stream":
            assert texts == [whole, whole]
        else:
            assert texts in ([whole, None], [None, whole])


async def test_the_original_runs_both_sources() -> None:
    publisher, subscriber = in_memory_pair(original)
    context = original.create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    sources = [Scripted("Hello") for _ in range(2)]
    await at_once(*[lambda source=source: context.create_new_resumable_stream("s", source) for source in sources])
    for source in sources:
        await source.said.wait()
        source.go_on.set()
        await source.ended.wait()


# ---- a finished stream -------------------------------------------------------------------------------------


async def test_a_finished_stream_is_replayed_to_those_who_ask_for_it(instances: Instances) -> None:
    one, other = await instances(2, replay_finished=True)
    forgetful, *_ = await instances(1)
    begun = await one.resumable_stream("s", lambda: say("Hé", "llo"))
    assert await chunks_of(begun) == ["Hé", "llo"]
    never = Scripted("never")
    for _ in range(2):
        assert await chunks_of(await other.resumable_stream("s", never)) == ["Hé", "llo"]
        assert await chunks_of(await other.resume_existing_stream("s", 3)) == ["lo"]
        assert await chunks_of(await other.resume_existing_stream("s", 5)) == []
        assert await chunks_of(await other.resume_existing_stream("s", 99)) == []
    assert await other.has_existing_stream("s") == "DONE"
    assert await forgetful.resume_existing_stream("s") is None
    assert never.runs == 0


async def test_a_finished_stream_is_there_after_a_restart(url: str) -> None:
    for turn in range(2):
        async with context_on(url, replay_finished=True) as context:
            stream = await context.resumable_stream("s", lambda turn=turn: say(f"said in turn {turn}"))
            assert await text_of(stream) == "said in turn 0"


async def test_a_stream_is_forgotten_when_its_time_is_over(url: str) -> None:
    context = context_on(url, retention_s=0.3, replay_finished=True)
    assert await text_of(await context.resumable_stream("s", lambda: say("first"))) == "first"
    assert await text_of(await context.resumable_stream("s", lambda: say("never"))) == "first"

    async def is_forgotten() -> bool:
        return await context.has_existing_stream("s") is None

    await until(is_forgotten, PATIENCE_S)
    assert await context.resume_existing_stream("s") == "NOT_FOUND"
    assert await context.cancel("s") is None
    assert await text_of(await context.resumable_stream("s", lambda: say("second"))) == "second"
    await context.close()


async def test_a_stream_that_was_deleted_can_be_begun_again(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    context = create_resumable_stream_context(playhead=playhead, replay_finished=True)
    for word in ("first", "second", "third"):
        stream = await context.resumable_stream("s", lambda word=word: say(word))
        assert stream is not None
        assert await text_of(stream) == word
        await playhead.delete(stream.stream_id)
        assert await context.resume_existing_stream("s") == "NOT_FOUND"


# ---- a stalled reader --------------------------------------------------------------------------------------

CHUNKS, CHUNK_CHARACTERS = 400, 64 * 1024


async def much(done: asyncio.Event) -> AsyncIterator[str]:
    for number in range(CHUNKS):
        yield f"{number:08}" * (CHUNK_CHARACTERS // 8)
        await asyncio.sleep(0)
    done.set()


async def held_for_a_stalled_reader(context: Any) -> tuple[int, Any]:
    """Bytes more than before, with a stream of 25 MiB said to the end and a reader that took one chunk of it."""
    done = asyncio.Event()
    await context.has_existing_stream("warm")
    tracemalloc.start()
    try:
        stream = await context.resumable_stream("s", lambda: much(done))
        await first_of(stream)
        await done.wait()

        async def is_over() -> bool:
            return bool(await context.has_existing_stream("s") == "DONE")

        await until(is_over, PATIENCE_S)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], stream
    finally:
        tracemalloc.stop()


async def test_a_stalled_reader_costs_no_memory(tmp_path: Path) -> None:
    context = context_on(f"sqlite:///{tmp_path}/streams.db")
    held_bytes, stream = await held_for_a_stalled_reader(context)
    assert held_bytes < CHUNKS * CHUNK_CHARACTERS // 3
    rest = await chunks_of(stream)
    assert [chunk[:8] for chunk in rest] == [f"{number:08}" for number in range(1, CHUNKS)]
    await context.close()


async def test_the_original_keeps_everything_for_a_stalled_reader() -> None:
    publisher, subscriber = in_memory_pair(original)
    context = original.create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    held_bytes, _ = await held_for_a_stalled_reader(context)
    assert held_bytes > CHUNKS * CHUNK_CHARACTERS


# ---- cancel ------------------------------------------------------------------------------------------------


async def test_cancel_from_any_instance(instances: Instances) -> None:
    one, other = await instances()
    source = Scripted("Hello ", then=("never",))
    assert await other.cancel("s") is None
    begun = await one.resumable_stream("s", source)
    reading = await other.resume_existing_stream("s")
    await source.said.wait()
    assert await other.cancel("s", reason="changed my mind") is True
    for reader in (begun, reading):
        assert isinstance(reader, ResumableStream)
        assert await chunks_of(reader) == ["Hello "]
        assert reader.outcome is not None
        assert reader.outcome.kind is OutcomeKind.CANCELLED
        assert reader.outcome.reason == "changed my mind"
    await source.ended.wait()
    assert await other.cancel("s") == "DONE"
    assert await one.has_existing_stream("s") == "DONE"
    assert await one.resumable_stream("s", source) is None
    assert source.runs == 1


async def test_cancel_before_the_first_chunk(instances: Instances) -> None:
    one, other = await instances()
    source = Scripted(then=("never",))
    begun = await one.resumable_stream("s", source)
    assert await other.cancel("s") is True
    assert await chunks_of(begun) == []


# ---- readers -----------------------------------------------------------------------------------------------


async def test_readers_on_any_instance_and_reconnecting(instances: Instances) -> None:
    """A reader that reconnects after each chunk, to any instance, puts the text together without gap or repeat."""
    contexts = await instances(3)
    words = [f"wörd {number} 日本 " for number in range(60)]
    gate, over = asyncio.Semaphore(0), asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for word in words:
            await gate.acquire()
            yield word
        await over.wait()

    await contexts[0].create_new_resumable_stream("s", source)
    text = ""
    for number in range(len(words)):
        stream = await contexts[number % 3].resume_existing_stream("s", skip_characters=len(text))
        waiting = asyncio.ensure_future(first_of(stream))
        await asyncio.sleep(0.001 * (number % 3))
        gate.release()
        text += await waiting
        assert isinstance(stream, ResumableStream)
        if number % 2:
            await stream.aclose()
    last = await contexts[1].resume_existing_stream("s", skip_characters=len(text))
    over.set()
    assert await text_of(last) == ""
    assert text == "".join(words)


async def test_a_reader_whose_wait_is_cancelled_goes_on_with_the_next_chunk(instances: Instances) -> None:
    (context,) = await instances(1)
    gate = asyncio.Semaphore(0)

    async def source() -> AsyncIterator[str]:
        for number in range(5):
            await gate.acquire()
            yield str(number)

    stream = await context.resumable_stream("s", source)
    assert stream is not None
    seen = []
    for _ in range(5):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.release()
        seen.append(await first_of(stream))
    assert seen == list("01234")
    assert await chunks_of(stream) == []


async def test_the_original_loses_the_rest_when_a_wait_is_cancelled() -> None:
    publisher, subscriber = in_memory_pair(original)
    context = original.create_resumable_stream_context(publisher=publisher, subscriber=subscriber)
    source = Scripted("Hello ", then=("world",))
    stream = await context.resumable_stream("s", source)
    assert await first_of(stream) == "Hello "
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.005)
    waiting.cancel()
    await asyncio.wait([waiting])
    source.go_on.set()
    await source.ended.wait()
    assert await chunks_of(stream) == []


async def test_chunks_come_back_as_they_were_said(instances: Instances) -> None:
    """Text, bytes, anything that JSON can carry; characters are counted in text, bytes in bytes."""
    one, other = await instances(2, replay_finished=True)
    said = ["é\r\n\x00\ud800", "", b"\x00\xff", b"", {"a": [1, None]}, 0, None, "end"]
    assert await chunks_of(await one.resumable_stream("s", lambda: say(*said))) == said
    resumed = [b"\x00\xff", {"a": [1, None]}, 0, None, "end"]
    assert await chunks_of(await other.resumable_stream("s", lambda: say())) == [said[0], *resumed]
    assert await chunks_of(await other.resume_existing_stream("s", 5)) == resumed
    assert await chunks_of(await other.resume_existing_stream("s", 6)) == [b"\xff", *resumed[1:]]
    assert await chunks_of(await other.resume_existing_stream("s", 8)) == ["nd"]


async def test_an_event_with_a_type_of_its_own_is_its_data(instances: Instances) -> None:
    (context,) = await instances(1, replay_finished=True)
    said = [event("tool", {"é": 1}), event("picture", b"\xff\x00")]
    for _ in range(2):
        assert await chunks_of(await context.resumable_stream("s", lambda: say(*said))) == ['{"é":1}', b"\xff\x00"]
    assert await chunks_of(await context.resume_existing_stream("s", 6)) == ["}", b"\xff\x00"]


async def test_a_chunk_may_be_large(url: str) -> None:
    picture = "é" * (4 * 1024 * 1024)
    async with context_on(url, replay_finished=True) as context:
        for _ in range(2):
            stream = await context.resumable_stream("s", lambda: say(picture, "end"))
            assert await chunks_of(stream) == [picture, "end"]
        resumed = await context.resume_existing_stream("s", len(picture) - 1)
        assert await chunks_of(resumed) == ["é", "end"]


async def test_what_can_be_no_chunk_fails_for_its_readers(instances: Instances) -> None:
    (context,) = await instances(1)
    text, error = await failure_of(await context.resumable_stream("s", lambda: say("Hello", object())))
    assert text == "Hello"
    assert "not object" in str(error)


@pytest.mark.parametrize("skip", ["5", 1.5, [1]])
async def test_a_skip_that_is_no_number_is_refused(instances: Instances, skip: Any) -> None:
    (context,) = await instances(1)
    for call in (context.resumable_stream("s", lambda: say("x"), skip), context.resume_existing_stream("s", skip)):
        with pytest.raises(BadRequest, match="whole number of characters"):
            await call
    assert await context.has_existing_stream("s") is None


async def test_an_id_that_is_no_text_is_refused(instances: Instances) -> None:
    (context,) = await instances(1)
    with pytest.raises(BadRequest, match="stream_id is text"):
        await context.has_existing_stream(7)  # type: ignore[arg-type]


async def test_no_two_pairs_of_prefix_and_id_are_one(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead()
    pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a%3Ab", "c"),
        ("", "a:b:c"),
        ("a:b:c", ""),
        ("a", "sha256=0"),
        ("a", "\ud800"),
    ]
    for prefix, stream_id in pairs:
        context = create_resumable_stream_context(playhead=playhead, key_prefix=prefix)
        assert await context.has_existing_stream(stream_id) is None
        stream = await context.resumable_stream(stream_id, lambda: say("x"))
        assert stream is not None
        assert re.fullmatch(r"[ -~]{1,910}", stream.stream_id)
        assert await text_of(stream) == "x"
