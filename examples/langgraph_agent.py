"""A LangGraph agent with a tool, whose answers are streams, in a conversation that survives being interrupted.

    python examples/langgraph_agent.py "/tool What time is it?"      # a demo model; OPENAI_API_KEY for a real one
    python examples/langgraph_agent.py "/long 300 Tell me more"      # press Ctrl-C while it talks
    python examples/langgraph_agent.py "Go on"                       # what it had said is in the conversation

Needs: pip install 'playhead[chat]'
"""

import asyncio
import os
import sys
from typing import Any

from langchain_core.messages import ToolMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from playhead import Event, Playhead
from playhead.adapters.langgraph import part_of, reasoning_of, start_graph, text_of, tool_call_chunks_of
from playhead.agents import choose_model
from playhead.agents.clock import clock

DIRECTORY = os.environ.get("EXAMPLE_DIRECTORY", ".")
CONVERSATION: Any = {"configurable": {"thread_id": "langgraph-demo"}}


def build(saver: AsyncSqliteSaver) -> Any:
    """A model that may ask for the time."""
    environment = {name: os.environ.get(f"OPENAI_{name.upper()}") for name in ("api_key", "base_url", "model")}
    model = choose_model(**environment).bind_tools([clock])

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def route(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_node("tools", ToolNode([clock]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", route, ["tools", END])
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


def show(event: Event) -> None:
    """Print what an event adds: words, thoughts, calls of tools and their results."""
    print(reasoning_of(event) + text_of(event), end="", flush=True)
    if event.type != "messages":
        return
    for call in tool_call_chunks_of(event):
        if call["name"]:
            print(f"[{call['name']}…] ", end="", flush=True)
    message, _ = part_of(event).data
    if isinstance(message, ToolMessage):
        print(f"[{message.name}: {message.text}] ", end="", flush=True)


async def main(question: str) -> None:
    async with (
        AsyncSqliteSaver.from_conn_string(f"{DIRECTORY}/checkpoints.db") as saver,
        Playhead.open(f"sqlite:///{DIRECTORY}/streams.db") as playhead,
    ):
        graph = build(saver)
        info = await start_graph(playhead, graph, {"messages": [("user", question)]}, CONVERSATION)
        tail = playhead.tail(info.stream_id)
        try:
            async for event in tail:
                show(event)
        except asyncio.CancelledError:
            await playhead.cancel(info.stream_id)
            await playhead.wait(info.stream_id)
            print("\n[cancelled]", end="")
            raise
        finally:
            state = await graph.aget_state(CONVERSATION)
            print(f"\n[{len(state.values['messages'])} messages in the conversation]")
        assert tail.outcome is not None
        print(f"[{tail.outcome.kind}{': ' + tail.outcome.error if tail.outcome.error else ''}]")


if __name__ == "__main__":
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "/tool What time is it?"))
    except KeyboardInterrupt:
        sys.exit(130)
