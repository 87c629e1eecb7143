"""The agent's checkpoints, on SQLite and on PostgreSQL: the fence, deletion, what a turn costs, what goes wrong."""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.base import empty_checkpoint
from openai_server import Answer, OpenAIServer, ToolCall

from playhead.agents import (
    ChatAgent,
    DemoChatModel,
    DemoModelError,
    StaleCheckpoint,
    TextPiece,
    build_graph,
    choose_model,
    open_agent,
)
from playhead.agents.checkpoints import FencedSaver, FencedSqliteSaver, open_checkpoints
from playhead.errors import InvalidSetting, StoreUnavailable
from playhead.model import OutcomeKind

pytest_plugins = ["agents_places"]

T = "thread"
AT_T = RunnableConfig(configurable={"thread_id": T, "checkpoint_ns": ""})
CountRows = Callable[..., dict[str, int]]


@pytest.fixture
def server() -> AsyncIterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
async def saver(place: str) -> AsyncIterator[FencedSaver]:
    async with open_checkpoints(place) as saver:
        yield saver


def demo(saver: FencedSaver) -> ChatAgent:
    return ChatAgent(build_graph(DemoChatModel(default_pace_ms=0), saver), saver)


async def say(agent: ChatAgent, text: str, number: int, thread_id: str = T) -> str:
    pieces = agent.reply(thread_id, f"h{number}", text)
    return "".join([piece.text async for piece in pieces if isinstance(piece, TextPiece)])


async def put(saver: FencedSaver, on: RunnableConfig, **values: Any) -> RunnableConfig:
    """Store a checkpoint with these new values on top of another one."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = values or {"messages": ["hello"]}
    versions = {name: saver.get_next_version(None, None) for name in checkpoint["channel_values"]}
    checkpoint["channel_versions"] = dict(versions)
    return await saver.aput(on, checkpoint, {}, versions)


# --------------------------------------------------------------------------------------- the fence


async def test_of_many_writers_on_one_checkpoint_one_wins(place: str) -> None:
    newest: RunnableConfig = AT_T
    for _ in range(3):
        async with AsyncExitStack() as stack:
            savers = [await stack.enter_async_context(open_checkpoints(place)) for _ in range(4)]
            for _ in range(4):
                tries = [put(saver, newest) for saver in savers * 3]
                results = await asyncio.gather(*tries, return_exceptions=True)
                assert [type(result) for result in results].count(StaleCheckpoint) == len(tries) - 1
                [newest] = [result for result in results if isinstance(result, dict)]
                found = await savers[0].aget_tuple(AT_T)
                assert found is not None
                assert found.config["configurable"] == newest["configurable"]


async def test_a_look_and_its_write_are_one_transaction_from_the_first_one_on(tmp_path: Path) -> None:
    async with open_checkpoints(tmp_path / "checkpoints.sqlite") as saver:
        assert isinstance(saver, FencedSqliteSaver)
        statements: list[str] = []
        saver.conn.set_trace_callback(statements.append)
        base = await put(saver, AT_T)
        first = [statement.split()[0] for statement in statements]
        assert (first[:2], first[-2:]) == (["BEGIN", "SELECT"], ["INSERT", "COMMIT"])
        assert first.count("COMMIT") == 1
        statements.clear()
        await saver.adelete_thread(T)
        with pytest.raises(StaleCheckpoint):
            await put(saver, base)
        assert statements[-1] == "ROLLBACK"


async def test_a_checkpoint_that_races_with_a_deletion_never_survives_it(place: str, count_rows: CountRows) -> None:
    async with open_checkpoints(place) as one, open_checkpoints(place) as other:
        for round_ in range(30):
            base = await put(one, AT_T)
            putting = put(one, base)
            writing = one.aput_writes(base, [("messages", "written")], "task")
            deleting = other.adelete_thread(T)
            order = [putting, deleting, writing] if round_ % 2 else [deleting, putting, writing]
            for result in await asyncio.gather(*order, return_exceptions=True):
                assert not isinstance(result, BaseException) or isinstance(result, StaleCheckpoint)
            assert set(count_rows().values()) == {0}


async def test_what_a_task_wrote_does_not_outlive_its_thread(saver: FencedSaver, count_rows: CountRows) -> None:
    there = await put(saver, AT_T)
    await saver.aput_writes(there, [("messages", "written")], "task")
    found = await saver.aget_tuple(AT_T)
    assert found is not None
    assert found.pending_writes == [("task", "messages", "written")]
    await saver.adelete_thread(T)
    await saver.aput_writes(there, [("messages", "written late")], "task")
    assert set(count_rows().values()) == {0}


async def test_the_same_checkpoint_may_be_stored_again(saver: FencedSaver) -> None:
    base = await put(saver, AT_T)
    checkpoint = empty_checkpoint()
    once = await saver.aput(base, checkpoint, {}, {})
    assert await saver.aput(base, checkpoint, {}, {}) == once


# ---------------------------------------------------------------------------------------- deletion


@pytest.mark.parametrize("when", ["in the first answer", "in a later answer", "in a tool"])
async def test_a_thread_deleted_under_a_reply_elsewhere_stays_deleted(
    place: str, server: OpenAIServer, count_rows: CountRows, when: str
) -> None:
    in_tool, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def clock() -> str:
        """Wait."""
        in_tool.set()
        await go_on.wait()
        return "noon"

    async with open_checkpoints(place) as saver, open_checkpoints(place) as other_saver:
        model = choose_model(base_url=server.url)
        agent = ChatAgent(build_graph(model, saver, [clock]), saver)
        other = ChatAgent(build_graph(model, other_saver), other_saver)
        await say(agent, "Hello", 0, "kept")
        kept = count_rows()
        if when == "in a later answer":
            await say(agent, "Hello", 0)
        if when == "in a tool":
            server.answer(Answer("Once ", tool_calls=(ToolCall("clock"),)))
        else:
            server.answer(Answer("Once ", "upon", hold_after_chunks=1))
        async with aclosing(agent.reply(T, "h1", "Tell me")) as pieces:
            assert await anext(pieces) == TextPiece("Once ")
            rest = asyncio.create_task(_all(pieces))
            if when == "in a tool":
                await asyncio.wait_for(in_tool.wait(), 60)
            await other.delete(T)
            assert set(count_rows(T).values()) == {0}
            go_on.set()
            server.release()
            with pytest.raises(StaleCheckpoint):
                await rest
        assert set(count_rows(T).values()) == {0}
        assert count_rows() == kept
        assert await agent.history(T) == []


async def _all(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


REPLYING = """
import asyncio, sys
from playhead.agents import StaleCheckpoint, choose_model, open_agent

