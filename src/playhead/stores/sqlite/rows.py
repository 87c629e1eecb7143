"""States as rows and back, and the statements about them."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from playhead.model import StreamInfo
from playhead.state import pack_state, unpack_state
from playhead.stores.sqlite.schema import OFFSET_BITS, OFFSET_MAX

LAST_PLACE = (
    f"(SELECT max(place) FROM entries WHERE place > s.no << {OFFSET_BITS} AND place < s.no + 1 << {OFFSET_BITS})"
)
"""The place of the newest entry of the stream ``s``, NULL when it has none."""

COLUMNS = "s.no, s.version, s.state, s.tail, s.size_bytes, e.place, e.total_bytes"
"""What ``Row.of`` needs, out of ``SOURCE``."""

SOURCE = f"streams AS s LEFT JOIN entries AS e ON s.status = 'live' AND e.place = {LAST_PLACE}"

FIRST_VERSION = 1
"""Of a stream that nothing has happened to since it was created."""

_BY_ID = f"SELECT {COLUMNS} FROM {SOURCE} WHERE s.id = ?"
_BY_REQUEST = f"SELECT {COLUMNS} FROM {SOURCE} WHERE s.request = ?"
_LIVE_ON_THREAD = f"SELECT {COLUMNS} FROM {SOURCE} WHERE s.status = 'live' AND s.thread_id = ?"
_INSERT = f"""
    INSERT INTO streams (status, producer, epoch, due_at, settled, tail, size_bytes, state,
                         version, id, thread_id, owner, request)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, {FIRST_VERSION}, ?, ?, ?, ?)"""
_UPDATE = """
    UPDATE streams SET status = ?, producer = ?, epoch = ?, due_at = ?, settled = ?, tail = ?, size_bytes = ?,
                       state = ?, version = version + 1
    WHERE no = ?"""


class Mark(NamedTuple):
    """Where a stream stood: grows with everything that happens to it, so that marks tell news from old."""

    no: int
    version: int
    tail: int


NOTHING = Mark(0, 0, 0)
"""The mark of a stream that is not there."""


class Row(NamedTuple):
    """A stream as it is stored."""

    no: int
    version: int
    info: StreamInfo

    @property
    def mark(self) -> Mark:
        return Mark(self.no, self.version, self.info.tail)

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Row":
        """Raises: StoreCorrupt."""
        no, version, state, tail, size_bytes, place, total_bytes = values
        if place is not None:
            tail, size_bytes = place & OFFSET_MAX, total_bytes
        return cls(no, version, unpack_state(state, tail, size_bytes))


def column(text: str | None) -> str | None:
    """Text as a column holds it: what SQLite cannot (lone surrogates, NUL) is written with a backslash."""
    if text is None or (text.isprintable() and "\\" not in text):
        return text
    return text.replace("\\", "\\\\").replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def columns(texts: Iterable[str]) -> str:
    """A list of texts as one parameter, for ``json_each``."""
    return json.dumps([column(text) for text in texts])


def by_id(connection: sqlite3.Connection, stream_id: str) -> Row | None:
    return _one(connection, _BY_ID, column(stream_id))


def by_request(connection: sqlite3.Connection, owner: str | None, key: str) -> Row | None:
    return _one(connection, _BY_REQUEST, _request(owner, key))


def live_on_thread(connection: sqlite3.Connection, thread_id: str) -> Row | None:
    return _one(connection, _LIVE_ON_THREAD, column(thread_id))


def live_of_owner(connection: sqlite3.Connection, owner: str | None) -> int:
    found = connection.execute(
        "SELECT count(*) FROM streams WHERE status = 'live' AND owner IS ?", (column(owner),)
    ).fetchone()
    return int(found[0])


def put(connection: sqlite3.Connection, old: Row | None, new: StreamInfo) -> Mark:
    """Write a new or changed state; its tail counts once it is no longer live."""
    changing = (
        new.status.value,
        column(new.producer),
        new.epoch,
        new.due_at,
        new.settled,
        new.tail,
        new.size_bytes,
        pack_state(new),
    )
    if old is not None:
        connection.execute(_UPDATE, (*changing, old.no))
        return Mark(old.no, old.version + 1, new.tail)
    request = None if new.idempotency_key is None else _request(new.owner, new.idempotency_key)
    kept = (column(new.stream_id), column(new.thread_id), column(new.owner), request)
    no = connection.execute(_INSERT, (*changing, *kept)).lastrowid
    assert no is not None
    return Mark(no, FIRST_VERSION, new.tail)


def forget(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute("DELETE FROM streams WHERE no = ?", (row.no,))
    discard_entries(connection, row)


def discard_entries(connection: sqlite3.Connection, row: Row) -> None:
    if row.info.tail:
        connection.execute("INSERT OR IGNORE INTO garbage (no) VALUES (?)", (row.no,))


def _one(connection: sqlite3.Connection, statement: str, parameter: str | None) -> Row | None:
    values = connection.execute(statement, (parameter,)).fetchone()
    return None if values is None else Row.of(values)


def _request(owner: str | None, key: str) -> str:
    return json.dumps([owner, key])
