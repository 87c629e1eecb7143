"""The page reloaded, opened many times, cut off, frozen, its server killed: nothing is lost or repeated."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import pytest
from chat_page import (
    AI,
    HUMAN,
    LONG,
    MARK,
    NOTE,
    PAGE_TESTS,
    is_done,
    longer_than,
    opened,
    say,
    source_of,
    streamed,
)
from cutting_proxy import cutting_proxy
from following import kept_port
from playwright.async_api import BrowserContext, Page, Request, Route, expect
from running_server import Server, ServerProcess, eventually, serving

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS

TABS = 7
RELOADS = 10
SHOW = """(shown) => {
    Object.defineProperty(document, "hidden", { value: !shown, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


async def has_said(page: Page, text: str) -> None:
    """Wait until the last answer has at least this text; what it has must begin with it."""
    assert (await longer_than(page, len(text) - 1)).startswith(text)


async def words_of(server: Server) -> int:
    return int((await server.http.get("/v1/streams?limit=1")).json()["streams"][0]["tail"])


async def test_a_reload_in_mid_answer_shows_what_was_said_and_goes_on(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 10 /long 300")
    before = await longer_than(page, 200)
    await page.reload()
    await has_said(page, before)
    await expect(page.locator(HUMAN)).to_have_count(1)
    await is_done(page)
    assert await source_of(page) == await streamed(server)
    await page.reload()
    await expect(page.locator(AI)).to_have_count(1)
    assert await source_of(page) == await streamed(server)


async def test_ten_reloads_in_a_row_lose_nothing_and_stop_still_works(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    before = await longer_than(page, 50)
    for _ in range(RELOADS):
        await page.reload(wait_until="domcontentloaded")
    await has_said(page, before)
    await expect(page.locator(HUMAN)).to_have_text([LONG])
    await page.click("#send")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    assert await source_of(page) == await streamed(server)
    await eventually(lambda: not server.playhead._readers.feeds)


async def test_a_second_tab_follows_and_each_shows_what_the_other_says(server: Server, tabs: BrowserContext) -> None:
    one = await opened(tabs, server.url)
    await say(one, LONG)
    await longer_than(one, 50)
    two = await opened(tabs, server.url)
    await longer_than(two, 50)
    assert two.url == one.url
    await expect(two.locator(HUMAN)).to_have_text(LONG)
    await two.click("#send")
    for page in (one, two):
        await expect(page.locator(MARK)).to_contain_text("Stopped")
    await say(two, "/pace 5 and now from the second tab")
    await expect(one.locator(HUMAN).last).to_have_text("/pace 5 and now from the second tab")
    await expect(one.locator(AI)).to_have_count(2)
    await is_done(one)
    await is_done(two)
    assert await source_of(one) == await source_of(two) == await streamed(server)
    await expect(one.locator(HUMAN)).to_have_count(2)


async def test_stop_from_the_other_tab_ends_it_in_both_and_keeps_the_part(server: Server, tabs: BrowserContext) -> None:
    one = await opened(tabs, server.url)
    await say(one, LONG)
    await longer_than(one, 100)
    two = await opened(tabs, server.url)
    await longer_than(two, 100)
    await two.click("#send")
    for page in (one, two):
        await expect(page.locator(MARK)).to_contain_text("Stopped. What was written is kept.")
        await is_done(page)
        assert await source_of(page) == await streamed(server)
    await one.reload()
    await expect(one.locator(MARK)).to_contain_text("Stopped")
    assert await source_of(one) == await streamed(server)


async def test_seven_tabs_with_seven_answers_share_one_connection(server: Server, tabs: BrowserContext) -> None:
    following: set[Request] = set()
    tabs.on("request", lambda request: following.add(request) if "/v1/follow" in request.url else None)
    tabs.on("requestfinished", lambda request: following.discard(request))
    tabs.on("requestfailed", lambda request: following.discard(request))
    pages = [await opened(tabs, f"{server.url}/?conversationId={uuid4()}") for _ in range(TABS)]
    for page in pages:
        await say(page, "/pace 200 /long 2000")  # slowly, as seven pages draw what seven answers say
    for page in pages:
        await longer_than(page, 50)
    await eventually(lambda: len(following) == 1)
    for page in pages:
        await page.click("#send")
        await expect(page.locator(MARK)).to_contain_text("Stopped")
        events = await server.http.get("/v1/thread", params={"thread_id": page.url.rpartition("=")[2]})
        assert await source_of(page) == events.json()[-1]["content"]


async def test_a_tab_that_nobody_sees_is_up_to_date_when_it_is_shown(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 10 /long 200")
    await longer_than(page, 50)
    await page.evaluate(SHOW, False)
    await eventually(lambda: done(server))
    await page.evaluate(SHOW, True)
    await is_done(page)
    assert await source_of(page) == await streamed(server)


async def done(server: Server) -> bool:
    return bool((await server.http.get("/v1/streams?limit=1")).json()["streams"][0]["outcome"])


async def test_a_frozen_page_is_up_to_date_when_it_thaws(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 10 /long 200")
    before = await longer_than(page, 50)
    devtools = await tabs.new_cdp_session(page)
    await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    await eventually(lambda: done(server))
    await devtools.send("Page.setWebLifecycleState", {"state": "active"})
    await has_said(page, before)
    await is_done(page)
    assert await source_of(page) == await streamed(server)


async def test_offline_and_back_misses_nothing_and_the_old_note_goes(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    before = await longer_than(page, 50)
    await tabs.set_offline(True)
    await expect(page.locator("#connection")).to_have_text("offline")
    await page.click("#send")
    await expect(page.locator(NOTE)).to_contain_text("cannot be reached")
    was = await words_of(server)
    await eventually(lambda: later(server, was + 200))
    shown = await source_of(page)
    await tabs.set_offline(False)
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator(NOTE)).to_be_hidden()
    await has_said(page, shown)
    assert shown.startswith(before)
    await longer_than(page, len(shown) + 800)
    await page.click("#send")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    assert await source_of(page) == await streamed(server)


async def later(server: Server, words: int) -> bool:
    return await words_of(server) > words


async def test_what_began_and_ended_while_the_page_was_offline_is_there_afterwards(
    server: Server, tabs: BrowserContext
) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 before")
    await is_done(page)
    await tabs.set_offline(True)
    await expect(page.locator("#connection")).to_have_text("offline")
    thread_id = page.url.rpartition("=")[2]
    for word in ("one", "two"):
        body = {"message": f"/pace 0 {word}", "thread_id": thread_id}
        assert (await server.http.post("/v1/chat/message", json=body)).status_code == 200
        await eventually(lambda: done(server))
    await tabs.set_offline(False)
    await expect(page.locator(HUMAN)).to_have_text(["/pace 0 before", "/pace 0 one", "/pace 0 two"])
    await expect(page.locator(AI)).to_have_count(3)
    await is_done(page)
    assert await source_of(page) == await streamed(server)


async def test_through_cuts_of_the_connection_every_event_comes_once(tmp_path: Path, tabs: BrowserContext) -> None:
    async with cutting_proxy() as proxy, serving(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as server:
        proxy.target_port = server.port
        page = await opened(tabs, f"http://127.0.0.1:{proxy.port}")
        await say(page, LONG)
        await longer_than(page, 100)
        for _ in range(3):
            had = len(await source_of(page))
            proxy.cut()
            await longer_than(page, had + 50)
        await page.click("#send")
        await is_done(page)
        assert await source_of(page) == await streamed(server)


@pytest.mark.proves("H6")
async def test_eventsource_comes_back_by_itself_with_its_last_event_id(tmp_path: Path, tabs: BrowserContext) -> None:
    async with cutting_proxy() as proxy, serving(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as server:
        proxy.target_port = server.port
        started = await server.http.post("/v1/chat/message", json={"message": LONG})
        path = f"/v1/streams/{started.json()['stream_id']}"
        page = await opened(tabs, f"http://127.0.0.1:{proxy.port}/docs")
        await page.evaluate(EVENT_SOURCE, path)

        def asked() -> list[str]:
            return [head for head in proxy.heads if head.startswith(f"GET {path}")]

        for number in range(2):
            had = await page.evaluate("() => window.offsets.length")
            await page.wait_for_function("(had) => window.offsets.length > had + 30", arg=had)
            proxy.cut()
            await eventually(lambda: len(asked()) == number + 2, "it has come back")  # noqa: B023
        had = await page.evaluate("() => window.offsets.length")
        await page.wait_for_function("(had) => window.offsets.length > had + 30", arg=had)
        await server.http.post(f"{path}/cancel")
        await page.wait_for_function("() => window.isClosed")
        offsets = await page.evaluate("() => window.offsets")
        assert offsets == list(range(1, len(offsets) + 1))
        assert await page.evaluate("() => window.text") == await streamed(server)
        assert ["last-event-id: 1." in head.lower() for head in asked()] == [False, True, True]


EVENT_SOURCE = """(path) => {
    window.offsets = [];
    window.text = "";
    const source = new EventSource(path);
    source.addEventListener("text", ({ data }) => {
        const event = JSON.parse(data);
        window.offsets.push(event.offset);
        window.text += event.data;
    });
    source.addEventListener("playhead.close", () => { source.close(); window.isClosed = true; });
}"""


@pytest.mark.crash
async def test_after_kill_9_the_open_page_says_interrupted_and_goes_on(tmp_path: Path, tabs: BrowserContext) -> None:
    with kept_port() as port:
        with ServerProcess(tmp_path, port=port) as first:
            page = await opened(tabs, first.url)
            await say(page, LONG)
            shown = await longer_than(page, 200)
            first.kill()
        await expect(page.locator("#connection")).to_have_text("reconnecting…")
        with ServerProcess(tmp_path, port=port) as second:
            await expect(page.locator(MARK)).to_contain_text("Interrupted")
            await expect(page.locator("#connection")).to_have_text("interrupted")
            assert (await source_of(page)).startswith(shown)
            kept = await source_of(page)
            await page.reload()
            await expect(page.locator(MARK)).to_contain_text("Interrupted")
            assert await source_of(page) == kept
            await say(page, "/pace 0 and on we go")
            await expect(page.locator(AI)).to_have_count(2)
            await is_done(page)
            await expect(page.locator("#connection")).to_have_text("ready")
            assert "demo model" in await source_of(page)
            assert second.process.poll() is None


async def test_a_stream_that_was_deleted_leaves_the_thread_as_it_is_known(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 50)
    latest = (await server.http.get("/v1/streams?limit=1")).json()["streams"][0]
    await server.http.delete(f"/v1/streams/{latest['stream_id']}")
    await page.evaluate("() => dispatchEvent(new Event('focus'))")
    await is_done(page)
    await expect(page.locator(HUMAN)).to_have_text(LONG)
    await expect(page.locator("#connection")).to_have_text("ready")


async def test_a_cursor_that_is_refused_starts_the_answer_over(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 50)
    refused = asyncio.Event()

    async def refuse(route: Route) -> None:
        subscriptions = json.loads(route.request.post_data or "")["subscriptions"]
        known = [(each["key"], id_) for each in subscriptions for id_ in each.get("streams", {})]
        if refused.is_set() or not known:
            await route.continue_()
            return
        refused.set()
        [(key, stream_id)] = known
        problem = {"code": "diverged", "status": 409, "title": "Diverged", "detail": "x", "retryable": False}
        frame = {"key": key, "stream_id": stream_id, "type": "playhead.error", **problem}
        await route.fulfill(content_type="text/event-stream", body=f"data: {json.dumps(frame)}\n\n")

    await page.route("**/v1/follow", refuse)
    await tabs.set_offline(True)
    await expect(page.locator("#connection")).to_have_text("offline")
    await tabs.set_offline(False)
    await eventually(refused.is_set)
    await expect(page.locator("#connection")).to_have_text("live")
    await longer_than(page, 200)
    await page.click("#send")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    assert await source_of(page) == await streamed(server)
    await expect(page.locator(AI)).to_have_count(1)


async def test_what_began_and_ended_while_the_page_turned_to_another_answer_is_there(
    server: Server, tabs: BrowserContext
) -> None:
    """The server refuses a message for an answer that is over by the time the page asks for it."""
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 before")
    await is_done(page)
    await expect(page.locator("#connection")).to_have_text("ready")
    known = (await server.http.get("/v1/streams?limit=1")).json()["streams"][0]["stream_id"]
    follows, go_on = asyncio.Event(), asyncio.Event()

    async def refuse(route: Route) -> None:
        problem = {"code": "thread-busy", "status": 409, "detail": "busy", "stream_id": known}
        await route.fulfill(status=409, json=problem)

    async def hold(route: Route) -> None:
        follows.set()
        await go_on.wait()
        await route.continue_()

    await page.route("**/chat/message", refuse)
    await page.route("**/v1/follow", hold)
    await say(page, "/pace 0 me too")
    await follows.wait()
    body = {"message": "/pace 0 meanwhile", "thread_id": page.url.rpartition("=")[2]}
    assert (await server.http.post("/v1/chat/message", json=body)).status_code == 200
    await eventually(lambda: done(server))
    go_on.set()
    await expect(page.locator(HUMAN)).to_have_text(["/pace 0 before", "/pace 0 meanwhile"])
    await is_done(page)
    assert await source_of(page) == await streamed(server)


async def test_a_thread_that_cannot_be_loaded_does_not_look_empty(server: Server, tabs: BrowserContext) -> None:
    page = await tabs.new_page()
    await page.route("**/v1/**", lambda route: route.abort())
    await page.goto(server.url)
    await expect(page.locator("#trouble")).to_contain_text("could not be loaded. The server cannot be reached.")
    await expect(page.locator("#connection")).to_have_text("reconnecting…")
    await expect(page.locator("#empty")).to_be_hidden()
    await expect(page.locator("#list-status")).to_contain_text("could not be loaded")
    held: list[str] = []
    go_on = asyncio.Event()

    async def hold(route: Route) -> None:
        held.append(route.request.url)
        await go_on.wait()
        await route.continue_()

    def loads() -> int:
        return sum("/v1/thread?" in url for url in held)

    await page.route("**/v1/**", hold)
    await eventually(lambda: loads() == 1, "it tries again by itself")  # while that hangs it does not once more
    await page.click("#trouble >> text=Try now")
    await eventually(lambda: loads() == 2, "it tries at once when it is told")
    go_on.set()
    await expect(page.locator("#connection")).to_have_text("ready")
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#empty")).to_be_visible()
    await expect(page.locator("#list-status")).to_have_text("No chats yet.")
