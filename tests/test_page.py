"""The chat page in a real Chromium."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest
from cutting_proxy import cutting_proxy
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright, expect
from running_server import Server, ServerProcess, eventually, serving

pytestmark = pytest.mark.page

ROOT = Path(__file__).parent.parent
HUMAN, AI, MARK = ".turn.human", ".turn.ai", ".mark"
SHOW = """(shown) => {
    Object.defineProperty(document, "hidden", { value: !shown, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
LONG = "/pace 10 /long 10000"


@cache
def chromium() -> str:
    return subprocess.run([ROOT / "scripts" / "chromium"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        options = {"executable_path": chromium(), "args": ["--no-sandbox"]}
        async with await playwright.chromium.launch(**options) as browser:
            yield browser


@pytest.fixture
async def tabs(browser: Browser) -> AsyncIterator[BrowserContext]:
    """One browser profile; its pages are tabs. Anything said on a console as an error fails the test."""
    async with await browser.new_context() as context:
        context.set_default_timeout(15_000)
        complaints: list[str] = []

        def listen(page: Page) -> None:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

        context.on("page", listen)
        yield context
        # Chromium reports every failed request itself; those are wanted here.
        assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


async def opened(tabs: BrowserContext, url: str) -> Page:
    page = await tabs.new_page()
    await page.goto(url)
    return page


async def say(page: Page, text: str) -> None:
    await page.fill("#message", text)
    await page.press("#message", "Enter")


async def text_of(page: Page, selector: str = AI) -> str:
    """Exactly the text of the last such turn, marks and tools left out."""
    script = "(turn) => [...turn.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data).join('')"
    text: str = await page.locator(selector).last.evaluate(script)
    return text


async def longer_than(page: Page, characters: int) -> str:
    async def enough() -> str:
        text = await text_of(page) if await page.locator(AI).count() else ""
        return text if len(text) > characters else ""

    text: str = await eventually(enough)
    return text


async def streamed(server: Server) -> str:
    """What the newest stream holds."""
    latest = (await server.http.get("/v1/streams?limit=1")).json()["streams"][0]
    events = server.playhead.events(latest["stream_id"], principal="local")
    return "".join([event.text async for event in events if event.type == "text"])


async def test_a_message_streams_an_answer(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await expect(page.locator("#empty")).to_be_visible()
    await say(page, "hello there")
    await expect(page.locator(HUMAN)).to_have_text("hello there")
    await expect(page.locator("#send")).to_have_text("Stop")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#message")).to_have_value("")
    await longer_than(page, 10)
    await expect(page.locator("#send")).to_have_text("Send")
    await expect(page.locator("[aria-busy]")).to_have_count(0)
    await expect(page.locator("#connection")).to_have_text("ready")
    assert await text_of(page) == await streamed(server)
    await expect(page.locator("#empty")).to_be_hidden()


async def test_a_reload_in_mid_answer_shows_what_was_said_and_goes_on(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 10 /long 300")
    before = await longer_than(page, 200)
    await page.reload()
    await page.wait_for_function(
        "(length) => document.querySelector('.turn.ai')?.textContent.length >= length", arg=len(before)
    )
    after = await text_of(page)
    assert after.startswith(before)
    await expect(page.locator(HUMAN)).to_have_count(1)
    await expect(page.locator("#send")).to_have_text("Send", timeout=15_000)
    assert await text_of(page) == await streamed(server)
    await page.reload()
    await expect(page.locator(AI)).to_have_count(1)
    assert await text_of(page) == await streamed(server)


async def test_a_second_tab_follows_and_each_shows_what_the_other_says(server: Server, tabs: BrowserContext) -> None:
    one = await opened(tabs, server.url)
    await say(one, LONG)
    await longer_than(one, 50)
    two = await opened(tabs, server.url)
    await longer_than(two, 50)
    assert two.url == one.url
    await expect(two.locator(HUMAN)).to_have_text(LONG)
    await two.click("#send")
    await expect(one.locator(MARK)).to_contain_text("Stopped")
    await say(two, "and now from the second tab")
    await expect(one.locator(HUMAN).last).to_have_text("and now from the second tab")
    await expect(one.locator(AI)).to_have_count(2)
    await expect(one.locator("#send")).to_have_text("Send")
    await expect(two.locator("#send")).to_have_text("Send")
    assert await text_of(one) == await text_of(two) == await streamed(server)
    await expect(one.locator(HUMAN)).to_have_count(2)


async def test_stop_from_the_other_tab_ends_it_in_both_and_keeps_the_part(server: Server, tabs: BrowserContext) -> None:
    one = await opened(tabs, server.url)
    await say(one, LONG)
    await longer_than(one, 100)
    two = await opened(tabs, server.url)
    await longer_than(two, 100)
    await two.click("#send")
    for page in (one, two):
        await expect(page.locator(MARK)).to_have_text("Stopped. What was written is kept.")
        await expect(page.locator("#send")).to_have_text("Send")
        assert await text_of(page) == await streamed(server)
    await one.reload()
    await expect(one.locator(MARK)).to_contain_text("Stopped")
    assert await text_of(one) == await streamed(server)


async def test_stopped_before_the_first_word_is_shown_after_a_reload_too(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/slow 600 hello")
    await page.click("#send:has-text('Stop')")
    await expect(page.locator(MARK)).to_have_text("Stopped before the first word.")
    await page.reload()
    await expect(page.locator(MARK)).to_have_text("Stopped before the first word.")


async def test_a_failed_answer_says_why_and_can_be_tried_again(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 /error hello")
    await expect(page.locator(".mark.failed")).to_contain_text("Failed: DemoModelError")
    await page.reload()
    await expect(page.locator(".mark.failed")).to_contain_text("Failed: DemoModelError")
    await page.click("text=Try again")
    await expect(page.locator(HUMAN)).to_have_text(["/pace 0 /error hello"] * 2)
    await expect(page.locator(".mark.failed")).to_have_count(2)


async def test_tools_are_shown(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 /tool")
    await expect(page.locator(".tool")).to_have_text("used clock")
    await expect(page.locator("#send")).to_have_text("Send")
    assert await text_of(page) == await streamed(server)


async def test_nothing_that_is_said_becomes_markup(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;"
    await say(page, f"/pace 0 {evil}")
    await expect(page.locator("#send")).to_have_text("Send")
    await expect(page.locator(HUMAN)).to_have_text(f"/pace 0 {evil}")
    assert "<img src=x" in await longer_than(page, 10)
    assert await page.locator("#turns img, #turns script").count() == 0
    await page.reload()
    await expect(page.locator(HUMAN)).to_have_text(f"/pace 0 {evil}")
    assert await page.locator("#turns img, #turns script").count() == 0


async def test_the_keyboard_is_enough_and_enter_never_stops(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await expect(page.locator("#message")).to_be_focused()
    await page.keyboard.type(LONG)
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second line")
    await page.keyboard.press("Enter")
    await expect(page.locator(HUMAN)).to_have_text(f"{LONG}\nsecond line")
    await longer_than(page, 20)
    await page.keyboard.type("too early")
    await page.keyboard.press("Enter")
    await expect(page.locator("#note")).to_contain_text("your text is kept")
    await expect(page.locator("#message")).to_have_value("too early")
    await page.keyboard.press("Tab")
    await expect(page.locator("#send")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await expect(page.locator("#message")).to_have_value("too early")


async def test_a_double_click_on_send_does_not_stop(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await page.fill("#message", LONG)
    await page.dblclick("#send", delay=60)
    await longer_than(page, 100)
    assert await page.locator(MARK).count() == 0
    await page.click("#send")
    await expect(page.locator(MARK)).to_contain_text("Stopped")


async def test_a_busy_thread_keeps_the_text_and_follows_the_running_answer(
    server: Server, tabs: BrowserContext
) -> None:
    page = await opened(tabs, server.url)
    await expect(page.locator("#connection")).to_have_text("ready")
    thread_id = page.url.rpartition("=")[2]

    async def nothing(route: Route) -> None:
        await route.fulfill(json={"streams": []})

    await page.route("**/v1/streams?*", nothing)
    other = await server.http.post("/chat/message", json={"message": LONG, "thread_id": thread_id})
    await say(page, "me too")
    await expect(page.locator("#note")).to_contain_text("Another answer is being written")
    await expect(page.locator("#message")).to_have_value("me too")
    await page.unroute("**/v1/streams?*")
    await expect(page.locator(HUMAN)).to_have_text(LONG)
    await longer_than(page, 20)
    await server.playhead.cancel(other.json()["stream_id"], principal="local")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await expect(page.locator("#message")).to_have_value("me too")


async def test_what_could_not_be_sent_is_kept_over_a_reload(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await page.route("**/chat/message", lambda route: route.abort())
    await say(page, "/pace 0 precious words")
    await expect(page.locator("#note")).to_contain_text("Your text is kept")
    await page.reload()
    await expect(page.locator("#message")).to_have_value("/pace 0 precious words")
    await page.unroute("**/chat/message")
    await page.press("#message", "Enter")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 precious words")
    await page.reload()
    await expect(page.locator("#message")).to_have_value("")


async def test_a_message_whose_answer_was_lost_is_not_said_twice(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/chat/message", lose)
    await say(page, "/pace 0 once")
    await expect(page.locator("#note")).to_contain_text("cannot be reached")
    await page.unroute("**/chat/message")
    await expect(page.locator("#send")).to_have_text("Send")
    await page.press("#message", "Enter")
    await expect(page.locator("#message")).to_have_value("")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 once")
    assert len((await server.http.get("/v1/streams")).json()["streams"]) == 1


async def test_a_new_chat_is_empty_and_the_way_back_works(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 first thread")
    await expect(page.locator("#send")).to_have_text("Send")
    await longer_than(page, 20)
    await page.click("#new")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator("#hints")).to_be_visible()
    await page.click("text=/tool")
    await expect(page.locator("#message")).to_have_value("/tool")
    await page.go_back()
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 first thread")


async def test_a_thread_that_cannot_be_loaded_does_not_look_empty(server: Server, tabs: BrowserContext) -> None:
    page = await tabs.new_page()
    await page.route("**/thread?*", lambda route: route.abort())
    await page.goto(server.url)
    await expect(page.locator("#connection")).to_have_text("offline")
    await expect(page.locator("#empty")).to_be_hidden()
    await page.unroute("**/thread?*")
    await expect(page.locator("#connection")).to_have_text("ready")
    await expect(page.locator("#empty")).to_be_visible()


async def test_the_page_asks_nobody_but_its_server(server: Server, tabs: BrowserContext) -> None:
    asked: set[str] = set()
    tabs.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 hello")
    await longer_than(page, 20)
    await page.goto(server.url + "/docs")
    assert asked == {f"127.0.0.1:{server.port}"}


@pytest.mark.proves("H6")
async def test_eventsource_comes_back_by_itself_with_its_last_event_id(tmp_path: Path, tabs: BrowserContext) -> None:
    async with cutting_proxy() as proxy, serving(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as server:
        proxy.target_port = server.port
        page = await opened(tabs, f"http://127.0.0.1:{proxy.port}")
        await say(page, "/pace 10 /long 500")
        await longer_than(page, 300)
        for _ in range(2):
            had = len(await text_of(page))
            proxy.cut()
            await expect(page.locator("#connection")).to_have_text("reconnecting…")
            await longer_than(page, had + 50)
        await expect(page.locator("#send")).to_have_text("Send")
        assert await text_of(page) == await streamed(server)
        followed = [head for head in proxy.heads if head.startswith("GET /v1/streams/")]
        assert len(followed) == 3
        assert ["last-event-id: 1." in head.lower() for head in followed] == [False, True, True]


async def test_a_tab_that_nobody_sees_keeps_no_connection_and_catches_up(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 10 /long 300")
    before = await longer_than(page, 50)
    await page.evaluate(SHOW, False)
    await eventually(lambda: not server.playhead._readers.feeds)
    hidden = await text_of(page)
    await page.evaluate(SHOW, True)
    assert hidden.startswith(before)
    await longer_than(page, len(hidden))
    await expect(page.locator("#send")).to_have_text("Send", timeout=15_000)
    assert await text_of(page) == await streamed(server)


@pytest.mark.crash
async def test_after_kill_9_the_open_page_says_interrupted_and_goes_on(tmp_path: Path, tabs: BrowserContext) -> None:
    with ServerProcess(tmp_path) as first:
        page = await opened(tabs, first.url)
        await say(page, LONG)
        shown = await longer_than(page, 200)
        first.kill()
    await expect(page.locator("#connection")).to_have_text("reconnecting…")
    with ServerProcess(tmp_path, port=first.port) as second:
        await expect(page.locator(MARK)).to_contain_text("Interrupted")
        assert (await text_of(page)).startswith(shown)
        kept = await text_of(page)
        await page.reload()
        await expect(page.locator(MARK)).to_contain_text("Interrupted")
        assert await text_of(page) == kept
        await say(page, "/pace 0 and on we go")
        await expect(page.locator(AI)).to_have_count(2)
        await expect(page.locator("#send")).to_have_text("Send")
        assert "demo model" in await text_of(page)
        assert second.process.poll() is None


async def test_a_stream_that_was_deleted_leaves_the_thread_as_it_is_known(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 50)
    latest = (await server.http.get("/v1/streams?limit=1")).json()["streams"][0]
    await server.http.delete(f"/v1/streams/{latest['stream_id']}")
    await expect(page.locator("#send")).to_have_text("Send")
    await expect(page.locator("#connection")).to_have_text("ready")


async def test_a_cursor_that_is_refused_starts_the_answer_over(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    refused = asyncio.Event()

    async def refuse(route: Route) -> None:
        if refused.is_set():
            await route.continue_()
        else:
            refused.set()
            problem = {"code": "diverged", "status": 409, "detail": "x"}
            await route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(problem))

    await page.route("**/v1/streams/*", refuse)
    await say(page, "/pace 1 hello")
    await longer_than(page, 10)
    await expect(page.locator("#send")).to_have_text("Send")
    assert await text_of(page) == await streamed(server)
    assert refused.is_set()
