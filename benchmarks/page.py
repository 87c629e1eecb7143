"""The page's row: from a reload in mid-answer to all of it painted, beside the same text as one static page.

Both in one headless Chromium, from one server. Painted: the text's last word is in the document, and the browser has
drawn a frame since. The page asks for the thread, follows its live stream, and draws Markdown; the static page has
nothing to ask for and nothing to draw but text.
"""

import asyncio
import subprocess
import time
import uuid
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvloop
from playwright.async_api import BrowserContext, Page, async_playwright

from benchmarks.chat import MESSAGE, Model, serving
from benchmarks.report import REPETITIONS, Report

EVENTS = 10_000
LAST = "the-very-last-word"
WORDS = (*(f"word{number}" + (" " if number % 80 else ".\n\n") for number in range(1, EVENTS)), LAST)
ANSWER_WITHIN_S = 120.0
PAINT_WITHIN_S = 30.0
SAID = "document.querySelector('main')"

# rAF, then rAF: when the second one is called, what the first one saw has been painted.
_LOOK = """
addEventListener("DOMContentLoaded", function look() {
  if (!%s?.textContent.includes("%s")) return void requestAnimationFrame(look);
  requestAnimationFrame(() => requestAnimationFrame(() => painted(performance.now())));
});
"""


class Painting:
    """A tab that tells how long after a reload the last word was painted."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._told: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @classmethod
    async def opened(cls, browser: BrowserContext, url: str) -> "Painting":
        page = await browser.new_page()
        self = cls(page)
        await page.expose_function("painted", self._painted)
        await page.add_init_script(_LOOK % (SAID, LAST))
        await page.goto(url)
        await self._done()
        return self

    def _painted(self, at_ms: float) -> None:
        if not self._told.done():
            self._told.set_result(at_ms)

    async def _done(self) -> float:
        async with asyncio.timeout(PAINT_WITHIN_S):
            return await self._told

    async def reload(self) -> float:
        """Milliseconds from the reload to the last word painted."""
        self._told = asyncio.get_running_loop().create_future()
        await self.page.bring_to_front()  # hidden tabs are not painted
        await self.page.reload(wait_until="commit")
        return await self._done()


async def partly_answered(http: httpx.AsyncClient) -> str:
    """A thread whose live answer has said all words and does not end."""
    thread_id = str(uuid.uuid4())
    started = (await http.post("/v1/chat/message", json={"message": MESSAGE, "thread_id": thread_id})).json()
    until = time.monotonic() + ANSWER_WITHIN_S
    while (info := (await http.get(f"/v1/streams/{started['stream_id']}/info")).json())["tail"] < EVENTS:
        assert info["status"] == "live", info
        assert time.monotonic() < until, info
        await asyncio.sleep(0.1)
    return thread_id


async def measured(browser: BrowserContext, http: httpx.AsyncClient) -> dict[str, list[float]]:
    await http.put("/bench/text", content="".join(WORDS).encode())
    urls = {"page": f"/?conversationId={await partly_answered(http)}", "static": "/bench/text"}
    tabs = {kind: await Painting.opened(browser, f"{http.base_url}".rstrip("/") + url) for kind, url in urls.items()}
    took_ms: dict[str, list[float]] = {kind: [] for kind in tabs}
    for _ in range(REPETITIONS):
        for kind, tab in tabs.items():
            took_ms[kind].append(await tab.reload())
    got: dict[str, Any] = {
        "page": await tabs["page"].page.evaluate("[...document.querySelectorAll('.turn.ai')].at(-1).answer.source"),
        "static": await tabs["static"].page.evaluate(f"{SAID}.textContent"),
    }
    assert got == dict.fromkeys(tabs, "".join(WORDS))
    return took_ms


def chromium() -> str:
    script = Path(__file__).parent.parent / "scripts" / "chromium"
    return subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()


async def rows(report: Report) -> None:
    async with (
        Model(WORDS, stays=True).serving() as url,
        serving(url) as http,
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"]) as browser,
        await browser.new_context() as context,
    ):
        took_ms = await measured(context, http)
    ours, static = median(took_ms["page"]), median(took_ms["static"])
    detail = f"{ours:.0f} ms beside {static:.0f} ms for {EVENTS:,} events"
    report.add("reload to the whole partial answer painted / static", ours / static, "<= 5", detail)


def run(report: Report) -> None:
    uvloop.run(rows(report))


if __name__ == "__main__":
    run(Report())
