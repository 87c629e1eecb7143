"""The chat agent: replies, and a thread that stays whole and usable however a reply ends."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.errors import GraphRecursionError
from openai_server import Answer, OpenAIServer, ToolCall

from playhead.adapters.langgraph.tool_calls import INTERRUPTED
from playhead.agents import (
    ChatAgent,
    DemoChatModel,
    DemoModelError,
    Piece,
    StaleCheckpoint,
    TextPiece,
    ThreadBusy,
    ToolCallPiece,
    ToolResultPiece,
    Turn,
    build_graph,
    chat,
    choose_model,
    open_agent,
)
from playhead.agents.checkpoints import open_checkpoints
from playhead.model import OutcomeKind

pytest_plugins = ["agents_places"]

CountRows = Callable[..., dict[str, int]]

T = "5b1c0b6e-0000-4000-8000-000000000001"


@pytest.fixture
def server() -> AsyncIterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def opened(place: str, server: OpenAIServer) -> Callable[[], AbstractAsyncContextManager[ChatAgent]]:
    """Open an agent on the test's checkpoints: each time a new one, as another process would."""
    return lambda: open_agent(place, choose_model(base_url=server.url))


@pytest.fixture
async def agent(opened: Callable[[], AbstractAsyncContextManager[ChatAgent]]) -> AsyncIterator[ChatAgent]:
    async with opened() as agent:
        yield agent


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[ChatAgent]:
    async with open_agent(tmp_path / "demo.sqlite", DemoChatModel(default_pace_ms=0)) as agent:
        yield agent


async def pieces_of(agent: ChatAgent, text: str, message_id: str = "h1") -> list[Piece]:
    return [piece async for piece in agent.reply(T, message_id, text)]


async def answer_of(agent: ChatAgent, text: str, message_id: str = "h1") -> str:
    return "".join(p.text for p in await pieces_of(agent, text, message_id) if isinstance(p, TextPiece))


async def read(pieces: AsyncIterator[Piece], texts: list[str]) -> None:
    async for piece in pieces:
        texts += [piece.text] if isinstance(piece, TextPiece) else []


async def first_text(agent: ChatAgent, text: str, message_id: str = "h1") -> str:
    """Read a reply up to its first text, then close it: a cancel in the middle."""
    async with aclosing(agent.reply(T, message_id, text)) as pieces:
        async for piece in pieces:
            if isinstance(piece, TextPiece):
                return piece.text
    raise AssertionError("no text came")


async def shown(agent: ChatAgent) -> list[tuple[str, str, str | None]]:
    return [(turn.type, turn.content, turn.outcome) for turn in await agent.history(T)]


async def settle(agent: ChatAgent, text: str, streamed: str, outcome: str, number: int = 1) -> None:
    await agent.settle(T, f"s{number}", f"h{number}", text, streamed, OutcomeKind(outcome))


async def pending(agent: ChatAgent) -> tuple[str, ...]:
    return (await agent._graph.aget_state({"configurable": {"thread_id": T}})).next


# ---------------------------------------------------------------------------------------- replies


async def test_a_reply_is_its_pieces_joined_and_becomes_history(demo: ChatAgent) -> None:
    pieces = await pieces_of(demo, "hello")
    assert len(pieces) > 50
    assert all(isinstance(piece, TextPiece) for piece in pieces)
    answer = "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))
    before = await demo.history(T)
    assert [(turn.type, turn.content) for turn in before] == [("human", "hello"), ("ai", answer)]
    await settle(demo, "hello", answer, "completed")
    assert await demo.history(T) == before


async def test_the_demo_models_tool_call_is_told_with_its_result(demo: ChatAgent) -> None:
    pieces = await pieces_of(demo, "/tool /long 3")
    call = next(p for p in pieces if isinstance(p, ToolCallPiece))
    result = next(p for p in pieces if isinstance(p, ToolResultPiece))
    assert [p for p in pieces if not isinstance(p, TextPiece)] == [call, result]
    assert (call.name, result.name, result.id) == ("clock", "clock", call.id)
    assert result.args == {"timezone": "UTC"}
    assert isinstance(pieces[-1], TextPiece)
    answer = "".join(p.text for p in pieces if isinstance(p, TextPiece))
    assert answer.endswith(f"The clock says: {result.content}\n\na stream is")
    assert await shown(demo) == [("human", "/tool /long 3", None), ("ai", answer, None)]


