"""Chat rows: whole turns per second of CPU, and the way of the model's first token to the reader.

Both beside the same agent, with a checkpoint file of its own, behind an unrecorded StreamingResponse of the process.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from statistics import median

import httpx
import uvloop

from benchmarks.report import REPETITIONS, Report, percentile

CLIENTS = 8
TURNS = 5
"""Of each client, on one thread, one after the other."""

MESSAGE = "Tell me something."
WORDS = tuple(f"word{number} " for number in range(50))
FIRST_TOKENS = 60
TOKEN_S = 0.02
"""What a model takes for its next token. Else the first one meets the end of the whole turn on its way."""


@dataclass
class Model:
    """A chat completions endpoint on loopback: says these words, the first one when it is told to, and notes when.

    It takes ``pause_s`` for each. One that ``stays`` does not finish as long as somebody listens.
    """

    words: tuple[str, ...]
    waits: bool = False
    stays: bool = False
    pause_s: float = 0.0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    said_at: float = 0.0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
                await reader.readexactly(int(size.partition(":")[2]))
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        if self.waits:
            self.asked.set()
            await self.go.wait()
            self.go.clear()
        self.said_at = time.perf_counter()
        for word in self.words:
            self._say(writer, {"role": "assistant", "content": word}, None)
            await asyncio.sleep(self.pause_s)
        if self.stays:
            await reader.read()
        self._say(writer, {}, "stop")
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _say(self, writer: asyncio.StreamWriter, delta: dict[str, str], reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        facts = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": [choice]}
        text = f"data: {json.dumps(facts)}\n\n"
        writer.write(f"{len(text):x}\r\n{text}\r\n".encode())


@asynccontextmanager
async def serving(model_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A fresh server process, warmed up."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(  # noqa: ASYNC220 - short, and nothing else runs yet
            [sys.executable, "-m", "benchmarks.chat_server", folder, model_url],
            pass_fds=[listener.fileno()],
            env={**os.environ, "BENCH_FD": str(listener.fileno())},
        )
        try:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http:
                await http.get("/bench/cost")
                yield http
        finally:
            process.kill()  # what it kept is thrown away with it
            process.wait(10)


async def recorded_turn(http: httpx.AsyncClient, thread_id: str, message: str) -> int:
    """Say something and read the answer to its end; how many characters it has."""
    started = (await http.post("/v1/chat/message", json={"message": message, "thread_id": thread_id})).json()
    size, kind = 0, ""
    async with http.stream("GET", f"/v1/streams/{started['stream_id']}") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: ") and kind == "text":
                size += len(json.loads(line[6:])["data"])
    assert kind == "playhead.close"
    return size


async def plain_turn(http: httpx.AsyncClient, thread_id: str, message: str) -> int:
    body = {"thread_id": thread_id, "message_id": uuid.uuid4().hex, "message": message}
    size = 0
    async with http.stream("POST", "/bench/plain", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                size += len(json.loads(line[6:]))
    return size


async def turns(http: httpx.AsyncClient) -> tuple[float, str]:
    """Turns per CPU second of the server: recorded beside plain."""
    kinds = {"recorded": recorded_turn, "plain": plain_turn}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    sizes = set()

    async def client(kind: str) -> None:
        thread_id = str(uuid.uuid4())
        for _ in range(TURNS):
            sizes.add(await kinds[kind](http, thread_id, MESSAGE))

    async def cpu_s() -> float:
        cost: dict[str, float] = (await http.get("/bench/cost")).json()
        return cost["cpu_s"]

    for repetition in range(REPETITIONS + 1):
        for kind, found in rates.items():
            before = await cpu_s()
            await asyncio.gather(*(client(kind) for _ in range(CLIENTS)))
            await asyncio.sleep(0.3)  # what is settled behind the answer counts as well
            if repetition:  # the first one warms up
                found.append(CLIENTS * TURNS / (await cpu_s() - before))
    assert len(sizes) == 1, sizes
    ours, plain = median(rates["recorded"]), median(rates["plain"])
    return ours / plain, f"{ours:.0f}/s beside {plain:.0f}/s"


# ---- the first token -------------------------------------------------------------------------------------


async def first_tokens() -> tuple[float, float, float]:
    """Milliseconds from the model's first token to the reader's first event: recorded p50, p99, plain p50."""
    model = Model(("Word",), waits=True, pause_s=TOKEN_S)

    async def recorded(http: httpx.AsyncClient) -> float:
        body = {"message": "hello", "thread_id": str(uuid.uuid4())}
        started = (await http.post("/v1/chat/message", json=body)).json()
        return await timed(http.stream("GET", f"/v1/streams/{started['stream_id']}"), "event: text")

    async def plain(http: httpx.AsyncClient) -> float:
        body = {"thread_id": str(uuid.uuid4()), "message_id": uuid.uuid4().hex, "message": "hello"}
        return await timed(http.stream("POST", "/bench/plain", json=body), 'data: "Word"')

    async def timed(response: AbstractAsyncContextManager[httpx.Response], line_wanted: str) -> float:
        came_at = 0.0
        telling = asyncio.create_task(tell())
        async with response as answer:
            async for line in answer.aiter_lines():
                if not came_at and line == line_wanted:
                    came_at = time.perf_counter()
        await telling
        return (came_at - model.said_at) * 1e3

    async def tell() -> None:
        await model.asked.wait()
        model.asked.clear()
        await asyncio.sleep(0.02)  # the reader is attached and waits
        model.go.set()

    async with model.serving() as url, serving(url) as http:
        found: dict[str, list[float]] = {"recorded": [], "plain": []}
        for number in range(FIRST_TOKENS + 5):
            for kind, measure in (("recorded", recorded), ("plain", plain)):
                took_ms = await measure(http)
                if number >= 5:
                    found[kind].append(took_ms)
    ours = found["recorded"]
    return percentile(ours, 0.5), percentile(ours, 0.99), percentile(found["plain"], 0.5)


async def rows(report: Report) -> None:
    async with Model(WORDS).serving() as url, serving(url) as http:
        ratio, detail = await turns(http)
        report.add("whole chat turns per CPU second / unrecorded", ratio, ">= 0.7", detail)
    p50, p99, plain = await first_tokens()
    detail = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; unrecorded p50 {plain:.1f} ms"
    report.add("added from the model's first token to the reader, ms", p50 - plain, "<= 5", detail)


def run(report: Report) -> None:
    uvloop.run(rows(report))


if __name__ == "__main__":
    run(Report())
