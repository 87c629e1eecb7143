"""Graphs as durable streams: every mode comes back as it was; a cancel stops all of it and keeps what was said."""

import asyncio
import operator
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import anyio
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt
from openai_server import Answer, OpenAIServer, ToolCall
from provider_fixtures import make_store, patient_playhead  # noqa: F401 - fixtures
from streaming import finished, follow, has_stored, say, until

from playhead import Event, OutcomeKind, Playhead
from playhead.adapters.langgraph import GraphPart, part_of, recorded, running, start_graph, stream_graph, text_of
from playhead.adapters.langgraph.partial import PARTIAL
from playhead.adapters.langgraph.tool_calls import INTERRUPTED

T: RunnableConfig = {"configurable": {"thread_id": "t1"}}
ALL_MODES = ["messages", "updates", "custom", "values"]


@pytest.fixture(autouse=True)
def _long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stopped run had said is kept, and checkpoints are waited for, however long the machine stalls."""
    monkeypatch.setattr(running, "_KEEP_S", 60.0)
    monkeypatch.setattr(running, "_STORED_S", 60.0)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def model(server: OpenAIServer) -> ChatOpenAI:
    return ChatOpenAI(base_url=server.url, api_key="any", model="local", streaming=True, stream_chunk_timeout=None)


@pytest.fixture(params=["memory", "sqlite"])
async def saver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
    else:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            yield saver


class Ends:
    """What ran to its end, whichever it was: the names of nodes whose ``finally`` ran."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @asynccontextmanager
    async def noted(self, name: str) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.names.append(name)


@tool
async def clock() -> str:
    """Tell the time."""
    get_stream_writer()({"progress": "looking"})
    return "noon"