async def test_tool_calls_of_a_real_server_are_told_once_each(agent: ChatAgent, server: OpenAIServer) -> None:
    utc = ToolCall("clock", ('{"time', 'zone": "U', 'TC"}'), "call_7")
    server.answer(Answer("Let me ", "look. ", tool_calls=(utc, ToolCall("clock", ("{}",), "call_8"))), Answer("Noon."))
    pieces = await pieces_of(agent, "What time is it?")
    assert pieces[:4] == [
        TextPiece("Let me "),
        TextPiece("look. "),
        ToolCallPiece("clock", "call_7"),
        ToolCallPiece("clock", "call_8"),
    ]
    results = sorted((p.id, p.args) for p in pieces[4:6] if isinstance(p, ToolResultPiece))
    assert results == [("call_7", {"timezone": "UTC"}), ("call_8", {})]
    assert pieces[6:] == [TextPiece("Noon.")]
    assert [tool["function"]["name"] for tool in server.requests[0].body["tools"]] == ["clock"]
    assert [m["role"] for m in server.requests[1].messages] == ["user", "assistant", "tool", "tool"]


async def test_the_model_is_sent_the_whole_conversation(agent: ChatAgent, server: OpenAIServer) -> None:
    await answer_of(agent, "first", "h1")
    await answer_of(agent, "second", "h2")
    assert [m["content"] for m in server.requests[1].messages] == ["first", "Hello world", "second"]


async def test_a_message_sent_twice_is_there_once(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer(reset_after_chunks=0))
    with pytest.raises(Exception, match=r"."):
        await answer_of(agent, "first", "h1")
    await answer_of(agent, "first", "h1")
    assert await shown(agent) == [("human", "first", None), ("ai", "Hello world", None)]


async def test_a_model_that_calls_tools_for_ever_fails(agent: ChatAgent, server: OpenAIServer) -> None:
    model_calls = (chat.MAX_STEPS + 1) // 2  # every other step is the tool's
    server.answer(*[Answer(tool_calls=(ToolCall("clock"),))] * model_calls)
    with pytest.raises(GraphRecursionError):
        await pieces_of(agent, "What time is it?")
    await settle(agent, "What time is it?", "", "failed")
    assert len(server.requests) == model_calls
    assert await answer_of(agent, "And now?", "h2") == "Hello world"


