"""Producers that are killed while a provider answers: ``python provider_programs.py <program> <url> <directory>``."""

import asyncio
import sys
from pathlib import Path
from typing import Any

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI

from playhead import Playhead
from playhead.adapters.langgraph import start_graph
from playhead.adapters.openai import openai_responses

THREAD: Any = {"configurable": {"thread_id": "t1"}}


def stream_store(directory: Path) -> str:
    return f"sqlite:///{directory}/streams.db"


def chat_graph(url: str, saver: AsyncSqliteSaver) -> Any:
    model = ChatOpenAI(base_url=url, api_key="any", model="local", streaming=True, stream_chunk_timeout=None)

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return StateGraph(MessagesState).add_node("agent", agent).add_edge(START, "agent").compile(saver)


async def graph(url: str, directory: Path) -> None:
    """Run the graph on the thread."""
    async with (
        AsyncSqliteSaver.from_conn_string(str(directory / "checkpoints.db")) as saver,
        Playhead.open(stream_store(directory)) as playhead,
    ):
        await start_graph(playhead, chat_graph(url, saver), {"messages": [("user", "Tell me")]}, THREAD, stream_id="s1")
        await asyncio.Event().wait()


async def background(url: str, directory: Path) -> None:
    """Ask for a response in background mode."""
    async with AsyncOpenAI(base_url=url, api_key="any") as client, Playhead.open(stream_store(directory)) as playhead:
        source = openai_responses(client, model="local", input="Tell me", background=True)
        await playhead.start(source, stream_id="s1")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](sys.argv[2], Path(sys.argv[3])))