async def main(place, url, thread_id):
    async with open_agent(place, choose_model(base_url=url)) as agent:
        try:
            async for piece in agent.reply(thread_id, "h1", "Tell me"):
                print(piece, flush=True)
        except StaleCheckpoint:
            print("refused", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_thread_deleted_under_a_reply_in_another_process_stays_deleted(
    place: str, server: OpenAIServer, count_rows: CountRows
) -> None:
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", REPLYING, place, server.url, T, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"Once " in await process.stdout.readline()
        async with open_agent(place, DemoChatModel()) as agent:
            await agent.delete(T)
        server.release()
        said, _ = await process.communicate()
    assert said.splitlines()[-1] == b"refused"
    assert process.returncode == 0
    assert set(count_rows().values()) == {0}


# ---------------------------------------------------------------------------------- what a turn costs


@pytest.fixture
def calls(saver: FencedSaver, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what reaches the database."""
    counted: Counter[str] = Counter()

    def count(name: str) -> None:
        method: Callable[..., Awaitable[Any]] = getattr(saver, name)

        async def counting(*args: Any) -> Any:
            counted[name] += 1
            return await method(*args)

        monkeypatch.setattr(saver, name, counting)

    for name in ("aget_tuple", "_store", "_store_writes"):
        count(name)
    return counted


async def test_a_turn_is_one_read_and_one_write_and_settling_it_one_read(
    saver: FencedSaver, calls: Counter[str]
) -> None:
    agent = demo(saver)
    await say(agent, "hello", 0)
    assert calls == {"aget_tuple": 1, "_store": 2}  # a new thread: what a deletion takes away, and the answer
    calls.clear()
    answer = await say(agent, "hello", 1)
    assert calls == {"aget_tuple": 1, "_store": 1}
    calls.clear()
    await agent.settle(T, "s1", "h1", "hello", answer, OutcomeKind.COMPLETED)
    assert calls == {"aget_tuple": 1}
    calls.clear()
    await say(agent, "/tool", 2)
    assert calls == {"aget_tuple": 1, "_store": 3}  # the call, the result, the answer


async def test_a_reply_that_fails_keeps_the_question(saver: FencedSaver) -> None:
    agent = demo(saver)
    await say(agent, "hello", 0)
    with pytest.raises(DemoModelError):
        await say(agent, "/error", 1)
    assert [turn.content for turn in await agent.history(T)][2:] == ["/error"]
    with pytest.raises(DemoModelError):
        await say(agent, "/error", 1)
    await say(agent, "never mind", 2)
    assert [turn.content for turn in await agent.history(T)][2:4] == ["/error", "never mind"]


async def test_a_failing_reply_that_was_overtaken_tells_its_own_error(place: str) -> None:
    async with open_checkpoints(place) as saver, open_checkpoints(place) as other:
        agent = demo(saver)
        await say(agent, "hello", 0)
        async with aclosing(agent.reply(T, "h1", "/pace 10 /error")) as pieces:
            await anext(pieces)
            await say(demo(other), "me too", 2)
            with pytest.raises(DemoModelError):
                await _all(pieces)
        assert [turn.content for turn in await demo(other).history(T)][2] == "me too"


async def test_what_is_held_back_is_stored_with_what_follows(saver: FencedSaver) -> None:
    base = await put(saver, AT_T)
    async with saver.replying(T):
        question, answer = empty_checkpoint(), empty_checkpoint()
        new = {"messages": saver.get_next_version(None, None)}
        question["channel_values"] = {"messages": [HumanMessage("hello")]}
        question["channel_versions"] = dict(new)
        held = await saver.aput(base, question, {}, new)
        found = await saver.aget_tuple(AT_T)
        assert found is not None
        assert found.config["configurable"] == base["configurable"]
        new = {"answer": saver.get_next_version(None, None)}
        answer["channel_values"] = {"messages": [HumanMessage("hello"), AIMessage("hi")], "answer": ["hi"]}
        answer["channel_versions"] = {**question["channel_versions"], **new}
        stored = await saver.aput(held, answer, {}, new)
    found = await saver.aget_tuple(AT_T)
    assert found is not None
    assert found.config["configurable"] == stored["configurable"]
    assert found.parent_config is not None
    assert found.parent_config["configurable"] == base["configurable"]
    assert found.checkpoint["channel_values"] == answer["channel_values"]


@pytest.mark.parametrize("text", ["\0", "\U0001f600 \r\n\u202eabc", "'; DROP TABLE checkpoints; --", "%s"])
async def test_any_text_survives(saver: FencedSaver, text: str) -> None:
    agent = demo(saver)
    await agent.settle(T, "s1", "h1", text, text, OutcomeKind.CANCELLED)
    assert [turn.content for turn in await agent.history(T)] == [text, text]


# ------------------------------------------------------------------------------------ opening, closing


async def test_many_may_open_a_new_place_at_once(place: str) -> None:
    async with AsyncExitStack() as stack:
        opening = [stack.enter_async_context(open_checkpoints(place)) for _ in range(6)]
        savers = await asyncio.gather(*opening)
        newest: RunnableConfig = AT_T
        for saver in savers:
            newest = await put(saver, newest)


async def test_processes_may_open_a_new_place_at_once(place: str) -> None:
    program = REPLYING.replace("choose_model(base_url=url)", "DemoChatModel(default_pace_ms=0)")
    program = program.replace("choose_model,", "DemoChatModel,")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, place, "", f"thread {number}", stdout=asyncio.subprocess.PIPE
        )
        for number in range(3)
    ]
    async with asyncio.timeout(60):
        for process in processes:
            said, _ = await process.communicate()
            assert (process.returncode, b"TextPiece" in said) == (0, True)


async def test_what_was_begun_is_finished_before_the_place_is_closed(place: str) -> None:
    async with open_checkpoints(place) as saver:
        putting = asyncio.create_task(put(saver, AT_T))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        putting.cancel()
        await asyncio.wait([putting])
        assert putting.cancelled()
    async with open_checkpoints(place) as saver:
        assert await saver.aget_tuple(AT_T) is not None


async def test_a_write_that_is_refused_after_a_cancel_is_no_mishap(
    saver: FencedSaver, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a thread is deleted under a reply: nobody waits for the refusal, and nobody is alarmed by it."""
    gc.collect()
    caplog.clear()  # of what earlier tests left behind
    stale = await put(saver, AT_T)
    await put(saver, stale)
    putting = asyncio.create_task(put(saver, stale))
    await asyncio.sleep(0)
    (writing,) = saver._under_way
    putting.cancel()
    await asyncio.wait([putting, writing])
    assert putting.cancelled()
    del putting, writing  # what nobody asked for its error complains when it goes
    gc.collect()
    assert not caplog.records


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "not in mysql://"),
        ("sqlite:///x.db", "not in sqlite://"),
        ("postgresql://me:secret@local host:x y/db", "none that PostgreSQL understands"),
    ],
)
async def test_a_place_that_cannot_be_meant_is_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said) as refused:
        async with open_checkpoints(url):
            pass
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", ["garbage", "directory", "no directory"])
async def test_a_file_that_cannot_be_opened_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "missing" / "file" if kind == "no directory" else tmp_path / "file"
    if kind == "garbage":
        path.write_bytes(b"not a database " * 1000)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(StoreUnavailable, match=f"the agent's file {path} cannot be opened: ") as refused:
        async with open_checkpoints(path):
            pass
    assert "\n" not in str(refused.value)


