"""The page's list of threads, its addresses, and the drawer that the list is on a phone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from urllib.parse import quote
from uuid import uuid4

from chat_page import (
    AI,
    HUMAN,
    LONG,
    NOTE,
    PAGE_TESTS,
    is_done,
    longer_than,
    opened,
    said_by,
    say,
    source_of,
    thread_of,
)
from playwright.async_api import BrowserContext, Page, Route, expect
from running_server import Server, eventually

from playhead.conversations import Settled
from playhead.model import Outcome, OutcomeKind

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS

THREAD, TITLE = ".thread", ".thread .title"
PHONE = {"width": 360, "height": 720}


async def talk(server: Server, *messages: str) -> list[str]:
    """Threads with one finished answer each; their ids."""
    ids = []
    for message in messages:
        answer = await server.http.post("/chat/message", json={"message": f"/pace 0 {message}"})
        ids.append(answer.json()["thread_id"])
        await server.playhead.wait(answer.json()["stream_id"], principal="local")
    return ids


async def test_threads_are_listed_newest_activity_first_and_opened(server: Server, tabs: BrowserContext) -> None:
    first, second = await talk(server, "apples", "pears")
    page = await opened(tabs, f"{server.url}/?conversationId={first}")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 pears", "/pace 0 apples"])
    await expect(page.locator("[aria-current=page]")).to_contain_text("apples")
    await page.click(f"{THREAD}:first-child a")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 pears")
    await expect(page.locator("[aria-current=page]")).to_contain_text("pears")
    assert thread_of(page) == second
    await expect(page).to_have_title("/pace 0 pears · Playhead")
    await page.click(f"{THREAD}:last-child a")
    await say(page, "/pace 0 more")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 apples", "/pace 0 pears"])
    await page.go_back()
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 pears")
    await page.go_forward()
    await expect(page.locator(HUMAN)).to_have_text(["/pace 0 apples", "/pace 0 more"])


async def test_a_new_chat_is_empty_and_the_way_back_works(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 first thread")
    await is_done(page)
    await page.keyboard.press("Control+k")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator("#hints")).to_be_visible()
    await expect(page.locator("#message")).to_be_focused()
    await page.click("text=/tool")
    await expect(page.locator("#message")).to_have_value("/tool")
    await page.go_back()
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 first thread")


async def test_a_live_thread_has_a_dot_and_its_answer_goes_on_when_it_is_left(
    server: Server, tabs: BrowserContext
) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 20)
    await expect(page.locator(".dot:visible")).to_have_count(1)
    await page.click("#new")
    await expect(page.locator(AI)).to_have_count(0)
    await expect(page.locator("#send")).to_have_text("Send")
    await page.reload()
    await expect(page.locator(".dot:visible")).to_have_count(1)
    await page.click(f"{THREAD} a")
    await longer_than(page, 60)
    await page.click("#send")
    await expect(page.locator(".dot:visible")).to_have_count(0)


async def test_renaming(server: Server, tabs: BrowserContext) -> None:
    [thread_id] = await talk(server, "apples")
    page = await opened(tabs, f"{server.url}/?conversationId={thread_id}")
    await page.hover(THREAD)
    await page.click("[aria-label='Rename /pace 0 apples']")
    await page.keyboard.type("never mind")
    await page.keyboard.press("Escape")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 apples"])
    await expect(page.locator(f"{THREAD} a")).to_be_focused()
    await page.keyboard.press("F2")
    await page.keyboard.type("  <b>Fruit</b> 🍎 ")
    await page.keyboard.press("Enter")
    await expect(page.locator(TITLE)).to_have_text(["<b>Fruit</b> 🍎"])
    await expect(page).to_have_title("<b>Fruit</b> 🍎 · Playhead")
    await expect(page.locator(f"{THREAD} a")).to_be_focused()
    await eventually(lambda: named(server, thread_id, "<b>Fruit</b> 🍎"))
    await page.route("**/v1/threads/*", lambda route: route.abort())
    await page.keyboard.press("F2")
    await page.keyboard.type("not stored")
    await page.keyboard.press("Enter")
    await expect(page.locator(NOTE)).to_contain_text("The name was not changed.")
    await expect(page.locator(TITLE)).to_have_text(["<b>Fruit</b> 🍎"])


async def named(server: Server, thread_id: str, name: str) -> bool:
    return bool((await server.http.get(f"/v1/threads/{thread_id}")).json()["chat_name"] == name)


async def test_deleting_asks_first_and_moves_on(server: Server, tabs: BrowserContext) -> None:
    first, second = await talk(server, "apples", "pears")
    page = await opened(tabs, f"{server.url}/?conversationId={first}")
    await page.locator(f"{THREAD} a").last.focus()
    await page.keyboard.press("Delete")
    await expect(page.locator("dialog")).to_contain_text("“/pace 0 apples” will be gone")
    await expect(page.locator("text=Keep it")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator(THREAD)).to_have_count(2)
    await expect(page.locator(f"{THREAD} a").last).to_be_focused()
    await page.keyboard.press("Delete")
    await page.click("dialog >> text=Delete >> nth=-1")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 pears"])
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator("#empty")).to_be_visible()
    assert thread_of(page) != first
    assert await said_by(server, first) == []
    assert [thread["id"] for thread in (await server.http.get("/v1/threads")).json()] == [second]


async def test_a_thread_that_was_deleted_elsewhere_says_so_and_keeps_the_text(
    server: Server, tabs: BrowserContext
) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 hello")
    await is_done(page)
    other = await opened(tabs, page.url)
    await expect(other.locator(AI)).to_have_count(1)
    await page.fill("#message", "half a thought")
    await other.locator(f"{THREAD} a").focus()
    await other.keyboard.press("Delete")
    await other.click("dialog >> text=Delete >> nth=-1")
    await expect(page.locator("#trouble")).to_contain_text("This chat was deleted.")
    await expect(page.locator(".turn")).to_have_count(0)
    await expect(page.locator("#message")).to_have_value("half a thought")
    await page.click("#trouble >> text=New chat")
    await expect(page.locator("#empty")).to_be_visible()
    await expect(page.locator("#message")).to_have_value("half a thought")


async def test_a_link_to_a_deleted_thread_keeps_what_is_said_there(server: Server, tabs: BrowserContext) -> None:
    [thread_id] = await talk(server, "apples")
    await server.http.delete(f"/v1/threads/{thread_id}")
    page = await opened(tabs, f"{server.url}/?conversationId={thread_id}")
    await say(page, "/pace 0 is anybody there")
    await expect(page.locator("#trouble")).to_contain_text("This chat was deleted.")
    await expect(page.locator("#message")).to_have_value("/pace 0 is anybody there")
    await page.click("#trouble >> text=New chat")
    await page.press("#message", "Enter")
    await is_done(page)
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 is anybody there")


async def test_a_link_follows_what_another_client_records_there(server: Server, tabs: BrowserContext) -> None:
    go_on = asyncio.Event()

    async def others() -> AsyncIterator[str]:
        yield "said **before**"
        await go_on.wait()
        yield " and after"

    thread_id = "their own / id?&#"
    page = await opened(tabs, f"{server.url}/?thread_id={quote(thread_id)}")
    await expect(page.locator("#empty")).to_be_visible()
    await server.playhead.start(others(), thread_id=thread_id, owner="local")
    await expect(page.locator(AI)).to_contain_text("said before")
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator(HUMAN)).to_have_count(0)
    await page.reload()
    await expect(page.locator(AI)).to_contain_text("said before")
    go_on.set()
    await is_done(page)
    assert await source_of(page) == "said **before** and after"
    await page.reload()
    await expect(page.locator(AI)).to_contain_text("and after")


async def test_an_unknown_thread_is_an_empty_chat_with_that_id(server: Server, tabs: BrowserContext) -> None:
    thread_id = str(uuid4())
    page = await opened(tabs, f"{server.url}/?thread_id={thread_id.upper()}")
    await expect(page.locator("#empty")).to_be_visible()
    await say(page, "/pace 0 first words")
    await is_done(page)
    assert thread_of(page) == thread_id
    assert [turn["type"] for turn in await said_by(server, thread_id)] == ["human", "ai"]


async def test_searching_asks_the_server_and_tells_when_nothing_is_found(server: Server, tabs: BrowserContext) -> None:
    await talk(server, "apples", "pears", "100% plums")
    page = await opened(tabs, server.url)
    await expect(page.locator(THREAD)).to_have_count(3)
    await page.locator("#scroll").focus()
    await page.keyboard.press("/")
    await expect(page.locator("#search")).to_be_focused()
    await page.keyboard.type("PEAR")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 pears"])
    await page.fill("#search", "0% p")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 100% plums"])
    await page.fill("#search", "cherries")
    await expect(page.locator("#list-status")).to_have_text("Nothing found.")
    await page.press("#search", "Escape")
    await expect(page.locator(THREAD)).to_have_count(3)
    await expect(page.locator("#list-status")).to_be_hidden()


async def test_the_list_is_walked_with_the_keyboard(server: Server, tabs: BrowserContext) -> None:
    await talk(server, "apples", "pears", "plums")
    page = await opened(tabs, server.url)
    await expect(page.locator(THREAD)).to_have_count(3)
    await page.focus("#search")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(f"{THREAD} a").nth(0)).to_be_focused()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("End")
    await expect(page.locator(f"{THREAD} a").nth(2)).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(page.locator(f"{THREAD} a").nth(1)).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 pears")
    await page.locator(f"{THREAD} a").nth(1).focus()
    await page.keyboard.press("Tab")
    await expect(page.locator(f"{THREAD}:nth-child(2) .rename")).to_be_focused()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await expect(page.locator(".about a")).to_be_focused()  # one stop for the whole list


async def test_200_threads_are_loaded_as_they_are_scrolled_to(server: Server, tabs: BrowserContext) -> None:
    for number in range(200):
        facts = {
            "thread_id": str(uuid4()),
            "stream_id": f"s{number}",
            "owner": "local",
            "outcome": Outcome(OutcomeKind.COMPLETED),
        }
        times = {"created_at": time.time() - number, "closed_at": time.time() - number}
        await server.chat.threads.settle(Settled(**facts, **times, user=("m", f"thread {number}")))
    page = await opened(tabs, server.url)
    await expect(page.locator(THREAD)).to_have_count(50)
    await eventually(lambda: scrolled(page, 200))
    titles = await page.locator(TITLE).all_inner_texts()
    assert len(set(titles)) == 200
    await page.evaluate("() => dispatchEvent(new Event('focus'))")
    await expect(page.locator(THREAD)).to_have_count(200)


async def scrolled(page: Page, count: int) -> bool:
    await page.locator(f"{THREAD}").last.scroll_into_view_if_needed()
    return await page.locator(THREAD).count() == count


async def test_a_list_that_cannot_be_loaded_says_so(server: Server, tabs: BrowserContext) -> None:
    await talk(server, "apples")
    page = await tabs.new_page()
    refused = 0

    async def refuse(route: Route) -> None:
        nonlocal refused
        refused += 1
        await route.fulfill(status=503, json={"detail": "<b>the disk is full"})

    await page.route("**/v1/threads?*", refuse)
    await page.goto(server.url)
    await eventually(lambda: refused >= 2)  # at first, and when the connection was there
    await expect(page.locator("#list-status")).to_contain_text("could not be loaded. <b>the disk is full.")
    await page.unroute("**/v1/threads?*")
    await page.click("#list-status >> text=Try again")
    await expect(page.locator(TITLE)).to_have_text(["/pace 0 apples"])
    await expect(page.locator("#list-status")).to_be_hidden()


async def test_on_a_phone_the_list_is_a_drawer(server: Server, tabs: BrowserContext) -> None:
    await talk(server, "apples", "pears")
    page = await tabs.new_page()
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await page.goto(server.url)
    await expect(page.locator("#side")).to_be_hidden()
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    await page.click("#menu")
    await expect(page.locator("#side")).to_be_visible()
    assert await page.evaluate("() => document.querySelector('#side').contains(document.activeElement)")
    await expect(page.locator("#menu")).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("Escape")
    await expect(page.locator("#side")).to_be_hidden()
    await expect(page.locator("#menu")).to_be_focused()
    await page.click("#menu")
    await page.click(f"{THREAD}:last-child a")
    await expect(page.locator("#side")).to_be_hidden()
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 apples")
    await page.click("#menu")
    await page.mouse.click(PHONE["width"] - 10, 300)
    await expect(page.locator("#side")).to_be_hidden()
    await say(page, "/pace 0 " + "wide" * 200)
    await is_done(page)
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


SMALL = """() => [...document.querySelectorAll("button, a, input, textarea, summary")].filter((each) => {
    const { width, height } = each.getBoundingClientRect();
    const shown = each.checkVisibility({ visibilityProperty: true }) && width && !each.closest("[inert], .text p");
    return shown && (height < 44 || width < 44);
}).map((each) => each.outerHTML)"""


async def test_on_a_phone_everything_is_large_enough_to_touch(server: Server, tabs: BrowserContext) -> None:
    page = await tabs.new_page()
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await page.goto(server.url)
    await expect(page.locator("#hints")).to_be_visible()
    assert await page.evaluate(SMALL) == []
    await say(page, "/pace 0 /tool /error")
    await expect(page.locator(".mark.failed")).to_be_visible()
    await page.hover(".turn.ai")
    assert await page.evaluate(SMALL) == []
    await page.click("#menu")
    await page.hover(THREAD)
    assert await page.evaluate(SMALL) == []


async def test_what_the_server_lists_wrongly_breaks_nothing(server: Server, tabs: BrowserContext) -> None:
    """A list with long, odd and empty names; the row keeps to its width."""
    names = ["x" * 500, "שלום " * 30, "", "\u202eabc", "🛹" * 80]
    now = "2026-01-05T12:00:00Z"
    listed = [
        {"id": f"<{name}", "chat_name": "New Chat", "preview": name, "last_activity_time": now, "live": False}
        for name in names
    ]

    async def odd(route: Route) -> None:
        await route.fulfill(body=json.dumps(listed), content_type="application/json")

    page = await tabs.new_page()
    await page.route("**/v1/threads?*", odd)
    await page.goto(server.url)
    await expect(page.locator(THREAD)).to_have_count(len(names))
    assert await page.locator(TITLE).nth(2).text_content() == "New chat"
    side = await page.locator("#listing").evaluate("(list) => list.scrollWidth - list.clientWidth")
    assert side <= 0