# --------------------------------------------------------------------------- endings and next turns


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_cancel_in_mid_answer_stops_the_request_and_keeps_what_was_shown(
    agent: ChatAgent, server: OpenAIServer, how: str
) -> None:
    server.answer(Answer("Once ", "upon ", "a time", hold_after_chunks=1))
    if how == "close":
        assert await first_text(agent, "Tell me") == "Once "
    else:
        reading = asyncio.create_task(answer_of(agent, "Tell me"))
        await server.until(lambda: bool(server.requests) and server.requests[0].chunks_sent == 1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await server.until(lambda: server.requests[0].disconnected)
    await settle(agent, "Tell me", "Once ", "cancelled")
    assert await pending(agent) == ()
    assert await agent.history(T) == [
        Turn("human", "Tell me", "h1"),
        Turn("ai", "Once ", "s1:partial", OutcomeKind.CANCELLED, "s1"),
    ]
    assert await answer_of(agent, "Go on", "h2") == "Hello world"
    assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Once ", "Go on"]


async def test_a_cancel_is_obeyed_at_any_instant(agent: ChatAgent, server: OpenAIServer) -> None:
    """Cancel while chunks are coming in, many times: none may get lost and leave the reply running."""
    for attempt in range(40):
        server.answer(Answer(*["word "] * 30, hold_after_chunks=25))
        reading = asyncio.create_task(answer_of(agent, "Tell me", f"h{attempt}"))
        async with asyncio.timeout(60):
            # Every turn of the loop counts here: the finest clock there is.
            while len(server.requests) <= attempt or server.requests[attempt].chunks_sent < attempt % 25:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(attempt % 7):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        assert reading.cancelled()


async def test_a_cancel_before_the_first_word_leaves_a_usable_thread(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer(hold_after_chunks=0))
    reading = asyncio.create_task(answer_of(agent, "Tell me"))
    await server.until(lambda: bool(server.requests))
    reading.cancel()
    await asyncio.wait([reading])
    await settle(agent, "Tell me", "", "cancelled")
    assert await shown(agent) == [("human", "Tell me", None), ("ai", "", "cancelled")]
    assert await answer_of(agent, "Again", "h2") == "Hello world"
    assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Again"]


async def test_an_error_in_mid_answer_is_raised_and_the_next_turn_works(demo: ChatAgent) -> None:
    texts: list[str] = []
    with pytest.raises(DemoModelError):
        await read(demo.reply(T, "h1", "/long 20 /error"), texts)
    streamed = "".join(texts)
    assert "a stream is" not in streamed
    assert len(texts) > 10
    await settle(demo, "/long 20 /error", streamed, "failed")
    assert await shown(demo) == [("human", "/long 20 /error", None), ("ai", streamed, "failed")]
    assert await pending(demo) == ()
    assert "**3 messages**" in await answer_of(demo, "Still there?", "h2")


@pytest.mark.parametrize("settled", [True, False])
async def test_a_cancelled_tool_call_is_closed_and_not_run_again(
    place: str, server: OpenAIServer, settled: bool
) -> None:
    started, runs = asyncio.Event(), []

    @tool
    async def hang() -> str:
        """Never come back."""
        runs.append("run")
        started.set()
        await asyncio.Event().wait()
        return ""

    async with open_checkpoints(place) as checkpointer:
        agent = ChatAgent(build_graph(choose_model(base_url=server.url), checkpointer, [hang]), checkpointer)
        server.answer(Answer("Wait. ", tool_calls=(ToolCall("hang"),)))
        reading = asyncio.create_task(answer_of(agent, "Do it"))
        await asyncio.wait_for(started.wait(), 60)
        reading.cancel()
        await asyncio.wait([reading])
        if settled:
            await settle(agent, "Do it", "Wait. ", "cancelled")
            assert await shown(agent) == [("human", "Do it", None), ("ai", "Wait. ", "cancelled")]
            assert await pending(agent) == ()
        assert await answer_of(agent, "Never mind", "h2") == "Hello world"
        assert [m["role"] for m in server.requests[1].messages] == ["user", "assistant", "tool", "user"]
        assert runs == ["run"]


async def test_a_call_with_unreadable_arguments_does_not_block_the_thread(
    agent: ChatAgent, server: OpenAIServer
) -> None:
    server.answer(Answer("Hm. ", tool_calls=(ToolCall("clock", ("at noon",)),)))
    assert await answer_of(agent, "What time is it?") == "Hm. "
    assert await answer_of(agent, "Well?", "h2") == "Hello world"


async def test_a_tool_that_raises_is_an_answer_for_the_model(place: str, server: OpenAIServer) -> None:
    @tool
    def broken() -> str:
        """Fail."""
        raise ZeroDivisionError("by nought")

    async with open_checkpoints(place) as checkpointer:
        agent = ChatAgent(build_graph(choose_model(base_url=server.url), checkpointer, [broken]), checkpointer)
        server.answer(Answer(tool_calls=(ToolCall("broken"),)))
        pieces = await pieces_of(agent, "Do it")
    assert isinstance(pieces[1], ToolResultPiece)
    assert "by nought" in pieces[1].content
    assert pieces[-1] == TextPiece("world")


IN_A_PROCESS = """
import asyncio, sys
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from playhead.agents import ChatAgent, build_graph, choose_model
from playhead.agents.checkpoints import open_checkpoints
from playhead.adapters.langgraph.tool_calls import INTERRUPTED

@tool
async def clock() -> str:
    "Never come back."
    print("in the tool", flush=True)
    await asyncio.Event().wait()
    return ""

async def main(path, url, thread_id):
    async with open_checkpoints(path) as checkpointer:
        agent = ChatAgent(build_graph(choose_model(base_url=url), checkpointer, [clock]), checkpointer)
        async for piece in agent.reply(thread_id, "h1", "What time is it?"):
            print(piece, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def killed_when(place: str, url: str, said: bytes) -> None:
    """Run a reply in a process, until that says so; then kill -9."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IN_A_PROCESS, place, url, T, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while said not in await process.stdout.readline():
            assert process.returncode is None
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()


@pytest.mark.crash
async def test_a_kill_in_mid_tool_call_is_settled_by_another_process(
    opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], place: str, server: OpenAIServer
) -> None:
    server.answer(Answer("Let me look. ", tool_calls=(ToolCall("clock"),)))
    await killed_when(place, server.url, b"in the tool")
    for _ in range(2):  # the second time after a crash of the one that settled
        async with opened() as agent:
            await settle(agent, "What time is it?", "Let me look. ", "interrupted")
            assert await shown(agent) == [
                ("human", "What time is it?", None),
                ("ai", "Let me look. ", "interrupted"),
            ]
            assert await pending(agent) == ()
    async with opened() as agent:
        assert await answer_of(agent, "Well?", "h2") == "Hello world"
    assert [m["role"] for m in server.requests[1].messages] == ["user", "assistant", "tool", "user"]


