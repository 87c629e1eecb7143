"""static/playhead.js in a real Chromium, against the real server: cut, offline, mute, refused; 0 lost, 0 repeated."""

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from chat_page import PAGE_TESTS
from cutting_proxy import cutting_proxy
from following import Door, Tab, no_network, opened_door, speaking
from outages import outages_of_servers
from playwright.async_api import BrowserContext
from running_server import eventually

pytest_plugins = ["page_fixtures"]
pytestmark = PAGE_TESTS


@pytest_asyncio.fixture(loop_scope="session")
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened_door(tmp_path, shutdown_grace_s=0) as door:
        yield door


@pytest.fixture
def context(tabs: BrowserContext) -> BrowserContext:
    return tabs


async def test_a_stream_is_followed_to_its_close(door: Door, context: BrowserContext) -> None:
    stream = await door.speaker()
    stream.say("one ", "two ", "naïve 🎬 ", "\r\n", "\x00")
    tab = await Tab.open(context, door.url)
    await tab.watch("w", "stream", stream.stream_id)
    await tab.until_offset("w", stream.stream_id, 5)
    assert await tab.state("w") == "live"
    stream.say("three")
    await stream.end()
    await tab.until_state("w", "closed")
    await tab.check("w", stream, closed="completed")
    assert (await tab.states("w"))[-2:] == ["live", "closed"]
    assert [call[0] for call in await tab.calls("w")].count("open") == 1
    await eventually(lambda: door.doorman.open_now == 0, "nothing is left to follow")


# ---- the parts ------------------------------------------------------------------------------------------------


