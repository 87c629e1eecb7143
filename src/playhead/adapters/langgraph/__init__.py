"""Durable runs of LangGraph graphs: what ``astream`` yields, as typed events of a stream.

    from playhead.adapters.langgraph import start_graph, text_of

    info = await start_graph(playhead, graph, {"messages": [("user", "Hello")]}, config)
    async for event in playhead.tail(info.stream_id):
        print(text_of(event), end="")

An event's type is the stream mode (``messages``, ``updates``, ``custom``, ``values`` …), its data JSON::

    {"ns": ["research:…"], "data": …}      ns: which subgraph; [] is the graph itself

with LangChain's objects as LangChain writes them; ``part_of`` gives them back. A cancel of the stream stops graph,
subgraphs and the model's request, and what was said until then becomes part of the thread's state.
"""

try:
    import langchain_core as _langchain_core  # noqa: F401 - are they there?
    import langgraph as _langgraph  # noqa: F401
except ImportError as missing:
    raise ImportError(
        "playhead.adapters.langgraph needs LangGraph, which is not installed: pip install 'playhead[langgraph]'"
    ) from missing

from .parts import GraphPart, part_of, recorded
from .reading import reasoning_of, text_of, tool_call_chunks_of
from .running import start_graph, stream_graph
from .tool_calls import close_tool_calls

__all__ = [
    "GraphPart",
    "close_tool_calls",
    "part_of",
    "reasoning_of",
    "recorded",
    "start_graph",
    "stream_graph",
    "text_of",
    "tool_call_chunks_of",
]
