"""What a graph yields, as events and back. Pure.

    ("research:1f…",), "messages", (AIMessageChunk, metadata)
        ⇅
    messages   {"ns": ["research:1f…"], "data": [{"lc": 1, "id": [… "AIMessageChunk"], "kwargs": …}, {…}]}

LangChain's own ``dumpd`` and ``load`` do it; only message classes and documents are ever made when reading, whatever
the stored data says. Everything else comes back as the JSON it can be (see ``storable``).
"""

import warnings
from typing import Any, NamedTuple

from langchain_core._api.beta_decorator import LangChainBetaWarning
from langchain_core.load import dumpd, load
from langgraph.types import Interrupt

from playhead.model import Draft, Event, event

from .storable import LOADABLE, storable

MESSAGES = "messages"
_INTERRUPT = "__interrupt__"

with warnings.catch_warnings():  # it says "beta" once in a process: here, where nobody is told
    warnings.simplefilter("ignore", LangChainBetaWarning)
    load(None, allowed_objects=LOADABLE)


class GraphPart(NamedTuple):
    """One thing that a run yields.

    Attributes:
        mode: the stream mode: ``messages``, ``updates``, ``custom``, ``values`` …
        ns: the subgraph it comes from, a path of ``node:task id``; () is the graph itself.
        data: of ``messages`` a pair: the message or chunk, and its metadata.
    """

    mode: str
    ns: tuple[str, ...]
    data: Any


def recorded(part: GraphPart) -> Draft:
    """A part as an event for a source to yield."""
    return event(part.mode, {"ns": list(part.ns), "data": dumpd(storable(part.data))})


def part_of(recorded: Event) -> GraphPart:
    """The part that an event was made of: messages and documents as objects, interrupts too.

    Raises: ValueError when the event is not one of a graph's.
    """
    value = recorded.json()
    if not isinstance(value, dict) or value.keys() != {"ns", "data"}:
        raise ValueError(f"event {recorded.offset} ({recorded.type}) was not recorded from a graph")
    data = load(value["data"], allowed_objects=LOADABLE)
    if recorded.type == MESSAGES:
        data = tuple(data)
    elif isinstance(data, dict) and isinstance(data.get(_INTERRUPT), list):
        data[_INTERRUPT] = tuple(Interrupt(**interrupt) for interrupt in data[_INTERRUPT])
    return GraphPart(recorded.type, tuple(value["ns"]), data)