@pytest.mark.crash
async def test_after_a_kill_in_mid_tool_call_the_next_message_works_even_unsettled(
    opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], place: str, server: OpenAIServer
) -> None:
    server.answer(Answer("Let me look. ", tool_calls=(ToolCall("clock", ('{"timezone": "UTC"}',), "call_7"),)))
    await killed_when(place, server.url, b"in the tool")
    async with opened() as agent:
        assert await answer_of(agent, "Well?", "h2") == "Hello world"
        question, call, result, next_question = server.requests[1].messages
        assert (question["content"], next_question["content"]) == ("What time is it?", "Well?")
        assert [(one["id"], one["function"]["name"]) for one in call["tool_calls"]] == [("call_7", "clock")]
        assert result == {"role": "tool", "tool_call_id": "call_7", "content": INTERRUPTED}
        await settle(agent, "What time is it?", "Let me look. ", "interrupted")
        assert await answer_of(agent, "Go on", "h3") == "Hello world"
    roles = [m["role"] for m in server.requests[2].messages]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user"]


@pytest.mark.crash
@pytest.mark.parametrize("turn", ["first", "second"])
async def test_a_kill_before_the_first_word_is_settled_by_another_process(
    opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], place: str, server: OpenAIServer, turn: str
) -> None:
    known = [("human", "Hello", None), ("ai", "Hello world", None)] if turn == "second" else []
    async with opened() as agent:
        if known:
            await answer_of(agent, "Hello", "h0")
        server.answer(Answer("Once ", "upon", hold_after_chunks=1))
        await killed_when(place, server.url, b"Once ")
        await settle(agent, "What time is it?", "Once ", "interrupted")
        assert await shown(agent) == [*known, ("human", "What time is it?", None), ("ai", "Once ", "interrupted")]
        assert await answer_of(agent, "Well?", "h2") == "Hello world"
    sent = [content for _, content, _ in known] + ["What time is it?", "Once ", "Well?"]
    assert [m["content"] for m in server.requests[-1].messages] == sent


# ------------------------------------------------------------------------------------------ settle


async def test_settling_again_from_anywhere_changes_nothing(
    agent: ChatAgent, opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], server: OpenAIServer
) -> None:
    server.answer(Answer(hold_after_chunks=1))
    streamed = await first_text(agent, "Tell me")
    await settle(agent, "Tell me", streamed, "cancelled")
    once = await agent.history(T)
    await settle(agent, "Tell me", streamed, "cancelled")
    async with opened() as other:
        await settle(other, "Tell me", streamed, "cancelled")
        assert await other.history(T) == once


