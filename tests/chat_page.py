"""Hands and eyes for tests of the chat page; ``page_fixtures`` has the browser."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect
from running_server import Server, eventually

from playhead.server.page import HEADERS, STATIC

ROOT = Path(__file__).parent.parent
PAGE_TESTS = [pytest.mark.page, pytest.mark.asyncio(loop_scope="session")]
HUMAN, AI, MARK, NOTE = ".turn.human .said", ".turn.ai", ".mark", "#note"
LONG = "/pace 20 /long 20000"
BARE = "http://page.test/"
"""An address where only the static files are."""


@cache
def chromium() -> str:
    return subprocess.run([ROOT / "scripts" / "chromium"], capture_output=True, text=True, check=True).stdout.strip()


async def opened(tabs: BrowserContext, url: str) -> Page:
    page = await tabs.new_page()
    await page.goto(url)
    return page


async def bare(tabs: BrowserContext) -> Page:
    """An empty page that may import the static modules, under the page's own policy."""
    page = await tabs.new_page()

    async def files(route: Route) -> None:
        path = route.request.url.removeprefix(BARE)
        if path.startswith("static/"):
            await route.fulfill(path=STATIC / path.removeprefix("static/"), headers=HEADERS | _type(path))
        else:
            await route.fulfill(body="<!doctype html><title>bare</title><body>", headers=HEADERS | _type(".html"))

    await page.route(BARE + "**", files)
    await page.goto(BARE)
    return page


def _type(path: str) -> dict[str, str]:
    types = {"js": "text/javascript", "css": "text/css", "html": "text/html; charset=utf-8"}
    return {"content-type": types[path.rpartition(".")[2]]}


async def say(page: Page, text: str) -> None:
    await page.fill("#message", text)
    await page.press("#message", "Enter")


async def source_of(page: Page, index: int = -1) -> str:
    """Exactly what an answer's model said, as the page has it; the last answer if not told otherwise."""
    text: str = await page.evaluate(
        f"(index) => [...document.querySelectorAll('{AI}')].at(index)?.answer.source ?? ''", index
    )
    return text


async def longer_than(page: Page, characters: int) -> str:
    """What the last answer says, once that is more than so many characters."""

    async def enough() -> str:
        text = await source_of(page)
        return text if len(text) > characters else ""

    text: str = await eventually(enough)
    return text


async def is_done(page: Page, timeout_ms: float = 60_000) -> None:
    await expect(page.locator("#send")).to_be_enabled(timeout=timeout_ms)  # else the message is on its way only
    await expect(page.locator("#send")).to_have_text("Send", timeout=timeout_ms)
    await expect(page.locator("[aria-busy]")).to_have_count(0)


async def streamed(server: Server) -> str:
    """What the newest stream holds."""
    latest = (await server.http.get("/v1/streams?limit=1")).json()["streams"][0]
    events = server.playhead.events(latest["stream_id"], principal="local")
    return "".join([event.text async for event in events if event.type == "text"])


def thread_of(page: Page) -> str:
    return page.url.rpartition("conversationId=")[2]


async def frame(page: Page) -> None:
    """Wait until what is known is painted."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def said_by(server: Server, thread_id: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = (await server.http.get("/v1/thread", params={"thread_id": thread_id})).json()
    return turns
