"""A real Chromium for tests of the chat page: one browser per worker, one profile per test.

A module that uses it says ``pytest_plugins = ["page_fixtures"]`` and ``pytestmark = PAGE_TESTS``.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from chat_page import chromium
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect
from running_server import Server, serving


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=60_000)  # of a browser on a busy machine
    async with async_playwright() as playwright:
        options = {"executable_path": chromium(), "args": ["--no-sandbox"]}
        async with await playwright.chromium.launch(**options) as browser:
            yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def tabs(browser: Browser) -> AsyncIterator[BrowserContext]:
    """One browser profile; its pages are tabs. Anything said on a console as an error fails the test."""
    async with await browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        context.set_default_timeout(60_000)
        complaints: list[str] = []

        def listen(page: Page) -> None:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

        context.on("page", listen)
        yield context
        # Chromium reports every failed request itself; those are wanted here.
        assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


@pytest_asyncio.fixture(loop_scope="session")
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server