class Smiling(DemoChatModel):
    """Says a surrogate pair in halves, as some servers do."""

    async def _astream(self, messages: list[BaseMessage], *_: object, **__: object) -> AsyncIterator[Any]:
        for text in ("A smile: ", "\ud83d", "\ude00", "!"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))


async def test_halves_of_a_character_are_joined(place: str, server: OpenAIServer) -> None:
    """A half by itself can neither be sent nor stored."""
    asked = "Smile \ud83d\ude00 \ud83d"
    expected = ["Smile \U0001f600 \ufffd", "A smile: \U0001f600!"]
    async with open_agent(place, Smiling()) as agent:
        streamed = await answer_of(agent, asked)
        assert streamed == "A smile: \ud83d\ude00!"
        for outcome, number in (("completed", 1), ("cancelled", 2), ("cancelled", 2)):
            await agent.settle(T, f"s{number}", "h1", asked, streamed, OutcomeKind(outcome))
            assert [turn.content for turn in await agent.history(T)] == expected
    async with open_agent(place, choose_model(base_url=server.url)) as agent:
        await answer_of(agent, asked, "h2")
    assert [m["content"] for m in server.requests[-1].messages] == [*expected, expected[0]]


async def test_settling_at_the_same_time_in_many_places_is_settling_once(
    opened: Callable[[], AbstractAsyncContextManager[ChatAgent]],
) -> None:
    async with opened() as a, opened() as b, opened() as c:
        same = [settle(each, "Tell me", "Once ", "interrupted", 1) for each in (a, b, c)]
        other = [settle(a, "And me", "Twice ", "cancelled", 2), settle(b, "Me too", "Thrice ", "failed", 3)]
        await asyncio.gather(*same, *other)
        assert sorted(await shown(c)) == sorted(
            [
                ("human", "Tell me", None),
                ("ai", "Once ", "interrupted"),
                ("human", "And me", None),
                ("ai", "Twice ", "cancelled"),
                ("human", "Me too", None),
                ("ai", "Thrice ", "failed"),
            ]
        )


