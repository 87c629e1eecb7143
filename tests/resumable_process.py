"""A user's process around a context, for tests that need several of them, or one to kill.

resumable_process.py speak URL            begins the stream "s", says "one two ", and never ends
resumable_process.py race URL CALL COUNT  waits for a line, calls for as many streams, waits for another line, and
                                          tells what came of it; no stream ends before that second line
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from playhead.adapters.resumable_stream import ResumableStream, ResumableStreamContext, create_resumable_stream_context


def context_of(url: str) -> ResumableStreamContext:
    if url.startswith("redis"):
        return create_resumable_stream_context(redis_url=url)
    return create_resumable_stream_context(store_url=url)


async def speak(url: str) -> None:
    async def source() -> AsyncIterator[str]:
        yield "one "
        yield "two "
        await asyncio.Event().wait()

    stream = await context_of(url).resumable_stream("s", source)
    assert stream is not None
    async for chunk in stream:
        print(chunk, flush=True)


async def race(url: str, call: str, count: int) -> None:
    context = context_of(url)
    runs: list[int] = []
    may_end = asyncio.Event()

    async def source(number: int) -> AsyncIterator[str]:
        runs.append(number)
        for part in range(20):
            yield f"{number}.{part} "
        await may_end.wait()

    async def told(words: str) -> None:
        print(words, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

    def called_for(number: int) -> Any:
        return getattr(context, call)(f"s{number}", lambda: source(number))

    async def text_of(stream: ResumableStream | None) -> str | None:
        return None if stream is None else "".join([chunk async for chunk in stream])

    await context.has_existing_stream("warm")
    await told("ready")
    streams = await asyncio.gather(*(called_for(number) for number in range(count)))
    await told("called")
    may_end.set()
    texts = await asyncio.gather(*(text_of(stream) for stream in streams))
    print(json.dumps({"runs": runs, "texts": texts}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["speak", url]:
            asyncio.run(speak(url))
        case ["race", url, call, count]:
            asyncio.run(race(url, call, int(count)))
