"""static/playhead.js with many tabs: one connection for all of them, whoever goes, freezes or comes back."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from chat_page import PAGE_TESTS
from following import SHOW, Door, Speaker, Tab, freeze, kept_port, opened_door, speaking
from playwright.async_api import BrowserContext
from running_server import ServerProcess, eventually

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS


@pytest_asyncio.fixture(loop_scope="session")
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened_door(tmp_path, shutdown_grace_s=0) as door:
        yield door


@pytest.fixture
def context(tabs: BrowserContext) -> BrowserContext:
    return tabs


async def test_seven_tabs_share_one_connection(door: Door, context: BrowserContext) -> None:
    tabs = [await Tab.open(context, door.url) for _ in range(7)]
    for number, tab in enumerate(tabs):
        await tab.watch("w", "thread", f"t{number}")
    await door.follows(7)
    streams = [await door.speaker(f"t{number}") for number in range(7)]
    for stream in streams:
        stream.say("hello ", "there")
    for tab, stream in zip(tabs, streams, strict=True):
        await tab.until_offset("w", stream.stream_id, 2)
    await asyncio.gather(*(stream.end() for stream in streams))
    for tab, stream in zip(tabs, streams, strict=True):
        await tab.until_calls("w", "close", 1)
        await tab.check("w", stream, closed="completed")
        assert await tab.state("w") == "live"
    await eventually(lambda: door.doorman.open_now == 1, "one connection")


async def three_tabs(door: Door, context: BrowserContext) -> list[Tab]:
    """The first one leads."""
    tabs = []
    for number in range(3):
        tabs.append(await Tab.open(context, door.url))
        await tabs[-1].watch("idle", "thread", "nothing")
        await door.follows(number + 1)
    return tabs


@pytest.mark.parametrize("how", ["closed", "reloaded", "frozen", "cached"])
async def test_when_the_leader_goes_nobody_loses_or_repeats_anything(
    how: str, door: Door, context: BrowserContext
) -> None:
    tabs = await three_tabs(door, context)
    one, two = await door.speaker(), await door.speaker("t")
    async with speaking(one, two):
        for tab in tabs:
            await tab.watch("one", "stream", one.stream_id)
            await tab.watch("two", "thread", "t")
        for tab in tabs:
            await tab.until_offset("one", one.stream_id, 50)
        if how == "closed":
            await tabs.pop(0).page.close()
        elif how == "reloaded":
            await tabs.pop(0).page.reload()
        elif how == "frozen":
            await freeze(tabs[0].page, "frozen")
        else:
            await tabs[0].page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        for tab in tabs[-2:]:
            had = await tab.last_offset("one", one.stream_id)
            await tab.until_offset("one", one.stream_id, had + 50)
            await tab.until_offset("two", two.stream_id, had + 50)
        if how == "frozen":
            await freeze(tabs[0].page, "active")
        if how == "cached":
            await tabs[0].page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        await door.follows(3 * len(tabs))
    for tab in tabs:
        await tab.until_state("one", "closed")
        await tab.until_calls("two", "close", 1)
        await tab.check("one", one, closed="completed")
        await tab.check("two", two, closed="completed")
    await eventually(lambda: door.doorman.open_now == 1, "one connection")


async def test_a_tab_that_is_gone_is_not_followed_for(door: Door, context: BrowserContext) -> None:
    tabs = await three_tabs(door, context)
    await tabs[2].page.close()
    await door.follows(2)
    await tabs[1].unwatch("idle")
    await door.follows(1)
    await tabs[0].page.close()
    await eventually(lambda: door.doorman.open_now == 0, "nobody follows")


async def test_two_tabs_at_different_cursors(door: Door, context: BrowserContext) -> None:
    stream = await door.speaker()
    stream.say(*(f"{number} " for number in range(20)))
    one, two = [await Tab.open(context, door.url) for _ in range(2)]
    await one.watch("all", "stream", stream.stream_id)
    await one.until_offset("all", stream.stream_id, 20)
    cursor = await one.page.evaluate("record.watches.all.cursor")
    stream.say("21 ", "22 ")
    await one.until_offset("all", stream.stream_id, 22)
    await two.watch("rest", "stream", stream.stream_id, after=cursor)
    await two.until_offset("rest", stream.stream_id, 22)
    stream.say("23 ")
    await stream.end()
    await one.until_state("all", "closed")
    await two.until_state("rest", "closed")
    await one.check("all", stream, closed="completed")
    await two.check("rest", stream, after=20, closed="completed")


async def test_tabs_that_share_under_another_name_do_not_share(door: Door, context: BrowserContext) -> None:
    for user in ("ann", "ben"):
        tab = await Tab.open(context, door.url, share=user)
        await tab.watch("w", "thread", "t")
        await tab.until_state("w", "live")
    assert door.doorman.open_now == 2


async def test_without_locks_a_tab_has_its_own_connection_and_lets_go_while_hidden(
    door: Door, context: BrowserContext
) -> None:
    await context.add_init_script("delete Navigator.prototype.locks")
    tabs = [await Tab.open(context, door.url) for _ in range(2)]
    stream = await door.speaker()
    async with speaking(stream):
        for tab in tabs:
            await tab.watch("w", "stream", stream.stream_id)
            await tab.until_offset("w", stream.stream_id, 20)
        assert door.doorman.open_now == 2
        await tabs[0].page.evaluate(SHOW, False)
        await eventually(lambda: door.doorman.open_now == 1)
        assert await tabs[0].state("w") == "reconnecting"
        await tabs[0].page.evaluate(SHOW, True)
        await tabs[0].until_state("w", "live")
    for tab in tabs:
        await tab.until_state("w", "closed")
        await tab.check("w", stream, closed="completed")


async def test_a_server_killed_and_started_again(tmp_path: Path, context: BrowserContext) -> None:
    with kept_port() as port, ServerProcess(tmp_path, port=port) as first:
        tabs = [await Tab.open(context, first.url) for _ in range(2)]
        started = await tabs[0].page.evaluate(
            """async () => {
                const headers = { "content-type": "application/json" };
                const body = JSON.stringify({ message: "/pace 5 /long 10000" });
                return (await fetch("/v1/chat/message", { method: "POST", headers, body })).json();
            }"""
        )
        for tab in tabs:
            await tab.watch("w", "thread", started["thread_id"])
            await tab.until_offset("w", started["stream_id"], 20)
        first.kill()
        for tab in tabs:
            await tab.until_state("w", "reconnecting")
        with ServerProcess(tmp_path, port=port):
            for tab in tabs:
                (close,) = await tab.until_calls("w", "close", 1)
                calls = [call[2:4] for call in await tab.calls("w") if call[0] == "event"]
                assert [first for first, _ in calls] == [1, *(last + 1 for _, last in calls[:-1])]
                assert close[2:] == [calls[-1][1] + 1, "interrupted"]


@pytest.mark.parametrize("seed", range(2))
async def test_random_churn_loses_and_repeats_nothing(seed: int, door: Door, context: BrowserContext) -> None:
    """Tabs come and go, watches begin and end, cursors are kept; every watch that lived has an unbroken run."""
    chance = random.Random(seed)
    streams = [await door.speaker(f"t{number}" if number % 2 else None) for number in range(4)]
    tabs: list[Tab] = []
    watches: list[tuple[Tab, str, Speaker]] = []
    names: Iterator[int] = iter(range(1_000))
    async with speaking(*streams, pause_s=0.01):
        for _ in range(60):
            act = chance.choice(["open", "watch", "watch", "watch", "unwatch", "close", "wait"])
            if not tabs or (act == "open" and len(tabs) < 7):
                tabs.append(await Tab.open(context, door.url))
            elif act == "watch":
                tab, stream, name = chance.choice(tabs), chance.choice(streams), f"w{next(names)}"
                index = streams.index(stream)
                given = ("thread", f"t{index}") if index % 2 else ("stream", stream.stream_id)
                await tab.watch(name, *given)
                watches.append((tab, name, stream))
            elif act == "unwatch" and watches:
                tab, name, stream = watches.pop(chance.randrange(len(watches)))
                await tab.unwatch(name)
                calls = [call[2:4] for call in await tab.calls(name) if call[0] == "event"]
                assert [first for first, _ in calls] == [1, *(last + 1 for _, last in calls[:-1])][: len(calls)]
            elif act == "close" and len(tabs) > 2:
                gone = tabs.pop(chance.choice([0, -1]))
                watches = [watch for watch in watches if watch[0] is not gone]
                await gone.page.close()
            else:
                await asyncio.sleep(0.05)
        await eventually(lambda: door.doorman.open_now <= 1)
    assert watches
    for tab, name, stream in watches:
        await tab.until_calls(name, "close", 1)
        await tab.check(name, stream, closed="completed")
