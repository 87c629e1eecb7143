"""A local server that speaks OpenAI's two APIs and Anthropic's over real sockets, and cuts them.

    with ProviderServer(response_events(words)) as server:
        server.serve(Cut(after_events=3, then_bytes=10), Cut())     # the first connection breaks inside the 4th frame

A response lives on the server: in background mode its events stay for ``starting_after``, numbered from 0. Each
connection that streams takes the next ``Cut``; beyond them everything is sent. It counts what it was asked.

It runs its own event loop in a thread: a client that blocks or is cancelled cannot disturb it.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from model_server import ModelServer, Request, read_request, reset, send_json

Item = dict[str, Any]
RESPONSE_ID = "resp_1"


@dataclass(frozen=True)
class Cut:
    """How one streaming connection goes.

    Attributes:
        after_events: send so many events, then stop; None = all of them.
        then_bytes: and so many bytes of the next one.
        silent_s: then say nothing for so long.
        how: ``reset`` (RST), ``end`` (a clean end of the connection) or ``hold`` (silence, until ``release``).
        status: anything but 200 is sent at once, as an error document.
        retry_after_s: with it.
        words: of the error document.
        ignores_cursor: send from the first event, whatever was asked.
        jumps: leave out so many events.
    """

    after_events: int | None = None
    then_bytes: int = 0
    silent_s: float = 0.0
    how: str = "reset"
    status: int = 200
    retry_after_s: float | None = None
    words: str = "the test wants this"
    ignores_cursor: bool = False
    jumps: int = 0


def response(status: str, **more: Any) -> Item:
    """A response as the API shows it."""
    asked = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": 1,
        "model": "local",
        "status": status,
        "output": [],
        **asked,
        **more,
    }


USAGE = {
    "input_tokens": 3,
    "output_tokens": 5,
    "total_tokens": 8,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def response_events(words: Sequence[str], *, end: str = "response.completed", **more: Any) -> list[Item]:
    """The events of an answer that says these words, numbered."""
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    deltas = [{"type": "response.output_text.delta", **where, "delta": word, "logprobs": []} for word in words]
    status = end.removeprefix("response.")
    events: list[Item] = [
        {"type": "response.created", "response": response("queued")},
        {"type": "response.in_progress", "response": response("in_progress")},
        *deltas,
        {"type": end, "response": response(status, usage=USAGE, **more)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


@dataclass
class ProviderServer(ModelServer):
    """The server; a context manager. ``url`` is OpenAI's base URL, ``root`` Anthropic's."""

    events: list[Item]
    status: str = "in_progress"
    answers_with_a_page: bool = False
    refuses_cancel: bool = False
    root: str = ""
    requests: list[Request] = field(default_factory=list)
    _cuts: deque[Cut] = field(default_factory=deque)

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def serve(self, *cuts: Cut) -> None:
        """Let the next streaming connections go like this, one each."""
        self._cuts.extend(cuts)

    def asked(self, what: str) -> list[Request]:
        """The requests whose path holds this."""
        return [request for request in self.requests if what in request.path]

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. Each has a connection of its own."""
        request = await read_request(reader)
        self.requests.append(request)
        place = urlsplit(request.path)
        query = parse_qs(place.query)
        if place.path.endswith("/cancel") and not self.refuses_cancel:
            self.status = "cancelled"
            await send_json(writer, 200, response("cancelled"))
        elif place.path.endswith(RESPONSE_ID) and query.get("stream") != ["true"]:
            if self.answers_with_a_page:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>Hello</h1>")
                await writer.drain()
            else:
                await send_json(writer, 200, response(self.status))
        elif place.path.endswith(("/responses", "/messages", "/completions", RESPONSE_ID)):
            after = int(query.get("starting_after", ["-1"])[0])
            await self._stream_watched(request, after, reader, writer)
            return
        else:
            await send_json(writer, 404, {"error": {"message": f"no such path: {place.path}"}})
        request.finished = True

    async def _stream_watched(
        self, request: Request, after: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Stream, and notice at once when the client goes away."""
        stream = asyncio.ensure_future(self._stream(request, after, writer))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({stream, gone}, return_when=asyncio.FIRST_COMPLETED)
            request.disconnected = not stream.done()
            if stream.done():
                await stream
        finally:
            stream.cancel()
            gone.cancel()
            await asyncio.gather(stream, gone, return_exceptions=True)

    async def _stream(self, request: Request, after: int, writer: asyncio.StreamWriter) -> None:
        cut = self._cuts.popleft() if self._cuts else Cut()
        if cut.status != 200:
            extra = "" if cut.retry_after_s is None else f"Retry-After: {cut.retry_after_s:g}\r\n"
            error = {"type": "rate_limit_error" if cut.status == 429 else "server_error", "message": cut.words}
            await send_json(writer, cut.status, {"type": "error", "error": error}, extra + "x-request-id: req_7\r\n")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await writer.drain()
        first = 0 if cut.ignores_cursor else after + 1 + cut.jumps
        frames = [_frame(event) for event in self.events[first:]]
        whole = len(frames) if cut.after_events is None else cut.after_events
        for frame in frames[:whole]:
            writer.write(frame)
            if request.path.endswith("/messages"):
                writer.write(b'event: ping\ndata: {"type": "ping"}\n\n')
            await writer.drain()
            request.chunks_sent += 1
            await asyncio.sleep(0)
        if whole < len(frames):
            writer.write(frames[whole][: cut.then_bytes])
            await writer.drain()
            await asyncio.sleep(cut.silent_s)
            if cut.how == "reset":
                # What was sent must have been read: a reset takes away what still waits in the socket.
                await asyncio.sleep(0.02)
                reset(writer)
            elif cut.how == "hold":
                await self._released.wait()
                writer.write(frames[whole][cut.then_bytes :] + b"".join(frames[whole + 1 :]))
                await writer.drain()
                request.finished = True
            return
        if request.path.endswith("/completions"):
            writer.write(b"data: [DONE]\n\n")
        request.finished = True


def chat_chunks(deltas: Sequence[Item], *, finish_reason: str | None = "stop", usage: bool = True) -> list[Item]:
    """A chat completion's chunks, one for each delta; then the reason to stop, then the usage."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "local"}
    told = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return [
        *[{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas],
        *([{**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]}] if finish_reason else []),
        *([{**head, "choices": [], "usage": told}] if usage else []),
    ]


def message_events(blocks: Sequence[tuple[Item, Sequence[Item]]], stop_reason: str = "end_turn") -> list[Item]:
    """Anthropic's events of a message of these blocks: each how it begins, and what is added to it."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "local", "content": []}
    inside = [
        event
        for index, (block, deltas) in enumerate(blocks)
        for event in (
            {"type": "content_block_start", "index": index, "content_block": block},
            *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": index},
        )
    ]
    return [
        {"type": "message_start", "message": {**head, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        *inside,
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": None},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    ]


def _frame(event: Item) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""  # chat completions have none
    return f"{name}data: {json.dumps(event)}\n\n".encode()
