"""The page for everybody: what axe finds, in light and dark and in every state; motion, focus and titles."""

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from chat_page import AI, LONG, MARK, NOTE, PAGE_TESTS, is_done, longer_than, opened, say
from openai_server import Answer, OpenAIServer
from playwright.async_api import Browser, BrowserContext, Page, expect
from running_server import Server, eventually, serving

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS

SERIOUS = ("serious", "critical")
MARKDOWN = Path(__file__).parent / "answer.md"


async def found_by_axe(page: Page) -> list[str]:
    results = await Axe().run(page)
    violations = results.response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}"
        for each in violations
        if each["impact"] in SERIOUS
    ]


async def sent(page: Page) -> None:
    """The page has the server's answer to a message: it has gone to its end, and hears Enter again."""
    await expect(page.locator("#message")).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(tmp_path: Path, tabs: BrowserContext, scheme: str) -> None:
    with OpenAIServer() as model:
        model.answer(Answer(MARKDOWN.read_text(encoding="utf-8")))
        async with serving(tmp_path, openai_base_url=model.url, openai_model="tiny") as server:
            page = await tabs.new_page()
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            await page.goto(server.url)
            await expect(page.locator("#list-status")).to_have_text("No chats yet.")
            found = {"empty": await found_by_axe(page)}
            await say(page, "everything")
            await is_done(page)
            await expect(page.locator(".thread")).to_have_count(1)
            await page.hover(".turn.ai")
            found["answer"] = await found_by_axe(page)
            await page.click("[aria-label='Show source']")
            found["source"] = await found_by_axe(page)
            await page.click("[aria-label='Show source']")
            await page.locator(".thread a").focus()
            await page.keyboard.press("F2")
            found["renaming"] = await found_by_axe(page)
            await page.keyboard.press("Escape")
            await page.keyboard.press("Delete")
            await expect(page.locator("dialog")).to_be_visible()
            found["dialog"] = await found_by_axe(page)
            await page.keyboard.press("Escape")
            await page.set_viewport_size({"width": 360, "height": 720})
            await page.click("#menu")
            found["drawer"] = await found_by_axe(page)
            assert found == {state: [] for state in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious_when_things_go_wrong(
    server: Server, tabs: BrowserContext, scheme: str
) -> None:
    page = await tabs.new_page()
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    await page.goto(server.url)
    await expect(page.locator("#hints")).to_be_visible()
    found = {"hints": await found_by_axe(page)}
    await say(page, "/pace 0 /tool /error hello")
    await expect(page.locator(".mark.failed")).to_be_visible()
    await page.click(".tool summary")
    found["failed"] = await found_by_axe(page)
    await sent(page)
    await say(page, LONG)
    await sent(page)
    await expect(page.locator(AI)).to_have_count(2)
    await longer_than(page, 20)
    await say(page, "too early")
    await expect(page.locator(NOTE)).to_be_visible()
    found["busy"] = await found_by_axe(page)
    await page.click("#send")
    await expect(page.locator(MARK)).to_have_count(2)
    await tabs.set_offline(True)
    await expect(page.locator("#connection")).to_have_text("offline")
    found["offline"] = await found_by_axe(page)
    await tabs.set_offline(False)
    await page.route("**/v1/thread*", lambda route: route.abort())
    await page.reload()
    await expect(page.locator("#trouble")).to_contain_text("could not be loaded")
    found["away"] = await found_by_axe(page)
    assert found == {state: [] for state in found}


async def test_nothing_moves_for_those_who_want_no_motion(server: Server, tabs: BrowserContext) -> None:
    page = await tabs.new_page()
    await page.emulate_media(reduced_motion="reduce")
    await page.goto(server.url)
    await say(page, "/slow 600 hello")
    await expect(page.locator("[aria-busy]")).to_be_visible()
    await expect(page.locator(".dot:visible")).to_have_count(1)
    assert await page.evaluate("() => document.getAnimations().length") == 0
    await page.emulate_media(reduced_motion="no-preference")
    assert await page.evaluate("() => document.getAnimations().length") > 0
    await page.click("#send")
    await expect(page.locator(MARK)).to_be_visible()


async def test_an_answer_is_read_out_only_when_it_is_complete(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await say(page, LONG)
    await longer_than(page, 20)
    await expect(page.locator("[role=log] [aria-busy=true]")).to_have_count(1)
    await page.click("#send")
    await expect(page.locator("[aria-busy]")).to_have_count(0)
    assert await page.get_attribute("[role=log]", "aria-live") == "polite"


async def test_who_reads_further_up_is_not_pulled_down(server: Server, tabs: BrowserContext) -> None:
    page = await opened(tabs, server.url)
    await page.set_viewport_size({"width": 700, "height": 500})
    await say(page, "/pace 0 /long 3000")
    await is_done(page)
    await say(page, LONG)
    await sent(page)
    await expect(page.locator(AI)).to_have_count(2)
    await longer_than(page, 20)
    scroller = page.locator("#scroll")
    await eventually(lambda: scroller.evaluate("(main) => main.scrollTop > 1000"), "all that was said is drawn")
    await scroller.evaluate("(main) => { main.scrollTop = 200; }")
    await expect(page.locator("#to-end")).to_be_visible()
    await longer_than(page, 400)
    assert await scroller.evaluate("(main) => main.scrollTop") == 200
    await page.click("#to-end")
    await expect(page.locator("#to-end")).to_be_hidden()
    await longer_than(page, 800)
    below = "(main) => main.scrollHeight - main.scrollTop - main.clientHeight"
    assert await scroller.evaluate(below) < 80
    await page.click("#send")


async def test_the_policy_lets_nothing_run_that_is_not_a_file_of_the_page(server: Server, browser: Browser) -> None:
    answer = await server.http.get("/")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "style=" not in answer.text
    async with await browser.new_context() as context:
        page = await opened(context, server.url)
        assert not await page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "window.hasRun = true";
            document.body.append(script);
            return Boolean(window.hasRun);
        }""")