def chat_graph(model: ChatOpenAI, saver: Any = None, tools: Any = (clock,), ends: Ends | None = None) -> Any:
    """A model that may call tools."""
    ends = ends or Ends()

    async def agent(state: MessagesState) -> dict[str, Any]:
        async with ends.noted("agent"):
            return {"messages": [await model.bind_tools(tools).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode(list(tools)))
    graph.add_edge(START, "agent")
    calls = lambda state: "tools" if state["messages"][-1].tool_calls else END  # noqa: E731
    graph.add_conditional_edges("agent", calls, ["tools", END])
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


def nested_graph(model: ChatOpenAI, saver: Any = None, ends: Ends | None = None) -> Any:
    """The chat graph in a graph in a graph, called from a node's code at the first level."""
    ends = ends or Ends()
    inner = chat_graph(model, ends=ends)

    async def ask(state: MessagesState) -> dict[str, Any]:
        async with ends.noted("ask"):
            return {"messages": (await inner.ainvoke(state))["messages"][len(state["messages"]) :]}

    middle = StateGraph(MessagesState)
    middle.add_node("ask", ask)
    middle.add_edge(START, "ask")
    outer = StateGraph(MessagesState)
    outer.add_node("research", middle.compile())
    outer.add_edge(START, "research")
    return outer.compile(checkpointer=saver)


def plain(value: Any) -> Any:
    """Tuples as lists, so that what JSON has no word for compares equal."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


async def both(playhead: Playhead, graph: Any, asked: Any = "Hello", **how: Any) -> tuple[list[GraphPart], list[Event]]:
    """What a run yields, as it was and as it was recorded."""
    live: list[GraphPart] = []

    async def source() -> AsyncIterator[Any]:
        async for part in stream_graph(graph, {"messages": [("user", asked)]}, T, **how):
            live.append(part)
            yield recorded(part)

    info = await playhead.start(source)
    events = await follow(playhead, info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    return live, events


def said(events: list[Event]) -> str:
    return "".join(text_of(event) for event in events)


async def thread(graph: Any) -> list[tuple[str, str]]:
    """The messages in the thread's state."""
    return [(message.type, str(message.text)) for message in (await graph.aget_state(T)).values["messages"]]


# ------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("subgraphs", [True, False])
async def test_every_mode_comes_back_as_it_was(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, subgraphs: bool
) -> None:
    calling = Answer("Let me ", "look. ", tool_calls=(ToolCall("clock", ("{", "}"), "call_7"),))
    server.answer(calling, Answer("It is ", "noon é日🛹."))
    live, events = await both(playhead, nested_graph(model), stream_mode=ALL_MODES, subgraphs=subgraphs)
    assert [plain(part_of(event)) for event in events] == plain(live)
    assert {event.type for event in events} == set(ALL_MODES) if subgraphs else {"messages", "updates", "values"}
    for event, part in zip(events, live, strict=True):
        if event.type == "messages":
            message, metadata = part_of(event).data
            assert type(message) is type(part.data[0])
            assert metadata["langgraph_node"] == part.data[1]["langgraph_node"]
    depths = {len(part_of(event).ns) for event in events}
    assert depths == ({0, 1, 2} if subgraphs else {0})
    if subgraphs:
        assert said(events) == "Let me look. It is noon é日🛹."
        assert {"progress": "looking"} in [part_of(event).data for event in events if event.type == "custom"]


async def test_three_lines_make_a_graph_durable(playhead: Playhead, server: OpenAIServer, model: ChatOpenAI) -> None:
    info = await start_graph(playhead, chat_graph(model), {"messages": [("user", "Hello")]}, owner="ann")
    events = await follow(playhead, info.stream_id, principal="ann")
    assert said(events) == "Hello world"
    assert (info.thread_id, info.owner) == (None, "ann")
    assert {event.type for event in events} == {"messages", "updates"}


async def test_a_run_is_on_its_threads_stream_and_has_the_thread_for_itself(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI
) -> None:
    server.answer(Answer("Once ", hold_after_chunks=1))
    graph = chat_graph(model, InMemorySaver())
    first = await start_graph(playhead, graph, {"messages": [("user", "One")]}, T, metadata={"a": 1})
    assert (first.thread_id, first.metadata["a"]) == ("t1", 1)
    await server.until(lambda: bool(server.requests))
    second = await start_graph(playhead, graph, {"messages": [("user", "Two")]}, T, supersede=True)
    assert (await finished(playhead, first.stream_id)).kind is OutcomeKind.CANCELLED
    assert said(await follow(playhead, second.stream_id)) == "Hello world"
    assert (await thread(graph))[-2:] == [("human", "Two"), ("ai", "Hello world")]


async def test_a_start_that_is_repeated_runs_the_graph_once(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI
) -> None:
    graph = chat_graph(model, InMemorySaver())
    asked = {"messages": [("user", "Hello")]}
    starts = [await start_graph(playhead, graph, asked, T, idempotency_key="k") for _ in range(3)]
    assert len({info.stream_id for info in starts}) == 1
    await follow(playhead, starts[0].stream_id)
    assert len(server.requests) == 1


async def test_an_interrupt_comes_back_and_is_answered_in_the_next_stream(playhead: Playhead) -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"You chose {interrupt({'choose': ['a', 'b']})}.")]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").compile(InMemorySaver())
    info = await start_graph(playhead, graph, {"messages": [("user", "Hello")]}, T)
    updates = [part_of(e).data for e in await follow(playhead, info.stream_id) if e.type == "updates"]
    held = (await graph.aget_state(T)).interrupts
    assert updates == [{"__interrupt__": held}]
    assert held[0].value == {"choose": ["a", "b"]}
    info = await start_graph(playhead, graph, Command(resume="b"), T)
    assert said(await follow(playhead, info.stream_id)) == "You chose b."


async def test_context_and_durability_reach_the_graph(playhead: Playhead) -> None:
    class Context(TypedDict):
        name: str

    async def greet(state: MessagesState, runtime: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(f"Hello {runtime.context['name']}")]}

    from langgraph.runtime import Runtime

    greet.__annotations__["runtime"] = Runtime[Context]
    graph = StateGraph(MessagesState, Context).add_node("greet", greet).add_edge(START, "greet")
    compiled = graph.compile(InMemorySaver())
    options = {"context": {"name": "Ann"}, "durability": "sync"}
    info = await start_graph(playhead, compiled, {"messages": [("user", "x")]}, T, graph_options=options)
    assert said(await follow(playhead, info.stream_id)) == "Hello Ann"


# ------------------------------------------------------------------------- what is shown is in the thread


