"""Values of a graph as something that LangChain's serializer keeps and gives back. Pure.

messages, documents            as they are (subclasses of an app's own: as the class that they extend)
dict, list, str, numbers       as they are; tuples and sets are lists
pydantic models, dataclasses   dicts of their fields
enums, dates, ids, paths       their value, their text
bytes                          base64
anything else                  its ``repr``, shortened
"""

import base64
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.load import dumpd
from langchain_core.load.serializable import Serializable
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel

LOADABLE: tuple[type[Serializable], ...] = (
    *(AIMessage, AIMessageChunk, HumanMessage, HumanMessageChunk, SystemMessage, SystemMessageChunk),
    *(ToolMessage, ToolMessageChunk, ChatMessage, ChatMessageChunk, FunctionMessage, FunctionMessageChunk),
    *(RemoveMessage, Document),
)
"""The classes that reading may make: values, which do nothing when they are made."""

_REPR_MAX_CHARACTERS = 1_000


def storable(value: Any) -> Any:
    """The value with everything in it as this module's head says."""
    if value is None or isinstance(value, str | bool | int):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # as JSON has it everywhere
    if isinstance(value, Mapping):
        return _storable_dict({str(key): storable(item) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return storable(value._asdict())
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence | Set):
        return [storable(item) for item in value]
    if isinstance(value, BaseModel):
        return _storable_model(value)
    if is_dataclass(value) and not isinstance(value, type):
        return storable({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, Enum):
        return storable(value.value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal | PurePath):
        return str(value)
    return repr(value)[:_REPR_MAX_CHARACTERS]


def _storable_model(value: BaseModel) -> Any:
    kind = next((base for base in type(value).__mro__ if base in LOADABLE), None)
    names = (kind or type(value)).model_fields
    kept = {name: storable(getattr(value, name)) for name in names}
    if kind is None:
        return storable({**kept, **(value.model_extra or {})})
    return kind.model_construct(**kept)


def _storable_dict(kept: dict[str, Any]) -> dict[str, Any]:
    # LangChain keeps a dict that looks like its own form of an object word for word: no object may be inside.
    if "lc" in kept or kept.keys() == {"__lc_escaped__"}:
        return {key: _plain(item) for key, item in kept.items()}
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, Serializable):
        return dumpd(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
