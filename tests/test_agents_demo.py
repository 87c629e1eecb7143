"""The demo model: what it says, how fast, and how it obeys."""

import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage

from playhead.agents import DemoChatModel, DemoModelError, demo
from playhead.agents.clock import clock
from playhead.agents.demo import PREFACE
from playhead.agents.demo_commands import USAGE, read_commands


class LateClock:
    """A loop's clock on which every sleeper wakes up a little late, and nothing else takes any time."""

    LATE_S = 0.004

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.0) + self.LATE_S


@pytest.fixture
def late_clock(monkeypatch: pytest.MonkeyPatch) -> LateClock:
    """The demo model's clock, in place of the event loop's."""
    late = LateClock()
    monkeypatch.setattr(demo, "asyncio", SimpleNamespace(sleep=late.sleep, get_running_loop=lambda: late))
    return late


async def read(stream: AsyncIterator[AIMessageChunk], texts: list[str]) -> None:
    async for chunk in stream:
        texts += [chunk.text]


async def chunks_of(text: str, *before: BaseMessage, tools: bool = False) -> list[AIMessageChunk]:
    model = DemoChatModel(default_pace_ms=0)
    asked: Sequence[BaseMessage] = [*before, HumanMessage(text)]
    stream = model.bind_tools([clock]).astream(asked) if tools else model.astream(asked)
    return [chunk async for chunk in stream]


async def answer_to(text: str, *before: BaseMessage) -> str:
    return "".join(chunk.text for chunk in await chunks_of(text, *before))


async def test_says_first_that_it_is_a_demo_and_then_echoes_the_message() -> None:
    answer = await answer_to("What is a cursor?")
    assert answer.startswith(PREFACE)
    assert "OPENAI_API_KEY" in PREFACE
    assert "What is a cursor?" in answer
    assert 50 <= len(answer.split()) <= 90


async def test_counts_the_messages_of_the_conversation() -> None:
    assert "**1 message** so far" in await answer_to("hello")
    answer = await answer_to("again", HumanMessage("hello"), AIMessage("hi"), AIMessage(""))
    assert "**3 messages** so far" in answer


async def test_streams_word_by_word_and_the_chunks_join_to_what_it_generates_in_one() -> None:
    texts = [chunk.text for chunk in await chunks_of("hello") if chunk.text]
    assert all(len(text.split()) == 1 for text in texts)
    assert "".join(texts) == DemoChatModel().invoke([HumanMessage("hello")]).text


async def test_a_long_message_is_echoed_in_part() -> None:
    answer = await answer_to("word " * 1000)
    assert len(answer.split()) < 120
    assert "word …" in answer


@pytest.mark.parametrize("words", [0, 1, 50, 2000])
async def test_long_says_exactly_so_many_further_words(words: int) -> None:
    answer = await answer_to(f"/long {words} hello")
    assert len(answer.removeprefix(PREFACE).split()) == words
    assert answer == await answer_to(f"/long {words} something else"), "the text is not the same each time"


async def test_the_largest_long_is_quick_enough_without_pace() -> None:
    started_s = time.monotonic()
    assert len((await answer_to("/pace 0 /long 20000")).split()) > 20_000
    assert time.monotonic() - started_s < 20


@pytest.mark.parametrize(
    "message",
    [
        "/long",
        "/long x",
        "/long -1",
        "/long 20001",
        "/long 1.5",
        "/long " + "9" * 5000,
        "/slow nan",
        "/slow 601",
        "/slow -0.1",
        "/pace inf",
        "/pace",
        "/slow 0 /long x",
    ],
)
async def test_a_bad_argument_is_answered_with_the_usage(message: str) -> None:
    answer = await answer_to(message)
    assert answer.startswith(PREFACE)
    assert answer.endswith(USAGE)
    assert len(answer) < 600


def test_commands_are_read_off_the_front_in_any_order() -> None:
    asked = read_commands("  /slow 2\n/long 50 /pace 7 /error /tool hello /long 3 ")
    assert (asked.slow_s, asked.long_words, asked.pace_ms, asked.error, asked.tool) == (2, 50, 7, True, True)
    assert asked.message == "hello /long 3"
    assert read_commands("/etc/hosts is a file").message == "/etc/hosts is a file"
    assert read_commands("").message == ""


SLOW = "/slow 0.3 /pace 10 /long 40"


async def test_slow_waits_before_the_first_word_and_pace_between_words() -> None:
    started_s = time.monotonic()
    arrived_s = [
        time.monotonic() - started_s async for chunk in DemoChatModel().astream([HumanMessage(SLOW)]) if chunk.text
    ]
    # Never early. How late a word may be is the machine's affair; the next test has a clock of its own for that.
    assert len(arrived_s) > 40
    assert all(at_s >= 0.3 + 0.010 * position - 0.001 for position, at_s in enumerate(arrived_s))


async def test_late_wake_ups_do_not_add_up(late_clock: LateClock) -> None:
    arrived_s = [late_clock.now - 100.0 async for chunk in DemoChatModel().astream([HumanMessage(SLOW)]) if chunk.text]
    assert len(arrived_s) > 40
    for position, at_s in enumerate(arrived_s):
        assert 0.0 <= at_s - (0.3 + 0.010 * position) + 1e-6 < late_clock.LATE_S + 0.001


async def test_the_default_pace_is_about_50_words_a_second(late_clock: LateClock) -> None:
    words = [chunk async for chunk in DemoChatModel().astream([HumanMessage("/long 30")]) if chunk.text]
    assert 45 <= len(words) / (late_clock.now - 100.0) <= 52


async def test_error_breaks_the_answer_in_the_middle() -> None:
    whole = await answer_to("/long 20")
    texts: list[str] = []
    with pytest.raises(DemoModelError, match="/error"):
        await read(DemoChatModel(default_pace_ms=0).astream([HumanMessage("/long 20 /error")]), texts)
    assert len(texts) == len(whole.split()) // 2
    assert whole.startswith("".join(texts))


async def test_tool_streams_a_call_in_pieces_after_the_preface() -> None:
    chunks = await chunks_of("/tool", tools=True)
    assert "".join(chunk.text for chunk in chunks).startswith(PREFACE)
    calls = [call for chunk in chunks for call in chunk.tool_call_chunks]
    assert [call["name"] for call in calls] == ["clock", None, None, None]
    assert "".join(call["args"] or "" for call in calls) == '{"timezone": "UTC"}'


async def test_tool_without_a_clock_says_so() -> None:
    assert "no `clock` tool" in await answer_to("/tool")


async def test_answers_with_the_tools_result() -> None:
    call = AIMessage("", tool_calls=[{"name": "clock", "args": {}, "id": "c1"}])
    model = DemoChatModel(default_pace_ms=0)
    asked = [HumanMessage("/slow 9 /tool /long 4"), call, ToolMessage("noon", name="clock", tool_call_id="c1")]
    answer = "".join([chunk.text async for chunk in model.astream(asked)])
    assert answer == "The clock says: noon\n\na stream is a"


def test_the_clock_knows_time_zones_and_says_when_it_does_not() -> None:
    assert clock.invoke({}).endswith("+00:00")
    assert "no time zone" in clock.invoke({"timezone": "Nowhere/Land"})
    assert "no time zone" in clock.invoke({"timezone": "../../etc/passwd"})
