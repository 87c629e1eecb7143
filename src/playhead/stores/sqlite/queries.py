"""What the reader's thread is asked, one function each: short read transactions that see all that is committed."""

import sqlite3
from collections.abc import Callable

from playhead.entry import unpack
from playhead.errors import StreamNotFound
from playhead.log import check_readable
from playhead.model import Batch, Page, StreamInfo
from playhead.store import PAGE_MAX_BYTES, Query
from playhead.stores.sqlite import rows
from playhead.stores.sqlite.schema import OFFSET_BITS, OFFSET_MAX

ORPHANS_MAX = 1_000

_ENTRIES = "SELECT place, epoch, entry FROM entries WHERE place > ? AND place < ? ORDER BY place"
_PRODUCERS = """
    SELECT id FROM instances
    UNION SELECT producer FROM streams WHERE status = 'live' AND producer IS NOT NULL"""
# Producers that are proven dead, or (when that counts too) that hold no lease
_ORPHANS = f"""
    SELECT {rows.COLUMNS} FROM {rows.SOURCE}
    WHERE s.status = 'live' AND s.producer != :own AND (
        s.producer IN (SELECT value FROM json_each(:dead))
        OR (NOT :proven AND NOT EXISTS (SELECT 1 FROM instances WHERE id = s.producer AND expires_at > :now)))
    ORDER BY s.no LIMIT {ORPHANS_MAX}"""
_DUE = f"SELECT {rows.COLUMNS} FROM {rows.SOURCE} WHERE s.due_at <= ? ORDER BY s.due_at LIMIT ?"


def load(connection: sqlite3.Connection, stream_id: str) -> StreamInfo:
    return _row(connection, stream_id).info


def read(connection: sqlite3.Connection, stream_id: str, after: int) -> Page:
    connection.execute("BEGIN")  # state and entries of one moment
    no, _, info = _row(connection, stream_id)
    check_readable(info)
    batches: list[Batch] = []
    size_bytes = 0
    if after < info.tail:
        place = no << OFFSET_BITS
        for last, epoch, entry in connection.execute(_ENTRIES, (place | max(after, 0), place + OFFSET_MAX + 1)):
            size_bytes += len(entry)
            if batches and size_bytes > PAGE_MAX_BYTES:
                break
            batches.append(unpack(last & OFFSET_MAX, epoch, entry))
    return Page(batches, info)


def find(connection: sqlite3.Connection, query: Query) -> list[StreamInfo]:
    where, parameters = ["1"], []
    if query.status is not None:
        where.append(f"s.status = '{query.status.value}'")  # a literal, or the partial indexes are not used
    if query.settled is not None:
        where.append(f"s.settled = {int(query.settled)}")
    if query.owner is not None:
        # A thread has fewer streams than an owner: the plus leaves the choice to the thread's index
        where.append("s.owner = ?" if query.thread_ids is None else "+s.owner = ?")
        parameters.append(rows.column(query.owner))
    if query.thread_ids is not None and len(query.thread_ids) == 1:
        where.append("s.thread_id = ?")
        parameters.append(rows.column(query.thread_ids[0]))
    elif query.thread_ids is not None:
        where.append("s.thread_id IN (SELECT value FROM json_each(?))")
        parameters.append(rows.columns(query.thread_ids))
    if query.before is not None:
        where.append("s.no < (SELECT no FROM streams WHERE id = ?)")
        parameters.append(rows.column(query.before))
    statement = f"SELECT {rows.COLUMNS} FROM {rows.SOURCE} WHERE {' AND '.join(where)} ORDER BY s.no DESC LIMIT ?"
    return [rows.Row.of(values).info for values in connection.execute(statement, (*parameters, query.limit))]


def dead(connection: sqlite3.Connection, is_dead: Callable[[str], bool]) -> list[str]:
    """Which instances, of those with a lease or a live stream, are certainly dead."""
    return [producer for (producer,) in connection.execute(_PRODUCERS) if is_dead(producer)]


def orphans(connection: sqlite3.Connection, own: str, known_dead: list[str], now: float, *, proven: bool) -> list[str]:
    parameters = {"own": own, "dead": rows.columns(known_dead), "now": now, "proven": proven}
    return [rows.Row.of(values).info.stream_id for values in connection.execute(_ORPHANS, parameters)]


def due(connection: sqlite3.Connection, now: float, limit: int) -> list[str]:
    return [rows.Row.of(values).info.stream_id for values in connection.execute(_DUE, (now, limit))]


def _row(connection: sqlite3.Connection, stream_id: str) -> rows.Row:
    row = rows.by_id(connection, stream_id)
    if row is None:
        raise StreamNotFound("there is no such stream", stream_id=stream_id)
    return row
