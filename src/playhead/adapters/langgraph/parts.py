"""What a graph yields, as events and back. Pure.

    ("research:1f…",), "messages", (AIMessageChunk, metadata)
        ⇅
    messages   {"ns": ["research:1f…"], "data": [{"lc": 1, "id": [… "AIMessageChunk"], "kwargs": …}, {…}]}

LangChain's own ``dumpd`` and ``Reviver`` do it; only message classes and documents are ever made when reading, whatever
the stored data says. Everything else comes back as the JSON it can be (see ``storable``).
"""

from typing import Any, NamedTuple

from langchain_core.load import dumpd
from langchain_core.load.load import Reviver
from langgraph.types import Interrupt

from playhead.model import Draft, Event, event

from .storable import LOADABLE, storable

MESSAGES = "messages"
_INTERRUPT = "__interrupt__"

_ESCAPED = "__lc_escaped__"
_revive = Reviver(allowed_objects=LOADABLE)
"""As ``langchain_core.load.load`` has it; that one works out anew each time what is allowed: most of its time."""


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
    data = _loaded(value["data"])
    if recorded.type == MESSAGES:
        data = tuple(data)
    elif isinstance(data, dict) and isinstance(data.get(_INTERRUPT), list):
        data[_INTERRUPT] = tuple(Interrupt(**interrupt) for interrupt in data[_INTERRUPT])
    return GraphPart(recorded.type, tuple(value["ns"]), data)


def _loaded(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ESCAPED}:
            return value[_ESCAPED]  # somebody's data that looks like an object: never made into one
        return _revive({key: _loaded(item) for key, item in value.items()})
    return [_loaded(item) for item in value] if isinstance(value, list) else value