@pytest.mark.parametrize("thread", ["new", "known"])
async def test_a_settle_that_is_overtaken_loses_nothing(
    thread: str,
    agent: ChatAgent,
    opened: Callable[[], AbstractAsyncContextManager[ChatAgent]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = [] if thread == "new" else ["Hello", "Hello world"]
    if known:
        await answer_of(agent, "Hello", "h0")
    read_newest, reads = agent._checkpointer.aget_tuple, []
    async with opened() as other:

        async def read_and_be_overtaken(config: RunnableConfig) -> CheckpointTuple | None:
            newest = await read_newest(config)
            reads.append(newest)
            if len(reads) == 1:
                await settle(other, "And me", "Twice ", "cancelled", 2)
            return newest

        monkeypatch.setattr(agent._checkpointer, "aget_tuple", read_and_be_overtaken)
        await settle(agent, "Tell me", "Once ", "interrupted", 1)
    assert [turn.content for turn in await agent.history(T)] == [*known, "And me", "Twice ", "Tell me", "Once "]


async def test_a_stream_that_died_before_the_first_checkpoint_keeps_the_users_message(agent: ChatAgent) -> None:
    await settle(agent, "Tell me", "", "interrupted")
    assert await shown(agent) == [("human", "Tell me", None), ("ai", "", "interrupted")]
    assert await answer_of(agent, "Again", "h2") == "Hello world"


async def test_a_late_settle_puts_the_text_where_it_belongs(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    streamed = await first_text(agent, "Tell me", "h1")
    await answer_of(agent, "Never mind", "h2")
    await settle(agent, "Tell me", streamed, "cancelled", 1)
    assert [(turn.content, turn.outcome) for turn in await agent.history(T)] == [
        ("Tell me", None),
        ("Once ", "cancelled"),
        ("Never mind", None),
        ("Hello world", None),
    ]
    assert await answer_of(agent, "Go on", "h3") == "Hello world"
    assert [m["content"] for m in server.requests[-1].messages] == [
        "Tell me",
        "Once ",
        "Never mind",
        "Hello world",
        "Go on",
    ]


async def test_a_process_that_woke_up_too_late_cannot_bury_newer_turns(
    agent: ChatAgent, opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], server: OpenAIServer
) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    async with aclosing(agent.reply(T, "h1", "Tell me")) as pieces:
        assert await anext(pieces) == TextPiece("Once ")
        async with opened() as other:
            await settle(other, "Tell me", "Once ", "interrupted")
            assert await answer_of(other, "Go on", "h2") == "Hello world"
            server.release()
            with pytest.raises(StaleCheckpoint):
                await read(pieces, [])
    assert [turn.content for turn in await agent.history(T)] == ["Tell me", "Once ", "Go on", "Hello world"]


async def test_a_settle_waits_for_the_reply_that_is_under_way_but_not_for_ever(
    agent: ChatAgent, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    async with aclosing(agent.reply(T, "h2", "Go on")) as pieces:
        assert await anext(pieces) == TextPiece("Once ")
        late = asyncio.create_task(settle(agent, "Tell me", "Early", "cancelled", 1))
        await asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(chat, "BUSY_WAIT_S", 0.01)
            with pytest.raises(ThreadBusy):
                await agent.delete(T)
            with pytest.raises(ThreadBusy):
                await answer_of(agent, "Me too", "h3")
        assert not late.done()
        server.release()
        assert [piece async for piece in pieces] == [TextPiece("upon")]
    await late
    assert [t.content for t in await agent.history(T)] == ["Go on", "Once upon", "Tell me", "Early"]


async def test_other_threads_do_not_wait(agent: ChatAgent, server: OpenAIServer) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    async with aclosing(agent.reply("another", "h1", "Tell me")) as pieces:
        await anext(pieces)
        assert await answer_of(agent, "Hello") == "Hello world"


# ------------------------------------------------------------------------------------------ delete


async def test_a_deleted_thread_is_gone(agent: ChatAgent) -> None:
    assert await agent.history(T) == []
    await answer_of(agent, "Hello")
    await agent.delete(T)
    assert await agent.history(T) == []
    await agent.delete(T)
    assert await answer_of(agent, "Hello") == "Hello world"


async def test_a_reply_that_outlived_its_thread_does_not_bring_it_back(
    agent: ChatAgent, opened: Callable[[], AbstractAsyncContextManager[ChatAgent]], server: OpenAIServer
) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    async with aclosing(agent.reply(T, "h1", "Tell me")) as pieces:
        await anext(pieces)
        async with opened() as other:
            await other.delete(T)
        server.release()
        with pytest.raises(StaleCheckpoint):
            await read(pieces, [])
    assert await agent.history(T) == []


async def test_a_cancelled_write_leaves_the_checkpoints_usable(agent: ChatAgent) -> None:
    """Cancel at every await of a settle in turn: none may leave a transaction open."""
    for steps in range(60):
        task = asyncio.create_task(settle(agent, "Tell me", f"Once {steps}", "cancelled"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await settle(agent, "Tell me", "Once upon", "cancelled")
    assert await shown(agent) == [("human", "Tell me", None), ("ai", "Once upon", "cancelled")]


async def test_checkpoints_do_not_grow_with_the_square_of_a_thread(agent: ChatAgent, count_rows: CountRows) -> None:
    await pieces_of(agent, "Hello", "h0")
    after_one = count_rows()
    for number in range(1, 6):
        await answer_of(agent, "Hello", f"h{number}")
        await settle(agent, "Hello", "Hello world!", "cancelled", number)
    await answer_of(agent, "Hello", "h6")
    assert count_rows() == after_one
    assert after_one["checkpoints"] == 2
    assert len(await agent.history(T)) == 14


async def test_plain_messages_are_kept(agent: ChatAgent) -> None:
    """What is stored is LangChain's own, so that LangGraph's tools can read it."""
    await settle(agent, "Tell me", "Once", "cancelled")
    state = await agent._graph.aget_state({"configurable": {"thread_id": T}})
    ending = state.values["messages"][-1]
    assert type(ending) is AIMessage
    assert ending.additional_kwargs == {"playhead": {"stream_id": "s1", "outcome": "cancelled"}}
