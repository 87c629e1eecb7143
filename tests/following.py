"""What the tests of playhead.js share: streams that say what they are told to, tabs that write down what they get.

A `Tab` keeps every call of every handler; `check` compares them with what the streams hold: each offset once, in order.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page
from running_server import WAIT_S, eventually, settings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playhead import Playhead
from playhead.model import StreamInfo
from playhead.server.app import create_app
from playhead.server.opening import open_chat
from playhead.server.serve import listen, make_server

OWNER = "local"
BLANK = "/static/icon.svg"  # a document of the server's origin that does nothing by itself
SHOW = """(shown) => {
    Object.defineProperty(document, "hidden", { value: !shown, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
RECORDER = """
async ([url, options]) => {
    const { Playhead } = await import(`${url}/static/playhead.js`);
    const record = { playhead: new Playhead(options), watches: {}, calls: [], states: {} };
    record.watch = (name, kind, id, given = {}) => {
        record.states[name] = ["connecting"];
        record.watches[name] = record.playhead[kind](id, {
            ...given,
            onOpen: (stream, { offset, tail }) => record.calls.push([name, "open", stream, offset, tail]),
            onEvent: (stream, e) => record.calls.push([name, "event", stream, e.first ?? e.offset, e.offset, e.data]),
            onClose: (stream, close) => record.calls.push([name, "close", stream, close.offset, close.outcome]),
            onError: (stream, problem) => record.calls.push([name, "error", stream, problem.code]),
            onState: (state) => record.states[name].push(state),
        });
    };
    globalThis.record = record;
}
"""


@dataclass
class Speaker:
    """A live stream that says what it is told to."""

    playhead: Playhead
    stream_id: str
    said: list[str] = field(default_factory=list)
    _words: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)

    @classmethod
    async def start(cls, playhead: Playhead, thread_id: str | None = None, stream_id: str | None = None) -> "Speaker":
        speaker = cls(playhead, "")
        info = await playhead.start(speaker._source, stream_id=stream_id, thread_id=thread_id, owner=OWNER)
        speaker.stream_id = info.stream_id
        return speaker

    async def _source(self) -> AsyncIterator[str]:
        while (word := await self._words.get()) is not None:
            yield word

    def say(self, *words: str) -> None:
        self.said += words
        for word in words:
            self._words.put_nowait(word)

    async def end(self) -> StreamInfo:
        self._words.put_nowait(None)
        return await self.playhead.wait(self.stream_id, principal=OWNER)


@dataclass
class Doorman:
    """ASGI middleware that sees who follows.

    Attributes:
        bodies: what was asked for, in order.
        open_now: how many of those that have asked are being answered.
        instead: the server has no such door, and answers as it does at this path.
        is_mute: what open connections are sent is lost, from now to their end, as when a network goes without a word.
    """

    app: ASGIApp
    bodies: list[dict[str, Any]] = field(default_factory=list)
    open_now: int = 0
    instead: str | None = None
    is_mute: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/follow" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.instead is not None:
            await self.app({**scope, "path": self.instead, "raw_path": self.instead.encode()}, receive, send)
            return
        body, counted = b"", False

        async def seen() -> Message:
            nonlocal body, counted
            message = await receive()
            if message["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    self.bodies.append(json.loads(body))
                    self.open_now += 1  # together: who counts the open ones finds what each has asked for
                    counted = True
            return message

        is_lost = False

        async def heard(message: Message) -> None:
            nonlocal is_lost
            is_lost = is_lost or (self.is_mute and message["type"] == "http.response.body")
            if not is_lost:
                await send(message)

        try:
            await self.app(scope, seen, heard)
        finally:
            self.open_now -= counted


@dataclass
class Tab:
    page: Page

    @classmethod
    async def open(cls, context: BrowserContext, url: str, **options: Any) -> "Tab":
        page = await context.new_page()
        await page.goto(url + BLANK)
        return await cls.start(page, url, **options)

    @classmethod
    async def start(cls, page: Page, url: str, **options: Any) -> "Tab":
        """On a page that is open already."""
        await page.evaluate(RECORDER, [url, options])
        return cls(page)

    async def watch(self, name: str, kind: str, target: str, **given: Any) -> None:
        await self.page.evaluate("([...words]) => record.watch(...words)", [name, kind, target, given])

    async def unwatch(self, name: str) -> None:
        await self.page.evaluate("(name) => record.watches[name].close()", name)

    async def calls(self, name: str) -> list[list[Any]]:
        """[kind, stream, …] of each call."""
        calls = await self.page.evaluate("(name) => record.calls.filter((c) => c[0] === name)", name)
        return [call[1:] for call in calls]

    async def states(self, name: str) -> list[str]:
        states: list[str] = await self.page.evaluate("(name) => record.states[name]", name)
        return states

    async def state(self, name: str) -> str:
        state: str = await self.page.evaluate("(name) => record.watches[name].state", name)
        return state

    async def until_state(self, name: str, state: str) -> None:
        async def has_it() -> bool:
            return await self.state(name) == state

        await eventually(has_it, f"{name} is {state}")

    async def until_calls(self, name: str, kind: str, count: int) -> list[list[Any]]:
        script = """([name, kind, count]) => {
            const calls = record.calls.filter((call) => call[0] === name && call[1] === kind);
            return calls.length >= count ? calls.map((call) => call.slice(1)) : [];
        }"""

        async def there() -> list[list[Any]]:
            found: list[list[Any]] = await self.page.evaluate(script, [name, kind, count])
            return found

        calls: list[list[Any]] = await eventually(there, f"{count} calls of {kind} for {name}")
        return calls

    async def until_offset(self, name: str, stream_id: str, offset: int) -> None:
        async def there() -> bool:
            return (await self.last_offset(name, stream_id)) >= offset

        await eventually(there, f"{name} has {offset} events of {stream_id}")

    async def last_offset(self, name: str, stream_id: str) -> int:
        script = """([name, id]) => {
            const mine = (call) => call[0] === name && call[1] === "event" && call[2] === id;
            return record.calls.findLast(mine)?.[4] ?? 0;
        }"""
        last: int = await self.page.evaluate(script, [name, stream_id])
        return last

    async def check(self, name: str, stream: Speaker, after: int = 0, *, closed: str | None = None) -> None:
        """The watch was given each event after an offset once, in order, and each text as it was said."""
        mine = [call for call in await self.calls(name) if call[1] == stream.stream_id]
        expected, text = after + 1, ""
        for _, _, first, last, data in (call for call in mine if call[0] == "event"):
            assert first == expected, f"{name}: {first} where {expected} was to come"
            assert last >= first
            expected, text = last + 1, text + data
        assert expected == len(stream.said) + 1
        assert text == "".join(stream.said[after:])
        closes = [call[2:] for call in mine if call[0] == "close"]
        assert closes == ([[expected, closed]] if closed else [])


async def freeze(page: Page, state: str) -> None:
    """What the browser does with a hidden tab, and a laptop that sleeps with all of them."""
    session = await page.context.new_cdp_session(page)
    await session.send("Page.setWebLifecycleState", {"state": state})


@contextlib.contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else is given while no server listens on it: held by a socket that does not listen either."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # both must say so, and servers do
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextlib.asynccontextmanager
async def no_network(page: Page) -> AsyncIterator[None]:
    session = await page.context.new_cdp_session(page)
    limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await session.send("Network.enable")
    await session.send("Network.emulateNetworkConditions", {"offline": True, **limits})
    try:
        yield
    finally:
        await session.send("Network.emulateNetworkConditions", {"offline": False, **limits})


@dataclass
class Door:
    """A real server, and the doorman who sees its followers."""

    url: str
    port: int
    playhead: Playhead
    doorman: Doorman

    async def speaker(self, thread_id: str | None = None, stream_id: str | None = None) -> Speaker:
        return await Speaker.start(self.playhead, thread_id, stream_id)

    async def follows(self, subscriptions: int) -> None:
        """The newest request has so many subscriptions, and is the only one."""

        def is_so() -> bool:
            bodies = self.doorman.bodies
            return self.doorman.open_now == 1 and len(bodies[-1]["subscriptions"]) == subscriptions

        await eventually(is_so, f"one connection with {subscriptions} subscriptions")


@contextlib.asynccontextmanager
async def opened_door(tmp_path: Path, **given: Any) -> AsyncIterator[Door]:
    mine = settings(data_dir=tmp_path / "var", **given)
    async with open_chat(mine) as chat:
        listening = listen(mine)
        port = listening.getsockname()[1]
        doorman = Doorman(create_app(mine, chat))
        server = make_server(mine, doorman, chat.playhead)
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield Door(f"http://127.0.0.1:{port}", port, chat.playhead, doorman)
        finally:
            server.should_exit = True
            await asyncio.wait_for(running, WAIT_S)


@contextlib.asynccontextmanager
async def speaking(*streams: Speaker, pause_s: float = 0.003) -> AsyncIterator[None]:
    """These streams say numbers all the time; at the end they close."""

    async def speak() -> None:
        for number in range(100_000):
            for stream in streams:
                stream.say(f"{number} ")
            await asyncio.sleep(pause_s)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        for stream in streams:
            await stream.end()