async def test_the_parser_reads_a_body_torn_at_any_byte(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    wrong = await tab.page.evaluate(
        r"""async () => {
            const { EventParser } = await import("/static/playhead/sse.js");
            const body = '\ufeffretry: 700\n: keep-alive\nid: 1\nevent: text\ndata: {"a":"é🎬"}\r\n\r\n'
                + "data:x\rdata: y\r\rdata\n\nid: 2\n\nevent: none\n\n: c\n\ndata:  z\n\n";
            const bytes = new TextEncoder().encode(body);
            const parsed = (pieces) => {
                const parser = new EventParser();
                const events = pieces.flatMap((piece) => parser.feed(piece));
                return JSON.stringify([events, parser.retryMs]);
            };
            const right = JSON.stringify([[
                { id: "1", type: "text", data: '{"a":"é🎬"}' }, { id: "1", type: "message", data: "x\ny" },
                { id: "1", type: "message", data: "" }, { id: "2", type: "message", data: " z" },
            ], 700]);
            const tries = [[bytes], [...bytes].map((byte) => Uint8Array.of(byte))];
            for (let at = 1; at < bytes.length; at++) tries.push([bytes.slice(0, at), bytes.slice(at)]);
            return tries.map(parsed).filter((each) => each !== right);
        }"""
    )
    assert wrong == []


async def test_the_table_of_states(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    table = await tab.page.evaluate(
        """async () => {
            const { STATES, nextState } = await import("/static/playhead.js");
            const signals = ["behind", "current", "lost", "offline", "online", "closed", "failed", "nonsense"];
            return Object.fromEntries(STATES.map((s) => [s, signals.map((signal) => nextState(s, signal)).join(" ")]));
        }"""
    )
    assert table == {
        "connecting": "catching-up live reconnecting offline connecting closed failed connecting",
        "catching-up": "catching-up live reconnecting offline catching-up closed failed catching-up",
        "live": "catching-up live reconnecting offline live closed failed live",
        "reconnecting": "catching-up live reconnecting offline reconnecting closed failed reconnecting",
        "offline": "catching-up live reconnecting offline reconnecting closed failed offline",
        "closed": " ".join(["closed"] * 8),
        "failed": " ".join(["failed"] * 8),
    }


async def test_waits_grow_and_are_spread(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    waits = await tab.page.evaluate(
        """async () => {
            const { waitMs } = await import("/static/playhead/connection.js");
            const ends = [0, 1, 2, 3, 4, 5, 6, 100].map((n) => [waitMs(n, 0, 0), waitMs(n, 0, 1)]);
            return { ends, least: [waitMs(0, 3000, 0), waitMs(0, 3000, 1)] };
        }"""
    )
    assert waits["ends"][:3] == [[500, 1000], [1000, 2000], [2000, 4000]]
    assert waits["ends"][-1] == [7500, 15_000]
    assert waits["least"] == [3000, 4500]


async def test_the_network_is_back_and_no_grown_wait_goes_on(door: Door, context: BrowserContext) -> None:
    """The attempt that is under way when the network comes back may have left too early, and fail."""
    tab = await Tab.open(context, door.url)
    waits = await tab.page.evaluate(
        """async () => {
            const { Connection } = await import("/static/playhead/connection.js");
            const waits = [];
            let fail, due;
            globalThis.setTimeout = (act, ms) => { waits.push(ms); due = act; };
            const connection = new Connection({
                fetch: () => new Promise((_, lost) => { fail = () => lost(new TypeError("lost")); }),
                stallAfterMs: Infinity,
                request: () => ({ url: "", init: {} }),
                signal: () => {},
            });
            const failed = async () => {
                const count = waits.length;
                fail();
                while (waits.length === count) await null;
            };
            connection.open();
            for (let attempt = 0; attempt < 4; attempt++) { await failed(); due(); }
            connection.online();
            await failed();
            return waits;
        }"""
    )
    assert 4000 <= waits[3] <= 8000
    assert waits[4] <= 1000


async def test_a_thread_is_live_when_the_server_has_told_what_there_is(door: Door, context: BrowserContext) -> None:
    """Before that it is not followed yet: what came and went would be missed, and nobody would know."""
    tab = await Tab.open(context, door.url)
    await tab.page.evaluate(
        r"""async () => {
            const { Playhead } = await import("/static/playhead.js");
            const asked = Promise.withResolvers();
            const fetch = async (url, { body }) => {
                const keys = JSON.parse(body).subscriptions.map(({ key }) => key);
                return new Response(new ReadableStream({ start: (to) => asked.resolve({ keys, to }) }));
            };
            const playhead = new Playhead({ share: false, fetch });
            globalThis.stream = playhead.stream("s");
            globalThis.thread = playhead.thread("t");
            const { keys: [ofStream, ofThread], to } = await asked.promise;
            const say = (frame) => to.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(frame)}\n\n`));
            say({ key: ofStream, stream_id: "s", type: "playhead.open", offset: 0, tail: 0, stream: null });
            globalThis.tell = () => say({ key: ofThread, thread_id: "t", type: "playhead.thread", latest: null });
        }"""
    )
    await eventually(lambda: tab.page.evaluate("() => stream.state === 'live'"))
    assert await tab.page.evaluate("() => thread.state") == "connecting"
    await tab.page.evaluate("() => tell()")
    await eventually(lambda: tab.page.evaluate("() => thread.state === 'live'"))


async def test_a_thread_of_a_server_that_lists_nothing_is_live_when_that_is_known(
    door: Door, context: BrowserContext
) -> None:
    tab = await Tab.open(context, door.url)
    await tab.page.evaluate(
        """async () => {
            const { Playhead } = await import("/static/playhead.js");
            const fetch = async () => new Response("{}", { status: 404 });
            globalThis.made = new Playhead({ share: false, fetch }).thread("t");
        }"""
    )
    await eventually(lambda: tab.page.evaluate("() => made.state === 'live'"))


SERVER_OF_ONE_PAGE = r"""
async ({ answers, watch: [kind, id, given] }) => {
    // A `fetch` that gives these answers, each a status or the frames of a response; the last one stays open.
    const { Playhead } = await import("/static/playhead.js");
    const asked = [], calls = [];
    const fetch = async (url, { body, signal }) => {
        if (!url.endsWith("/follow")) return new Response('{"streams":[]}', { status: 200 });
        const { subscriptions } = JSON.parse(body);
        asked.push(subscriptions.map(({ key, ...rest }) => rest));
        const answer = answers[asked.length - 1] ?? [];
        if (typeof answer === "number") return new Response('{"code":"nope"}', { status: answer });
        const [{ key }] = subscriptions;
        const text = answer.map((frame) => `data: ${JSON.stringify({ key, stream_id: "s", ...frame })}\n\n`);
        const stream = new ReadableStream({ start(to) {
            to.enqueue(new TextEncoder().encode("retry: 50\n" + text.join("")));
            if (asked.length < answers.length && !answer.at(-1)?.stay) to.close();
        } });
        return new Response(stream, { status: 200 });
    };
    const note = (kind) => (...words) => calls.push([kind, ...words]);
    const handlers = Object.fromEntries(["onEvent", "onClose", "onError", "onState"].map((name) => [name, note(name)]));
    const playhead = new Playhead({ share: false, fetch, base: "https://elsewhere.invalid" });
    globalThis.made = { asked, calls, watch: playhead[kind](id, { ...given, ...handlers }) };
}
"""


async def answered(tab: Tab, *answers: object, kind: str = "stream", until: str, **given: object) -> dict[str, list]:  # type: ignore[type-arg]
    """What a watch asks for and tells when its server answers like this, once a JavaScript condition holds."""
    await tab.page.evaluate(SERVER_OF_ONE_PAGE, {"answers": answers, "watch": [kind, "s", given]})
    await eventually(lambda: tab.page.evaluate(f"() => {until}"), until)
    made: dict[str, list] = await tab.page.evaluate("({ asked: made.asked, calls: made.calls })")  # type: ignore[type-arg]
    return made


STAY = {"type": "nothing", "offset": 2, "stay": True}
OPEN = {"type": "playhead.open", "offset": 0, "tail": 4, "stream": None}


def text(first: int, last: int) -> dict[str, object]:
    data = "".join(map(str, range(first, last + 1)))
    return {"type": "text", "first": first, "offset": last, "cursor": f"c{last}", "data": data}


async def test_what_overlaps_in_part_is_asked_for_again_from_the_own_cursor(
    door: Door, context: BrowserContext
) -> None:
    tab = await Tab.open(context, door.url)
    answers = [
        [
            OPEN,
            {"type": "playhead.of-a-later-version"},
            text(1, 2),
            text(1, 2),
            text(2, 4),
            {"type": "nothing", "offset": 2, "stay": True},
        ],
        [{**OPEN, "offset": 2}, text(3, 4)],
    ]
    made = await answered(tab, *answers, until="made.watch.cursor === 'c4'")
    assert [call[2]["data"] for call in made["calls"] if call[0] == "onEvent"] == ["12", "34"]
    assert made["asked"] == [[{"stream_id": "s", "after": None}], [{"stream_id": "s", "after": "c2"}]]


async def test_a_gap_that_stays_is_an_error_and_never_silent(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    holes = [[OPEN, text(2, 4), {"type": "x", "offset": 9, "stay": True}]] * 9
    made = await answered(tab, *holes, until="made.watch.state === 'failed'")
    assert len(made["asked"]) == 4
    assert [call[2]["code"] for call in made["calls"] if call[0] == "onError"] == ["gap"]
    assert not [call for call in made["calls"] if call[0] == "onEvent"]


async def test_passing_trouble_is_asked_again_and_a_refusal_is_final(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    busy = {"type": "playhead.error", "code": "too-many-readers", "status": 429, "retryable": True, "stay": True}
    answers = [503, [busy], [OPEN, text(1, 4)]]
    made = await answered(tab, *answers, until="made.watch.cursor === 'c4'")
    assert len(made["asked"]) == 3
    assert [call[1] for call in made["calls"] if call[0] == "onState"][:1] == ["reconnecting"]
    assert not [call for call in made["calls"] if call[0] == "onError"]
    made = await answered(tab, 403, until="made.watch.state === 'failed'")
    assert [call[2]["code"] for call in made["calls"] if call[0] == "onError"] == ["nope"]
    gone = {"type": "playhead.error", "code": "diverged", "status": 409, "retryable": False}
    made = await answered(tab, [OPEN, text(1, 2), gone], [], until="made.watch.state === 'failed'")
    assert [call[2]["code"] for call in made["calls"] if call[0] == "onError"] == ["diverged"]
    assert len(made["asked"]) == 1


async def test_a_thread_goes_on_when_one_of_its_streams_cannot_be_read(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    gone = {"type": "playhead.error", "code": "stream-expired", "status": 410, "retryable": False}
    first = [{**gone, "stream_id": "old"}, {**OPEN, "tail": 2}, text(1, 2)]
    made = await answered(
        tab, first, [{**OPEN, "offset": 2}, text(3, 4)], kind="thread", streams={"old": "c9"},
        until="made.watch.cursors.s === 'c4'",
    )  # fmt: skip
    errors = [(call[1], call[2]["code"]) for call in made["calls"] if call[0] == "onError"]
    assert errors == [("old", "stream-expired")]
    assert [words[0]["streams"] for words in made["asked"]] == [{"old": "c9"}, {"s": "c2"}]


async def test_ids_and_cursors_that_make_no_sense_are_refused_at_once(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    for made in ('stream("")', "stream(7)", 'stream("x".repeat(1001))', 'stream("s", { after: 7 })', "thread(null)"):
        with pytest.raises(Exception, match="TypeError"):
            await tab.page.evaluate(f"() => {{ record.playhead.{made} }}")


# ---- one tab --------------------------------------------------------------------------------------------------


async def test_a_catch_up_is_told_as_one(door: Door, context: BrowserContext) -> None:
    stream = await door.speaker()
    stream.say(*(f"word{number} " for number in range(10_000)))
    await eventually(lambda: stream._words.empty())
    tab = await Tab.open(context, door.url)
    await tab.watch("w", "stream", stream.stream_id)
    await tab.until_offset("w", stream.stream_id, 10_000)
    assert len(await tab.until_calls("w", "event", 1)) <= 10
    await tab.until_state("w", "live")
    await stream.end()
    await tab.until_state("w", "closed")
    await tab.check("w", stream, closed="completed")


async def test_a_thread_tells_of_each_stream_that_begins_on_it(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    await tab.watch("w", "thread", "t")
    await tab.until_state("w", "live")
    for number in range(3):
        stream = await door.speaker("t")
        stream.say(f"answer {number}")
        await stream.end()
        await tab.until_calls("w", "close", number + 1)
        await tab.check("w", stream, closed="completed")
    assert await tab.state("w") == "live"


async def test_what_began_and_ended_while_nobody_was_connected_is_told_too(
    tmp_path: Path, context: BrowserContext
) -> None:
    async with cutting_proxy() as proxy, opened_door(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as door:
        proxy.target_port = door.port
        for _ in range(2):
            await (await door.speaker("t")).end()
        tab = await Tab.open(context, f"http://127.0.0.1:{proxy.port}")
        await tab.watch("w", "thread", "t")
        await tab.until_state("w", "live")
        proxy.target_port = 1  # nobody is there
        proxy.cut()
        await tab.until_state("w", "reconnecting")
        missed = [await door.speaker("t")]
        missed[0].say("you were away")
        await missed[0].end()
        missed.append(await door.speaker("t"))
        missed[1].say("and this is being said")
        proxy.target_port = door.port
        await tab.until_calls("w", "close", 1)
        await missed[1].end()
        await tab.until_calls("w", "close", 2)
        for stream in missed:
            await tab.check("w", stream, closed="completed")
        await tab.watch("all", "thread", "t", since=None)
        await tab.watch("second", "thread", "t", since=missed[0].stream_id)
        await tab.watch("nothing", "thread", "t", since=missed[1].stream_id)
        await tab.until_calls("all", "close", 4)
        await tab.until_calls("second", "close", 1)
        await tab.check("second", missed[1], closed="completed")
        assert await tab.calls("nothing") == []


async def test_cut_connections_lose_and_repeat_nothing(tmp_path: Path, context: BrowserContext) -> None:
    async with cutting_proxy() as proxy, opened_door(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as door:
        proxy.target_port = door.port
        stream, other = await door.speaker(), await door.speaker("t")
        tab = await Tab.open(context, f"http://127.0.0.1:{proxy.port}")
        await tab.watch("w", "stream", stream.stream_id)
        await tab.watch("t", "thread", "t")

        async def losses(count: int) -> bool:
            return (await tab.states("w")).count("reconnecting") >= count  # it is back soon

        async with speaking(stream, other):
            for cut in range(5):
                had = await tab.last_offset("w", stream.stream_id)
                await tab.until_offset("w", stream.stream_id, had + 20)
                await tab.until_offset("t", other.stream_id, had + 20)
                proxy.cut()
                await eventually(partial(losses, cut + 1), "the cut is noticed")
        await tab.until_state("w", "closed")
        await tab.until_calls("t", "close", 1)
        await tab.check("w", stream, closed="completed")
        await tab.check("t", other, closed="completed")


async def test_offline_is_shown_and_left_at_once(door: Door, context: BrowserContext) -> None:
    await context.add_init_script("""
        globalThis.underWay = 0;
        const real = fetch;
        globalThis.fetch = (...words) => {
            underWay += 1;
            return real(...words).finally(() => underWay -= 1);
        };
    """)
    stream = await door.speaker()
    tab = await Tab.open(context, door.url)
    await tab.watch("w", "stream", stream.stream_id)
    async with speaking(stream):
        await tab.until_offset("w", stream.stream_id, 20)
        async with no_network(tab.page):
            await tab.until_state("w", "offline")
            await asyncio.sleep(4)  # attempts fail meanwhile, and waits grow
            assert await tab.state("w") == "offline"
            # The first listener comes before playhead's own, the second after it. An attempt may be under way already.
            await tab.page.evaluate("""() => {
                let isBack;
                addEventListener("online", () => { isBack = record.watches.w.state !== "offline"; }, true);
                globalThis.atOnce = new Promise((tell) => {
                    addEventListener("online", () => tell(isBack || underWay > 0));
                });
            }""")
        assert await tab.page.evaluate("() => atOnce")
        await tab.until_state("w", "live")
    await tab.until_state("w", "closed")
    await tab.check("w", stream, closed="completed")


async def test_a_connection_that_says_nothing_is_given_up(door: Door, context: BrowserContext) -> None:
    stream = await door.speaker()
    tab = await Tab.open(context, door.url, stallAfterMs=1500)
    await tab.watch("w", "stream", stream.stream_id)
    await tab.until_state("w", "live")
    asked = len(door.doorman.bodies)
    door.doorman.is_mute = True
    stream.say("into the void")
    await eventually(lambda: len(door.doorman.bodies) > asked)
    door.doorman.is_mute = False
    await tab.until_offset("w", stream.stream_id, 1)
    assert "reconnecting" in await tab.states("w")
    await stream.end()
    await tab.until_state("w", "closed")
    await tab.check("w", stream, closed="completed")


async def test_an_unknown_stream_fails_with_its_code(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    await tab.watch("w", "stream", "nobody")
    await tab.until_state("w", "failed")
    assert await tab.calls("w") == [["error", "nobody", "stream-not-found"]]
    await eventually(lambda: door.doorman.open_now == 0)


async def test_a_handler_that_throws_stops_nothing_and_none_is_called_after_close(
    door: Door, context: BrowserContext
) -> None:
    stream = await door.speaker()
    tab = await Tab.open(context, door.url)
    await tab.page.evaluate(
        """(id) => {
            globalThis.seen = [];
            globalThis.reported = [];
            globalThis.addEventListener("error", (e) => { reported.push(e.error.message); e.preventDefault(); });
            const watch = record.playhead.stream(id, {
                onOpen() { throw new Error("from onOpen"); },
                onEvent(_, { data }) { seen.push(data); if (data.includes("2")) watch.close(); throw new Error(data); },
            });
        }""",
        stream.stream_id,
    )
    await tab.watch("w", "stream", stream.stream_id)
    for number in range(5):
        stream.say(str(number))
        await tab.until_offset("w", stream.stream_id, number + 1)
    await stream.end()
    await tab.until_state("w", "closed")
    seen = await tab.page.evaluate("seen")
    assert "".join(seen).endswith("2")
    assert await tab.page.evaluate("reported") == ["from onOpen", *seen]
    await tab.check("w", stream, closed="completed")


async def test_more_than_a_request_may_hold(door: Door, context: BrowserContext) -> None:
    tab = await Tab.open(context, door.url)
    await tab.page.evaluate("for (let n = 0; n < 70; n++) record.watch(`w${n}`, 'thread', `t${n}`)")
    await eventually(lambda: door.doorman.open_now == 2)
    assert sorted(len(body["subscriptions"]) for body in door.doorman.bodies) == [6, 64]
    for number in (0, 69):
        stream = await door.speaker(f"t{number}")
        stream.say("here")
        await stream.end()
        await tab.until_calls(f"w{number}", "close", 1)
        await tab.check(f"w{number}", stream, closed="completed")


@pytest.mark.parametrize("instead", ["/v1/nothing", "/v1/streams/a/info"], ids=["404", "405"])
async def test_a_server_without_the_door_is_followed_stream_by_stream(
    instead: str, door: Door, context: BrowserContext
) -> None:
    door.doorman.instead = instead
    tab = await Tab.open(context, door.url)
    stream, other = await door.speaker(stream_id="a stream/ü?"), await door.speaker("t")
    async with speaking(stream, other):
        await tab.watch("w", "stream", stream.stream_id)
        await tab.watch("t", "thread", "t")
        await tab.until_offset("w", stream.stream_id, 20)
        await tab.until_offset("t", other.stream_id, 20)
    await tab.until_state("w", "closed")
    await tab.until_calls("t", "close", 1)
    await tab.check("w", stream, closed="completed")
    await tab.check("t", other, closed="completed")
    cursor = await tab.page.evaluate("record.watches.w.cursor")
    await tab.watch("again", "stream", stream.stream_id, after=cursor)
    await tab.until_state("again", "closed")
    assert (await tab.calls("again"))[-1][-1] == "completed"
    await tab.watch("none", "stream", "nobody")
    await tab.until_state("none", "failed")
    assert await tab.calls("none") == [["error", "nobody", "stream-not-found"]]


@pytest.mark.parametrize("example", ["browser", "thread"])
async def test_the_examples_of_the_guide_run(example: str, door: Door, context: BrowserContext) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "browser.md").read_text()
    code = re.findall(rf"<!-- example: {example} -->\n```js\n(.*?)```", guide, re.DOTALL)[0]
    script = re.sub(r"import (.*?) from (.*?);", r"const \1 = await import(\2);", code)
    stream = await door.speaker("t")
    stream.say("as ", "the ", "guide ", "says")
    tab = await Tab.open(context, door.url)
    await tab.page.evaluate(
        "([streamId, threadId]) => { globalThis.ends = []; const finish = (...end) => ends.push(end), show = () => {};"
        f"(async () => {{ {script} }})(); }}",
        [stream.stream_id, "t"],
    )
    await eventually(lambda: door.doorman.open_now == 1)
    await stream.end()
    end = (await eventually(lambda: tab.page.evaluate("ends")))[0]
    assert end[0] == "completed"
    assert example == "browser" or end[1] == "as the guide says"


async def blank_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<!doctype html><title>app</title>"
    )
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("instead", [None, "/v1/nothing"])
async def test_a_page_of_another_origin_follows(tmp_path: Path, context: BrowserContext, instead: str | None) -> None:
    async with await asyncio.start_server(blank_page, "127.0.0.1", 0) as app:
        elsewhere = f"http://127.0.0.1:{app.sockets[0].getsockname()[1]}"
        async with opened_door(tmp_path, cors_origins=elsewhere, shutdown_grace_s=0) as door:
            door.doorman.instead = instead
            page = await context.new_page()
            await page.goto(elsewhere)
            tab = await Tab.start(page, door.url, base=door.url)
            stream = await door.speaker()
            async with speaking(stream):
                await tab.watch("w", "stream", stream.stream_id)
                await tab.until_offset("w", stream.stream_id, 20)
            await tab.until_state("w", "closed")
            await tab.check("w", stream, closed="completed")


# ---- the server's store is away --------------------------------------------------------------------------------


@pytest.mark.proves("K6")
@pytest.mark.parametrize("instead", [None, "/nothing-here"])
async def test_an_outage_of_the_store_shows_and_costs_no_connection(
    instead: str | None, tmp_path: Path, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = outages_of_servers(monkeypatch)
    async with opened_door(tmp_path, shutdown_grace_s=0) as door:
        door.doorman.instead = instead  # a path: as with a server that has no POST /v1/follow
        stream = await door.speaker("t")
        stream.say("one ", "two ")
        tab = await Tab.open(context, door.url, share=False)
        await tab.watch("w", "stream", stream.stream_id)
        await tab.watch("thread", "thread", "t")
        for name in ("w", "thread"):
            await tab.until_offset(name, stream.stream_id, 2)
            await tab.until_state(name, "live")
        asked = len(door.doorman.bodies)
        stores[0].leave()
        for name in ("w", "thread"):
            await tab.until_state(name, "reconnecting")
        stream.say("three ")
        stores[0].come_back()
        for name in ("w", "thread"):
            await tab.until_offset(name, stream.stream_id, 3)
            await tab.until_state(name, "live")
            assert (await tab.states(name))[-3:] == ["live", "reconnecting", "live"]
        assert len(door.doorman.bodies) == asked
        await stream.end()
        await tab.until_state("w", "closed")
        await tab.until_calls("thread", "close", 1)
        for name in ("w", "thread"):
            await tab.check(name, stream, closed="completed")
            assert [call[0] for call in await tab.calls(name)].count("open") == 1


async def test_a_stream_that_is_silent_after_an_outage_is_live_again(
    tmp_path: Path, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = outages_of_servers(monkeypatch)
    async with opened_door(tmp_path, shutdown_grace_s=0) as door:
        stream = await door.speaker()
        stream.say("one ")
        tab = await Tab.open(context, door.url, share=False)
        await tab.watch("w", "stream", stream.stream_id)
        await tab.until_offset("w", stream.stream_id, 1)
        stores[0].leave()
        await tab.until_state("w", "reconnecting")
        stores[0].come_back()
        await tab.until_state("w", "live")
        assert await tab.last_offset("w", stream.stream_id) == 1
