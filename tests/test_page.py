"""The chat page in a real Chromium: saying, answering, stopping, trying again; nothing typed is lost, nothing runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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
    said_by,
    say,
    source_of,
    streamed,
    thread_of,
)
from openai_server import Answer, OpenAIServer, ToolCall
from playwright.async_api import BrowserContext, Page, Route, expect
from running_server import Server, eventually, serving

from playhead import event

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS


async def test_a_message_streams_an_answer(tmp_path: Path, tabs: BrowserContext) -> None:
    with OpenAIServer() as model:
        model.answer(Answer("Hello ", "there, ", "you", hold_after_chunks=2))
        async with serving(tmp_path, openai_base_url=model.url, openai_model="tiny") as server:
            page = await opened(tabs, server.url)
            await expect(page.locator("#empty")).to_be_visible()
            await expect(page.locator("#connection")).to_have_text("ready")
            await say(page, "hello there")
            await expect(page.locator(HUMAN)).to_have_text("hello there")
            await expect(page.locator("#send")).to_have_text("Stop")
            await expect(page.locator("#connection")).to_have_text("live")
            await expect(page.locator("#message")).to_have_value("")
            await expect(page).to_have_title("● hello there · Playhead")
            await longer_than(page, 10)
            model.release()
            await is_done(page)
            await expect(page.locator("#connection")).to_have_text("ready")
            await expect(page).to_have_title("hello there · Playhead")
            assert await source_of(page) == await streamed(server) == "Hello there, you"
            await expect(page.locator("#empty")).to_be_hidden()


async def test_a_failed_answer_says_why_and_can_be_tried_again(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 /error hello")
    await expect(page.locator(".mark.failed")).to_contain_text("Failed: DemoModelError")
    await page.reload()
    await expect(page.locator(".mark.failed")).to_contain_text("Failed: DemoModelError")
    await page.fill("#message", "a draft")
    await page.click("text=Try again")
    await expect(page.locator(HUMAN)).to_have_text(["/pace 0 /error hello"] * 2)
    await expect(page.locator(".mark.failed")).to_have_count(2)
    await expect(page.locator("#message")).to_have_value("a draft")


async def test_a_stopped_answer_can_be_tried_again(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 50)
    await page.click("#send")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await page.click("text=Try again")
    await expect(page.locator(HUMAN)).to_have_text([LONG] * 2)
    await longer_than(page, 50)
    await page.click("#send")
    await expect(page.locator(MARK)).to_have_count(2)


async def test_stopped_before_the_first_word_is_shown_after_a_reload_too(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/slow 600 hello")
    await page.click("#send:has-text('Stop')")
    await expect(page.locator(MARK)).to_contain_text("Stopped before the first word.")
    await page.reload()
    await expect(page.locator(MARK)).to_contain_text("Stopped before the first word.")


async def test_tool_calls_are_folded_and_still_there_after_a_reload(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 /tool")
    for _ in range(2):
        await is_done(page)
        await expect(page.locator(".tool .name")).to_have_text("clock")
        await expect(page.locator(".tool .state")).to_have_text("done")
        await expect(page.locator(".tool dl")).to_be_hidden()
        await page.click(".tool summary")
        await expect(page.locator(".tool dd").first).to_have_text('{\n  "timezone": "UTC"\n}')
        await expect(page.locator(".tool dd").last).to_contain_text("+00:00")
        assert await source_of(page) == await streamed(server)
        assert await page.eval_on_selector_all(".parts > *", "(all) => all.map((part) => part.className)") == [
            "text",
            "tool",
            "text",
        ]
        await page.reload()


async def test_a_tool_that_runs_when_the_page_is_opened_is_shown_as_running(
    server: Server, tabs: BrowserContext
) -> None:
    async def calls(ended: asyncio.Event) -> AsyncIterator[Any]:
        yield event("tool_call", {"name": "<b>odd</b>", "id": "c1"})
        await ended.wait()

    ended = asyncio.Event()
    await server.playhead.start(calls(ended), thread_id="7", owner="local")
    page = await opened(tabs, server.url + "/?thread_id=7")
    await expect(page.locator(".tool .name")).to_have_text("<b>odd</b>")
    await expect(page.locator(".tool .state")).to_have_text("running…")
    ended.set()
    await expect(page.locator(".tool .state")).to_have_text("no result")


EVIL = "<img src=x onerror=ran()><script>ran()</script>&amp;[x](javascript:ran())"


async def test_nothing_that_is_said_becomes_markup(server: Server, tabs: BrowserContext) -> None:
    await tabs.add_init_script("window.ran = () => { window.hasRun = true; };")
    page = await opened(tabs, server.url)
    await say(page, f"/pace 0 {EVIL}")
    for _ in range(2):
        await is_done(page)
        await expect(page.locator(HUMAN)).to_have_text(f"/pace 0 {EVIL}")
        await expect(page.locator("#title")).to_have_text(f"/pace 0 {EVIL}")
        await expect(page.locator(".thread .title")).to_have_text(f"/pace 0 {EVIL}")
        assert "<img src=x" in await source_of(page)
        assert await page.locator("#talk img, #talk script, #threads img, #threads script").count() == 0
        assert not await page.evaluate("() => window.hasRun")
        await page.reload()


async def test_nothing_in_tools_errors_titles_or_thread_ids_runs(
    tmp_path_factory: pytest.TempPathFactory, tabs: BrowserContext
) -> None:
    await tabs.add_init_script("window.ran = () => { window.hasRun = true; };")

    async def evil() -> AsyncIterator[Any]:
        yield event("tool_call", {"name": EVIL, "id": EVIL})
        yield event("tool_result", {"name": EVIL, "id": EVIL, "args": {EVIL: EVIL}, "content": EVIL})
        yield EVIL
        raise RuntimeError(EVIL)

    async with serving(tmp_path_factory.mktemp("evil")) as server:
        await server.playhead.start(evil(), thread_id=EVIL, owner="local")
        page = await tabs.new_page()
        for path in ("/", "/", f"/?conversationId={'%22%3E%3Cscript%3Eran()%3C/script%3E'}"):
            await page.goto(server.url + path)
            if path == "/":
                go = "(id) => { location.search = '?conversationId=' + encodeURIComponent(id); }"
                async with page.expect_navigation():  # the document that is left may show the same
                    await page.evaluate(go, EVIL)
                await expect(page.locator(".mark.failed")).to_contain_text(EVIL)
                await page.click(".tool summary")
                await expect(page.locator(".tool dd").last).to_have_text(EVIL)
                await server.http.patch("/v1/thread", params={"thread_id": EVIL}, json={"chat_name": EVIL})
                await page.click(f"#turns {MARK}")
            else:
                await expect(page.locator("#empty")).to_be_visible()
            assert await page.locator("#talk img, #talk script, #threads img, #threads script").count() == 0
            assert not await page.evaluate("() => window.hasRun")
            await expect(page.locator(".thread .title").first).to_be_visible()


async def test_the_keyboard_is_enough_and_enter_never_stops(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await expect(page.locator("#message")).to_be_focused()
    await page.keyboard.type(LONG)
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("second line")
    await page.keyboard.press("Enter")
    await expect(page.locator(HUMAN)).to_have_text(f"{LONG}\nsecond line")
    await longer_than(page, 20)
    await expect(page.locator("#message")).to_have_value("")  # until then Enter is not heard
    await page.keyboard.type("too early")
    await page.keyboard.press("Enter")
    await expect(page.locator(NOTE)).to_contain_text("text is kept")
    await expect(page.locator("#message")).to_have_value("too early")
    await page.keyboard.press("Tab")
    await expect(page.locator("#send")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await expect(page.locator("#message")).to_have_value("too early")
    await expect(page.locator(NOTE)).to_be_hidden()


async def test_stop_and_send_says_it_instead_of_the_running_answer(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 50)
    await expect(page.locator("#message")).to_have_value("")  # until then Enter is not heard
    await say(page, "/pace 0 rather this")
    await page.click(f"{NOTE} >> text=Stop and send")
    await expect(page.locator(HUMAN)).to_have_text([LONG, "/pace 0 rather this"])
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await is_done(page)
    await expect(page.locator(NOTE)).to_be_hidden()
    await expect(page.locator("#message")).to_have_value("")
    assert [turn["type"] for turn in await said_by(server, thread_of(page))] == ["human", "ai", "human", "ai"]
    assert await source_of(page) == await streamed(server)


async def test_what_is_typed_behind_a_message_that_is_being_sent_stays(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    sending, go_on = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        sending.set()
        await go_on.wait()
        await route.continue_()

    await page.route("**/chat/message", hold)
    await say(page, "/pace 0 one")
    await sending.wait()
    await page.keyboard.type(" and two")
    await page.keyboard.press("Enter")  # one after the other
    go_on.set()
    await expect(page.locator("#message")).to_have_value(" and two")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 one")
    await page.reload()
    await expect(page.locator("#message")).to_have_value(" and two")


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
    other = await server.http.post("/chat/message", json={"message": LONG, "thread_id": thread_of(page)})
    await page.evaluate("() => { document.querySelector('#message').value = 'me too'; }")
    await page.evaluate("() => document.querySelector('#say').requestSubmit()")
    await expect(page.locator(NOTE)).to_contain_text("nswer is being written")
    await expect(page.locator("#message")).to_have_value("me too")
    await expect(page.locator(HUMAN)).to_have_text(LONG)
    await longer_than(page, 20)
    await server.playhead.cancel(other.json()["stream_id"], principal="local")
    await expect(page.locator(MARK)).to_contain_text("Stopped")
    await expect(page.locator(NOTE)).to_be_hidden()
    await expect(page.locator("#message")).to_have_value("me too")


async def test_what_could_not_be_sent_is_kept_over_a_reload(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await page.route("**/chat/message", lambda route: route.abort())
    await say(page, "/pace 0 precious words")
    await expect(page.locator(NOTE)).to_contain_text("Your text is kept")
    await page.reload()
    await expect(page.locator("#message")).to_have_value("/pace 0 precious words")
    await page.unroute("**/chat/message")
    await page.press("#message", "Enter")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 precious words")
    await expect(page.locator("#message")).to_have_value("")  # the server has it
    await page.reload()
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 precious words")
    await expect(page.locator("#message")).to_have_value("")


@pytest.mark.parametrize("follows", [True, False])
async def test_a_message_whose_answer_was_lost_is_not_said_twice(
    server: Server, tabs: BrowserContext, follows: bool
) -> None:
    page = await opened(tabs, server.url)
    await expect(page.locator("#connection")).to_have_text("ready")

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/chat/message", lose)
    if not follows:
        await page.route("**/v1/follow", lambda route: route.abort())
        await page.reload()
    await say(page, "/pace 0 once")
    if not follows:
        await expect(page.locator(NOTE)).to_contain_text("cannot be reached")
        await page.unroute("**/chat/message")
        await page.click(f"{NOTE} >> text=Try again")
        await page.unroute("**/v1/follow")
    await expect(page.locator("#message")).to_have_value("")
    await expect(page.locator(HUMAN)).to_have_text("/pace 0 once")
    await is_done(page)
    await expect(page.locator(NOTE)).to_be_hidden()
    assert len((await server.http.get("/v1/streams")).json()["streams"]) == 1


async def test_drafts_are_kept_per_thread(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await page.fill("#message", "for the first")
    await page.click("#new")
    await expect(page.locator("#message")).to_have_value("")
    await page.fill("#message", "for the second")
    await page.go_back()
    await expect(page.locator("#message")).to_have_value("for the first")
    await page.go_forward()
    await expect(page.locator("#message")).to_have_value("for the second")


async def test_the_page_asks_nobody_but_its_server(server: Server, tabs: BrowserContext) -> None:
    asked: set[str] = set()
    tabs.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page = await opened(tabs, server.url)
    await say(page, "/pace 0 hello ![x](https://images.test/x.png)")
    await longer_than(page, 20)
    await page.goto(server.url + "/docs")
    assert asked == {f"127.0.0.1:{server.port}"}


EXACT = [
    "Emoji 🛹👩‍👩‍👧‍👦 e\u0301 naïve 日本語\r\n",
    "one\r\ntwo\rthree\n\n\n",
    "שלום עולם *מודגש* abc\n\n",
    "مرحبا\u00a0\u2028 ‎x\u0000y\t\n\n",
    "```python\r\nif a < b:\r\n\tprint('<script>')\r\n",
    "```\n\n| a | b |\n|---|---|\n| 1 | <b> |\n\n",
    "- one\n  - two\n\n> quote\n\n# End   ",
]


async def test_what_the_page_has_is_what_the_model_sent_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, tabs: BrowserContext
) -> None:
    with OpenAIServer() as model:
        model.answer(Answer(*EXACT, bytes_per_write=7, hold_after_chunks=4))
        directory = tmp_path_factory.mktemp("exact")
        async with serving(directory, openai_base_url=model.url, openai_model="tiny") as server:
            page = await opened(tabs, server.url)
            await say(page, "speak")
            await eventually(lambda: has(page, "".join(EXACT[:4])))
            await page.reload()
            await eventually(lambda: has(page, "".join(EXACT[:4])))
            model.release()
            await is_done(page)
            for _ in range(2):
                await expect(page.locator("figure code")).to_have_text("if a < b:\n\tprint('<script>')")
                assert json.dumps(await source_of(page)) == json.dumps("".join(EXACT))
                await telling(page, "#told")
                await page.click("[aria-label='Copy answer']")
                await page.wait_for_function(SAID_COPIED)
                assert await copied(page) == "".join(EXACT)
                await page.click("[aria-label='Show source']")
                assert await page.eval_on_selector(".raw", "(source) => source.textContent") == "".join(EXACT)
                await expect(page.locator(".text")).to_be_hidden()
                await page.click("[aria-label='Show source']")
                await expect(page.locator(".text")).to_be_visible()
                await page.reload()
                await is_done(page)
                await expect(page.locator(AI)).to_have_count(1)


async def has(page: Page, text: str) -> bool:
    return await source_of(page) == text


SAID_COPIED = "() => heard.includes('Copied')"


async def telling(page: Page, selector: str) -> None:
    """From now on write down what an element says: "Copied" stands there for a moment only."""
    script = """(selector) => {
        const it = document.querySelector(selector);
        window.heard = [];
        new MutationObserver(() => heard.push(it.textContent)).observe(it, { childList: true });
    }"""
    await page.evaluate(script, selector)


async def copied(page: Page) -> str:
    """What is on the clipboard (Chromium drops NUL only when it reads it back as plain text on some systems)."""
    text: str = await page.evaluate("() => navigator.clipboard.readText()")
    return text


async def test_messages_and_code_are_copied_exactly(
    tmp_path_factory: pytest.TempPathFactory, tabs: BrowserContext
) -> None:
    call = ToolCall("clock")
    with OpenAIServer() as model:
        model.answer(Answer("Look: ", tool_calls=(call,)), Answer("```js\n  a < b\n\n\tc\n```\n"))
        directory = tmp_path_factory.mktemp("copy")
        async with serving(directory, openai_base_url=model.url, openai_model="tiny") as server:
            page = await opened(tabs, server.url)
            await say(page, "  *raw* <b> 🛹 ")
            await is_done(page)
            await page.hover(HUMAN)
            await telling(page, "#told")
            await page.click("[aria-label='Copy message']")
            await page.wait_for_function(SAID_COPIED)
            assert await copied(page) == "  *raw* <b> 🛹 "
            await telling(page, ".copy-code")
            await page.click("text=Copy code")
            await page.wait_for_function(SAID_COPIED)
            assert await copied(page) == "  a < b\n\n\tc"
            await expect(page.locator(".copy-code")).to_have_text("Copy code")
            assert await source_of(page) == "Look: ```js\n  a < b\n\n\tc\n```\n"


async def test_an_answer_of_100_000_characters_streams_fluidly(
    tmp_path_factory: pytest.TempPathFactory, tabs: BrowserContext
) -> None:
    unit = "Some *words* in `Markdown`, a [link](https://x.y/), **more**.\n\n- one\n- two\n\n```py\nx = 1\n```\n\n"
    text = unit * (100_000 // len(unit)) + "word " * 4_000
    assert tabs.browser
    with OpenAIServer() as model:
        model.answer(Answer(*[text[at : at + 50] for at in range(0, len(text), 50)]))
        directory = tmp_path_factory.mktemp("long")
        async with serving(directory, openai_base_url=model.url, openai_model="tiny") as server:
            page = await opened(tabs, server.url)
            await expect(page.locator("#connection")).to_have_text("ready")
            await tabs.browser.start_tracing(
                page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"]
            )
            await say(page, "much")
            await longer_than(page, 1000)
            await is_done(page, 60_000)
            await page.wait_for_function("() => document.querySelector('.text').lastChild.textContent.length > 19_000")
            trace = json.loads(await tabs.browser.stop_tracing())
            assert await source_of(page) == text
            assert longest_task_ms(trace["traceEvents"]) < 300


def longest_task_ms(events: list[dict[str, Any]]) -> float:
    """Of all tasks on pages' main threads; in time of the processor, so that other programs do not count."""
    mains = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == "CrRendererMain"}
    tasks = [e for e in events if e["name"] == "RunTask" and (e["pid"], e["tid"]) in mains and "tdur" in e]
    assert len(tasks) > 100
    return max(float(e["tdur"]) for e in tasks) / 1000