# --------------------------------------------------------------------------------------- PostgreSQL


@pytest.mark.parametrize("kind", ["nobody listens", "no such database", "read-only"])
async def test_a_database_that_cannot_be_opened_is_named_in_one_line(database: str, tmp_path: Path, kind: str) -> None:
    name = database.partition("@/")[2].partition("?")[0]
    url = {
        "nobody listens": f"postgresql://me:secret@/{name}?host={tmp_path}",
        "no such database": database.replace(name, "nowhere"),
        "read-only": f"{database}&options=-c%20default_transaction_read_only%3Don",
    }[kind]
    with pytest.raises(StoreUnavailable, match=r"the agent's checkpoints in PostgreSQL at .* cannot be opened") as no:
        async with open_checkpoints(url):
            pass
    assert "\n" not in str(no.value)
    assert "secret" not in str(no.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
async def test_the_usual_schemes_are_understood(database: str, scheme: str) -> None:
    async with open_checkpoints(database.replace("postgresql", scheme)) as saver:
        await put(saver, AT_T)


async def test_connections_stay_few(database: str) -> None:
    async with open_checkpoints(database) as saver, await psycopg.AsyncConnection.connect(database) as watching:
        agent = demo(saver)
        await asyncio.gather(*[say(agent, "/long 5", 0, f"thread {number}") for number in range(20)])
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'playhead'"
        [count] = await (await watching.execute(query)).fetchone() or [0]
        assert 1 <= count <= 5


async def test_cancels_in_the_middle_of_a_command_leave_the_pool_whole(database: str) -> None:
    """More callers than there are connections, stopped by a lock in the database."""
    async with open_checkpoints(database) as saver, await psycopg.AsyncConnection.connect(database) as blocking:
        base = await put(saver, AT_T)
        await blocking.execute("LOCK TABLE checkpoints")
        putting = [asyncio.create_task(put(saver, base)) for _ in range(8)]
        reading = [asyncio.create_task(saver.aget_tuple(AT_T)) for _ in range(4)]
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'playhead' AND wait_event_type = 'Lock'"
        async with asyncio.timeout(60), await psycopg.AsyncConnection.connect(database, autocommit=True) as watching:
            while (await (await watching.execute(query)).fetchone() or [0])[0] < 1:  # noqa: ASYNC110 - in the server
                await asyncio.sleep(0.01)
        for task in (*putting, *reading):
            task.cancel()
        await asyncio.wait([*putting, *reading])
        assert all(task.cancelled() for task in (*putting, *reading))
        await blocking.rollback()
        await saver.finish()
        found = await saver.aget_tuple(AT_T)
        assert found is not None
        assert found.parent_config is not None
        assert found.parent_config["configurable"] == base["configurable"]  # one of the eight, by the fence
        await asyncio.gather(
            *[put(saver, {"configurable": {"thread_id": f"{n}", "checkpoint_ns": ""}}) for n in range(9)]
        )


async def test_connections_that_were_cut_are_replaced(database: str) -> None:
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'playhead' AND pid <> pg_backend_pid()"
    )
    async with open_checkpoints(database) as saver, await psycopg.AsyncConnection.connect(database) as other:
        base = await put(saver, AT_T)
        assert await (await other.execute(cut)).fetchone() != (0,)
        await put(saver, base)


async def test_a_database_that_prefers_old_snapshots_does_not_open_the_fence(database: str) -> None:
    name = database.partition("@/")[2].partition("?")[0]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    await test_of_many_writers_on_one_checkpoint_one_wins(database)