class HeldSaver(InMemorySaver):
    """A checkpointer that does not get a step stored before it is let go."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._held_step = step
        self.let_go = asyncio.Event()

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> RunnableConfig:
        if metadata["step"] == self._held_step:
            await self.let_go.wait()
        return await super().aput(config, checkpoint, metadata, new_versions)


def speaking_graph(saver: Any, spoken: list[str]) -> Any:
    """Two nodes that say a word each, one event of the mode ``custom``."""

    def node(word: str) -> Any:
        async def speak(state: MessagesState) -> dict[str, Any]:
            get_stream_writer()(word)
            spoken.append(word)
            return {"messages": [AIMessage(word)]}

        return speak

    builder = StateGraph(MessagesState).add_node("first", node("one")).add_node("second", node("two"))
    return builder.add_edge(START, "first").add_edge("first", "second").compile(saver)


ASKED = {"messages": [("user", "Hello")]}


@pytest.mark.parametrize("held_step", [0, 1])
async def test_nothing_of_a_step_is_shown_before_what_it_answers_is_stored(playhead: Playhead, held_step: int) -> None:
    """Else, when the process is killed right then, readers have an answer whose question is in no thread."""
    saver, spoken = HeldSaver(held_step), list[str]()
    graph = speaking_graph(saver, spoken)
    info = await start_graph(playhead, graph, ASKED, T, "custom")
    await has_stored(playhead, info.stream_id, held_step)
    await until(lambda: len(spoken) > held_step)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(has_stored(playhead, info.stream_id, held_step + 1), 0.5)
    saver.let_go.set()
    assert [part_of(event).data for event in await follow(playhead, info.stream_id)] == ["one", "two"]
    assert await thread(graph) == [("human", "Hello"), ("ai", "one"), ("ai", "two")]


async def test_a_checkpoint_that_does_not_get_stored_does_not_hold_the_answer_for_ever(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "_STORED_S", 0.05)
    saver = HeldSaver(0)
    info = await start_graph(playhead, speaking_graph(saver, []), ASKED, T, "custom")
    await has_stored(playhead, info.stream_id, 1)
    assert "the checkpoint of a graph is not stored after 0.05 s" in caplog.text
    saver.let_go.set()
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED


async def test_whoever_chooses_a_durability_has_it(playhead: Playhead) -> None:
    saver = HeldSaver(0)
    options = {"durability": "async"}
    info = await start_graph(playhead, speaking_graph(saver, []), ASKED, T, "custom", graph_options=options)
    await has_stored(playhead, info.stream_id, 1)
    saver.let_go.set()
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED


async def test_a_cancel_before_the_question_is_stored_leaves_the_question(playhead: Playhead) -> None:
    saver, spoken = HeldSaver(0), list[str]()
    graph = speaking_graph(saver, spoken)
    info = await start_graph(playhead, graph, ASKED, T, "custom")
    await until(lambda: bool(spoken))
    await playhead.cancel(info.stream_id)
    saver.let_go.set()
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    state = await graph.aget_state(T)
    assert (await thread(graph))[0] == ("human", "Hello")
    assert state.next == ()


@pytest.mark.parametrize("how", ["as a node", "from a node's code"])
async def test_a_subgraph_that_keeps_nothing_runs_like_any_other(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, how: str
) -> None:
    """LangGraph has such a one fail under ``durability="sync"``."""
    builder = StateGraph(MessagesState).add_node("ask", chat_graph(model, saver=False))
    if how == "from a node's code":
        inner = chat_graph(model, saver=False)

        async def ask(state: MessagesState) -> dict[str, Any]:
            return {"messages": (await inner.ainvoke(state))["messages"]}

        builder = StateGraph(MessagesState).add_node("ask", ask)
    graph = builder.add_edge(START, "ask").compile(InMemorySaver())
    info = await start_graph(playhead, graph, ASKED, T)
    assert said(await follow(playhead, info.stream_id)) == "Hello world"
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.COMPLETED
    assert await thread(graph) == [("human", "Hello"), ("ai", "Hello world")]


# ------------------------------------------------------------------------------------------ events of others


async def test_events_of_others_are_no_parts(playhead: Playhead) -> None:
    info = await playhead.start(say("text", {"ns": [], "other": 1}))
    for event in await follow(playhead, info.stream_id):
        assert text_of(event) == ""
        with pytest.raises(ValueError, match=r"not recorded from a graph|Expecting value"):
            part_of(event)


# ----------------------------------------------------------------------------------------- cancel


async def test_a_cancel_stops_graph_and_subgraphs_and_the_models_request(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    ends = Ends()
    server.answer(Answer("Once ", "upon ", "a time", hold_after_chunks=2))
    graph = nested_graph(model, saver, ends)
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    await has_stored(playhead, info.stream_id, 2)
    await playhead.cancel(info.stream_id)
    events = await follow(playhead, info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert ends.names == ["agent", "ask"]
    await server.until(lambda: server.requests[0].disconnected)
    assert said(events) == "Once upon "
    # What was read is in the thread, and nothing is left to be run.
    assert await thread(graph) == [("human", "Tell me"), ("ai", "Once upon ")]
    state = await graph.aget_state(T)
    assert (state.next, state.values["messages"][-1].response_metadata) == ((), PARTIAL)
    info = await start_graph(playhead, graph, {"messages": [("user", "Go on")]}, T)
    assert said(await follow(playhead, info.stream_id)) == "Hello world"
    assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Once upon ", "Go on"]


async def test_a_cancel_reaches_what_a_node_runs_in_an_anyio_scope(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI
) -> None:
    ends = Ends()
    inner = chat_graph(model, ends=ends)

    async def beside() -> None:
        async with ends.noted("beside"):
            await anyio.sleep_forever()

    async def node(state: MessagesState) -> dict[str, Any]:
        async with ends.noted("node"), anyio.create_task_group() as group:
            group.start_soon(beside)
            return {"messages": (await inner.ainvoke(state))["messages"]}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile(InMemorySaver())
    server.answer(Answer("Once ", "upon ", hold_after_chunks=1))
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    await has_stored(playhead, info.stream_id, 1)
    await playhead.cancel(info.stream_id)
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    assert sorted(ends.names) == ["agent", "beside", "node"]
    await server.until(lambda: server.requests[0].disconnected)
    assert await thread(graph) == [("human", "Tell me"), ("ai", "Once ")]


async def test_a_cancel_before_the_first_word_leaves_a_usable_thread(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    server.answer(Answer(hold_after_chunks=0))
    graph = chat_graph(model, saver)
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    await server.until(lambda: bool(server.requests))
    await playhead.cancel(info.stream_id)
    await follow(playhead, info.stream_id)
    assert await thread(graph) == [("human", "Tell me")]
    assert (await graph.aget_state(T)).next == ()
    await follow(playhead, (await start_graph(playhead, graph, {"messages": [("user", "Again")]}, T)).stream_id)
    assert await thread(graph) == [("human", "Tell me"), ("human", "Again"), ("ai", "Hello world")]


async def test_a_cancel_while_a_tool_runs_answers_its_call(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    """The server refuses a conversation with an open call, as the real one does."""
    started, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> str:
        """Never come back."""
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    server.answer(Answer("Let me look. ", tool_calls=(ToolCall("hang"),)))
    graph = chat_graph(model, saver, tools=(hang,))
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    async with asyncio.timeout(60):
        await started.wait()
    await playhead.cancel(info.stream_id)
    assert said(await follow(playhead, info.stream_id)) == "Let me look. "
    assert ended.is_set()
    said_before = [("human", "Tell me"), ("ai", "Let me look. "), ("tool", INTERRUPTED)]
    assert await thread(graph) == said_before
    await follow(playhead, (await start_graph(playhead, graph, {"messages": [("user", "Go on")]}, T)).stream_id)
    assert await thread(graph) == [*said_before, ("human", "Go on"), ("ai", "Hello world")]


async def test_what_parallel_nodes_had_finished_is_kept_once(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    class State(MessagesState):
        notes: Annotated[list[str], operator.add]

    quick_done = asyncio.Event()

    async def quick(state: State) -> dict[str, Any]:
        # A model whose words are not for the thread, and a message that is.
        answer = await model.ainvoke("note this")
        quick_done.set()
        return {"notes": [str(answer.text)], "messages": [AIMessage("Quick.", id="q")]}

    async def slow(state: State) -> dict[str, Any]:
        await quick_done.wait()
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(State).add_node("quick", quick).add_node("slow", slow)
    graph = builder.add_edge(START, "quick").add_edge(START, "slow").compile(saver)
    server.answer(Answer("note"), Answer("Slow ", "words", hold_after_chunks=1))
    info = await start_graph(playhead, graph, {"messages": [("user", "Both")]}, T)
    await server.until(lambda: len(server.requests) == 2)
    async with asyncio.timeout(60):
        async for event in playhead.tail(info.stream_id):
            if text_of(event) == "Slow ":
                break
    await playhead.cancel(info.stream_id)
    await follow(playhead, info.stream_id)
    state = await graph.aget_state(T)
    assert (state.values["notes"], state.next) == (["note"], ())
    assert await thread(graph) == [("human", "Both"), ("ai", "Quick."), ("ai", "Slow ")]


async def test_what_would_have_come_next_is_dropped(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    async def write(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState).add_node("draft", write).add_node("review", write)
    graph = builder.add_edge(START, "draft").add_edge("draft", "review").compile(saver)
    server.answer(Answer("Once ", "upon", hold_after_chunks=1))
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    await has_stored(playhead, info.stream_id, 1)
    await playhead.cancel(info.stream_id)
    await follow(playhead, info.stream_id)
    assert await thread(graph) == [("human", "Tell me"), ("ai", "Once ")]
    assert (await graph.aget_state(T)).next == ()
    assert await follow(playhead, (await start_graph(playhead, graph, None, T)).stream_id) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("reducer", ["none", "add"])
@pytest.mark.parametrize("durability", ["async", "sync", "exit"])
async def test_lists_of_messages_of_every_kind_keep_what_they_held(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any, reducer: str, durability: str
) -> None:
    class Replaced(TypedDict):
        messages: list[Any]

    class Added(TypedDict):
        messages: Annotated[list[Any], operator.add]

    async def agent(state: Any) -> dict[str, Any]:
        answer = [await model.ainvoke(state["messages"])]
        return {"messages": answer if reducer == "add" else [*state["messages"], *answer]}

    state: Any = Added if reducer == "add" else Replaced
    graph: Any = StateGraph(state).add_node("agent", agent).add_edge(START, "agent").compile(saver)
    options: dict[str, Any] = {"graph_options": {"durability": durability}}
    server.answer(Answer("One"), Answer("Tw", "o", hold_after_chunks=1))
    asked = {"messages": [HumanMessage("First")]}
    await follow(playhead, (await start_graph(playhead, graph, asked, T, **options)).stream_id)
    held = (await graph.aget_state(T)).values["messages"]
    asked = {"messages": [*([] if reducer == "add" else held), HumanMessage("Second")]}
    info = await start_graph(playhead, graph, asked, T, **options)
    await server.until(lambda: len(server.requests) == 2)
    await has_stored(playhead, info.stream_id, 1)
    await playhead.cancel(info.stream_id)
    await follow(playhead, info.stream_id)
    assert await thread(graph) == [("human", "First"), ("ai", "One"), ("human", "Second"), ("ai", "Tw")]


async def test_a_graph_that_was_not_compiled_is_refused_at_once(playhead: Playhead) -> None:
    with pytest.raises(TypeError, match=r"graph\.compile\(\)"):
        await start_graph(playhead, StateGraph(MessagesState), {})  # type: ignore[arg-type]


async def test_a_cancel_is_obeyed_and_kept_at_any_instant(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI
) -> None:
    """Whenever it comes: the thread holds exactly what the stream has said, and the next turn works."""
    graph = nested_graph(model, InMemorySaver())
    for attempt in range(25):
        config: RunnableConfig = {"configurable": {"thread_id": f"t{attempt}"}}
        server.answer(Answer(*["word "] * 30, hold_after_chunks=25))
        info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, config)
        async with asyncio.timeout(60):
            while len(server.requests) <= attempt or server.requests[attempt].chunks_sent < attempt:  # noqa: ASYNC110
                await asyncio.sleep(0)
            for _ in range(attempt % 7):
                await asyncio.sleep(0)
            await playhead.cancel(info.stream_id)
        shown = said(await follow(playhead, info.stream_id))
        assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
        state = await graph.aget_state(config)
        kept = "".join(str(m.text) for m in state.values["messages"] if isinstance(m, AIMessage))
        assert kept.startswith(shown)
        assert state.next == ()
        await server.until(lambda attempt=attempt: server.requests[attempt].disconnected)


@pytest.mark.parametrize("keeps", ["no checkpointer", "no messages", "not asked for"])
async def test_where_nothing_can_be_kept_a_cancel_is_a_cancel(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, keeps: str
) -> None:
    class Question(TypedDict):
        question: str
        answer: str

    async def answer(state: Question) -> dict[str, Any]:
        return {"answer": str((await model.ainvoke(state["question"])).text)}

    server.answer(Answer("Once ", hold_after_chunks=1))
    if keeps == "no messages":
        graph: Any = StateGraph(Question).add_node("a", answer).add_edge(START, "a").compile(InMemorySaver())
        asked: Any = {"question": "Tell me"}
    else:
        graph = chat_graph(model, None if keeps == "no checkpointer" else InMemorySaver())
        asked = {"messages": [("user", "Tell me")]}
    info = await start_graph(playhead, graph, asked, T, keeps_partial=keeps != "not asked for")
    await has_stored(playhead, info.stream_id, 1)
    await playhead.cancel(info.stream_id)
    assert said(await follow(playhead, info.stream_id)) == "Once "
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.CANCELLED
    if keeps == "not asked for":
        assert await thread(graph) == [("human", "Tell me")]


# ------------------------------------------------------------------------------- failures and deaths


async def test_a_run_that_failed_can_be_taken_up_again(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    server.answer(Answer("Once ", "upon ", reset_after_chunks=1))
    graph = chat_graph(model, saver)
    info = await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)
    assert said(await follow(playhead, info.stream_id)) == "Once "
    assert (await finished(playhead, info.stream_id)).kind is OutcomeKind.FAILED
    info = await start_graph(playhead, graph, None, T)
    assert said(await follow(playhead, info.stream_id)) == "Hello world"
    assert await thread(graph) == [("human", "Tell me"), ("ai", "Hello world")]


async def test_a_new_turn_after_a_failure_keeps_what_was_said(
    playhead: Playhead, server: OpenAIServer, model: ChatOpenAI, saver: Any
) -> None:
    server.answer(Answer("Once ", "upon ", reset_after_chunks=1))
    graph = chat_graph(model, saver)
    await follow(playhead, (await start_graph(playhead, graph, {"messages": [("user", "Tell me")]}, T)).stream_id)
    await follow(playhead, (await start_graph(playhead, graph, {"messages": [("user", "Go on")]}, T)).stream_id)
    assert await thread(graph) == [("human", "Tell me"), ("ai", "Once "), ("human", "Go on"), ("ai", "Hello world")]
    assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Once ", "Go on"]


async def test_a_key_in_a_models_refusal_is_not_shown(playhead: Playhead, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(state: MessagesState) -> dict[str, Any]:
        raise RuntimeError("Incorrect API key provided: sk-proj-0123456789abcdef")

    graph = StateGraph(MessagesState).add_node("a", refuse).add_edge(START, "a").compile()
    info = await start_graph(playhead, graph, {"messages": [("user", "x")]})
    outcome = await finished(playhead, info.stream_id)
    assert (outcome.kind, outcome.error) == (OutcomeKind.FAILED, "RuntimeError: Incorrect API key provided: ***")
    assert "0123456789abcdef" not in caplog.text


async def test_other_errors_say_what_they_are(playhead: Playhead) -> None:
    async def divide(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(1 // 0))]}

    graph = StateGraph(MessagesState).add_node("a", divide).add_edge(START, "a").compile()
    info = await start_graph(playhead, graph, {"messages": [("user", "x")]})
    error = (await finished(playhead, info.stream_id)).error
    assert error.startswith("ZeroDivisionError: ")


def test_kinds_of_messages_are_told_apart() -> None:
    chunk: list[BaseMessage] = [
        AIMessageChunk("a"),
        AIMessage("b"),
        HumanMessage("c"),
        ToolMessage("d", tool_call_id="1"),
    ]
    assert [text_of(message) for message in chunk] == ["a", "b", "", ""]
    assert text_of((chunk[0], {})) == text_of(GraphPart("messages", (), (chunk[0], {}))) == "a"
    assert text_of(GraphPart("values", (), {"messages": [chunk[0]]})) == ""
