"""Thread ids in queries and paths."""

from typing import Annotated
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, Field

THREAD_ID_MAX_CHARACTERS = 1_000


def _canonical(thread_id: str) -> str:
    """A UUID in its usual form; anything else is a thread that others named."""
    try:
        return str(UUID(thread_id))
    except ValueError:
        return thread_id


def _printable(thread_id: str) -> str:
    if not thread_id.isprintable():
        raise ValueError("a thread id is printable text, a UUID for example")
    return thread_id


NewThreadId = Annotated[
    str,
    Field(min_length=1, max_length=THREAD_ID_MAX_CHARACTERS),
    AfterValidator(_printable),
    AfterValidator(_canonical),
]
ThreadId = Annotated[str, Query(max_length=THREAD_ID_MAX_CHARACTERS), AfterValidator(_canonical)]
PathThreadId = Annotated[str, Path(max_length=THREAD_ID_MAX_CHARACTERS), AfterValidator(_canonical)]
