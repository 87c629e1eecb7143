"""A local server that speaks OpenAI's chat completions over a real socket, well or badly, as a test tells it.

    with OpenAIServer() as server:
        server.answer(Answer("Hello ", "world", reset_after_chunks=1))     # the next request only
        ChatOpenAI(base_url=server.url, api_key="any", model="any")

Requests beyond the answers given get `Answer()`. Like the real one it refuses conversations in which a tool call has
no answer or an assistant message is empty, so that a test of the next turn means something.

It runs its own event loop in a thread: a client that blocks or is cancelled cannot disturb it.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from model_server import ModelServer, Request, read_request, reset, send_json


@dataclass(frozen=True)
class ToolCall:
    """One call, its arguments sent in pieces like the real server does."""

    name: str
    arguments: tuple[str, ...] = ("{", "}")
    id: str = "call_1"


class Answer:
    """How one request is answered: these texts, one chunk each, then these tool calls; the rest is what goes wrong."""

    def __init__(
        self,
        *texts: str,
        tool_calls: tuple[ToolCall, ...] = (),
        first_delay_s: float = 0.0,
        hold_after_chunks: int | None = None,
        reset_after_chunks: int | None = None,
        malformed_after_chunks: int | None = None,
        bytes_per_write: int | None = None,
        status: int = 200,
        retry_after_s: float | None = None,
    ) -> None:
        """Describe an answer.

        Args:
            texts: What it says; ``("Hello ", "world")`` when nothing else is given either.
            tool_calls: What it calls, after the text.
            first_delay_s: Silence before the first chunk (the headers are out at once).
            hold_after_chunks: Fall silent after so many chunks, until `OpenAIServer.release`.
            reset_after_chunks: Reset the connection (RST) after so many chunks.
            malformed_after_chunks: Send a chunk that is no JSON after so many.
            bytes_per_write: Cut everything into writes of so many bytes: characters arrive in parts.
            status: Anything but 200 is sent as OpenAI's error document, at once.
            retry_after_s: Its ``Retry-After``.
        """
        self.texts = texts or (() if tool_calls else ("Hello ", "world"))
        self.tool_calls = tool_calls
        self.first_delay_s = first_delay_s
        self.hold_after_chunks = hold_after_chunks
        self.reset_after_chunks = reset_after_chunks
        self.malformed_after_chunks = malformed_after_chunks
        self.bytes_per_write = bytes_per_write
        self.status = status
        self.retry_after_s = retry_after_s

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Yield what the stream's chunks carry, the last one (finish_reason) left out."""
        for text in self.texts:
            yield {"content": text}
        for index, call in enumerate(self.tool_calls):
            function = {"name": call.name, "arguments": ""}
            yield {"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]}
            for piece in call.arguments:
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def message(self) -> dict[str, Any]:
        """Return the whole answer, for a request that does not stream."""
        calls = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "".join(c.arguments)}}
            for c in self.tool_calls
        ]
        return {"role": "assistant", "content": "".join(self.texts), **({"tool_calls": calls} if calls else {})}

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"


@dataclass
class OpenAIServer(ModelServer):
    """The server; a context manager. `url` is the base URL clients want, `requests` what has come in so far."""

    requests: list[Request] = field(default_factory=list)
    root: str = ""
    _answers: deque[Answer] = field(default_factory=deque)

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def answer(self, *answers: Answer) -> None:
        """Answer the next requests like this, one each."""
        self._answers.extend(answers)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. Each has a connection of its own: clients keep no idle one that outlives a test."""
        request = await read_request(reader)
        self.requests.append(request)
        answer = self._answers.popleft() if self._answers else Answer()
        if request.path != "/v1/chat/completions":
            await _send_error(writer, 404, f"no such path: {request.path}")
        elif problem := _problem(request.messages):
            await _send_error(writer, 400, problem)
        elif answer.status != 200:
            await _send_error(writer, answer.status, "the test wants this", answer.retry_after_s)
        elif not request.body.get("stream"):
            await send_json(writer, 200, _completion(answer))
        else:
            await self._stream_watched(request, answer, reader, writer)
            return
        request.finished = True

    async def _stream_watched(
        self, request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Stream an answer, and notice at once when the client goes away."""
        stream = asyncio.ensure_future(self._stream(request, answer, writer))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({stream, gone}, return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                await stream
            else:
                request.disconnected = True
        except ConnectionError:
            request.disconnected = True
        finally:
            stream.cancel()
            gone.cancel()
            await asyncio.gather(stream, gone, return_exceptions=True)

    async def _stream(self, request: Request, answer: Answer, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(answer.first_delay_s)
        deltas = [*answer.deltas(), None]
        for sent, delta in enumerate(deltas):
            if sent == answer.hold_after_chunks:
                await self._released.wait()
            if sent == answer.reset_after_chunks:
                reset(writer)
                return
            if sent == answer.malformed_after_chunks:
                await _write(writer, b'data: {"id": "half a ch\n\n', answer.bytes_per_write)
            await _write(writer, _event(_chunk(delta, answer.finish_reason)), answer.bytes_per_write)
            request.chunks_sent += 1
        await _write(writer, b"data: [DONE]\n\n", answer.bytes_per_write)
        request.finished = True


def _problem(messages: list[dict[str, Any]]) -> str | None:
    """Say what the real server would refuse in a conversation."""
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting.discard(message["tool_call_id"])
            continue
        if waiting:
            return f"tool_call_ids did not have response messages: {sorted(waiting)}"
        waiting = {call["id"] for call in message.get("tool_calls") or []}
        if message["role"] == "assistant" and not message.get("content") and not waiting:
            return "an assistant message must not be empty"
    return f"tool_call_ids did not have response messages: {sorted(waiting)}" if waiting else None


def _chunk(delta: dict[str, Any] | None, finish_reason: str) -> dict[str, Any]:
    """Wrap a delta as a chunk; None is the last, which only has the reason."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": None if delta else finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "local", "choices": [choice]}


def _completion(answer: Answer) -> dict[str, Any]:
    choice = {"index": 0, "message": answer.message(), "finish_reason": answer.finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "local", "choices": [choice]}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def _write(writer: asyncio.StreamWriter, data: bytes, bytes_per_write: int | None) -> None:
    for start in range(0, len(data), bytes_per_write or len(data)):
        writer.write(data[start : start + (bytes_per_write or len(data))])
        await writer.drain()
        if bytes_per_write:
            await asyncio.sleep(0.0001)  # let the client read the part by itself (asyncio sets TCP_NODELAY)


async def _send_error(
    writer: asyncio.StreamWriter, status: int, message: str, retry_after_s: float | None = None
) -> None:
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    extra = "" if retry_after_s is None else f"Retry-After: {retry_after_s:g}\r\n"
    await send_json(writer, status, {"error": {"message": message, "type": kind}}, extra)
