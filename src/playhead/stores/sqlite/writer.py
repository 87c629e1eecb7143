"""The one thread of this process that writes.

It takes everything that waits, in order, and makes it ONE transaction and one hand-over to the loop. So the number of
commits adapts by itself: one append at a time when it is quiet, hundreds per commit when it is not.

    queue:   append a1 · append b1 · append a2 · apply c · append a3
             └──────── heads once, rows once ───┘ └ in turn ┘

An append or a command that the rules refuse fails alone. An error of the driver fails the whole transaction.

Most transactions go a short way: nothing but appends to streams whose heads are known from the ones before. Then
the rules are asked first, and one guarded statement stores all batches if every stream is still at that head. If one
is not (another process, a command) nothing is stored, and the long way is taken, which loads the heads.
Each statement less counts: while it runs another thread has the interpreter, and may keep it for milliseconds.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from playhead.errors import BadRequest, PlayheadError, StreamTooLarge
from playhead.log import Command, Create, Facts, Head, decide, decide_append
from playhead.model import Batch, Status
from playhead.store import Applied, StoreOptions
from playhead.stores.sqlite import rows
from playhead.stores.sqlite.faults import named
from playhead.stores.sqlite.presence import Presence
from playhead.stores.sqlite.schema import OFFSET_BITS, OFFSET_MAX, Database
from playhead.stores.sqlite.worker import Answer, Deliver, News, Worker

ITEMS_MAX = 512
BYTES_MAX = 8 * 1024 * 1024
CHECKPOINT_BYTES = 4 * 1024 * 1024
# Measured share of the WAL: about one page a transaction and half a page an entry, beside the entry itself
_WAL_PER_COMMIT_BYTES = 8192
_WAL_PER_ENTRY_BYTES = 2048
_PURGE_BYTES = 1024 * 1024

_HEADS = f"""
    SELECT w.key, s.no, s.version, s.status = 'live', s.epoch, e.place, e.total_bytes
    FROM json_each(?) AS w CROSS JOIN streams AS s ON s.id = w.value
         LEFT JOIN entries AS e ON e.place = {rows.LAST_PLACE}"""
_STORE = "INSERT INTO entries (place, epoch, total_bytes, entry) VALUES (?, ?, ?, ?)"
# Stores all rows, if each stream is still what the rules were asked about: of this version, its last entry there
_STORE_GUARDED = f"""
    INSERT INTO entries (place, epoch, total_bytes, entry)
    SELECT * FROM (VALUES {{rows}}) WHERE NOT EXISTS (
        SELECT 1 FROM (VALUES {{heads}}) AS h LEFT JOIN streams AS s ON s.no = h.column1 AND s.version = h.column2
        WHERE s.no IS NULL OR h.column3 <> ifnull({rows.LAST_PLACE}, s.no << {OFFSET_BITS}))"""
_KNOWN_MAX = 20_000
_ALIVE = "SELECT 1 FROM instances WHERE id = ? AND expires_at > ?"
# The first entries of one stream, about a megabyte of them: what one short transaction may delete
_PURGE = f"""
    DELETE FROM entries WHERE seq IN (
        SELECT seq FROM entries
        WHERE place > :no << {OFFSET_BITS} AND place < :no + 1 << {OFFSET_BITS}
              AND total_bytes <= {_PURGE_BYTES} + (
                  SELECT total_bytes FROM entries
                  WHERE place > :no << {OFFSET_BITS} AND place < :no + 1 << {OFFSET_BITS} ORDER BY place LIMIT 1)
        ORDER BY place LIMIT :limit)"""


class Append(NamedTuple):
    """A batch that waits to be stored."""

    stream_id: str
    epoch: int
    batch: Batch
    entry: bytes
    done: "asyncio.Future[None]"


class Task(NamedTuple):
    """Anything else that waits to be written: done in the transaction, it returns the answer."""

    work: "Callable[[Writer], Any]"
    done: "asyncio.Future[Any]"


class _Known(NamedTuple):
    """What the writer knows of a stream that is appended to."""

    no: int
    version: int
    head: Head


class Writer(Worker[Append | Task]):
    """See the module. ``connection`` and ``news`` are for the tasks, while their transaction is open."""

    connection: sqlite3.Connection
    news: list[News]

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Database,
        presence: Presence,
        options: StoreOptions,
        clock: Callable[[], float],
        deliver: Deliver,
        checkpoint: Callable[[], None],
    ) -> None:
        super().__init__("writer", loop)
        self._database = database
        self._presence = presence
        self._options = options
        self._clock = clock
        self._deliver = deliver
        self._checkpoint = checkpoint
        self._answers: list[Answer] = []
        self._known: dict[str, _Known] = {}
        self._written_bytes = 0

    # ---- tasks ---------------------------------------------------------------------------------------

    def apply(self, stream_id: str, command: Command) -> Applied:
        row = rows.by_id(self.connection, stream_id)
        if isinstance(command, Create) and command.idempotency_key is not None:
            row = rows.by_request(self.connection, command.owner, command.idempotency_key) or row
        state = row.info if row else None
        new = decide(stream_id, state, command, self._facts(row, command))
        if new is state:
            assert state is not None
            return Applied(state, changed=False)
        if new is not None:
            self._known.pop(new.stream_id, None)
            mark = rows.put(self.connection, row, new)
            if row and new.status is Status.EXPIRED:
                rows.discard_entries(self.connection, row)
            self.news.append(News(stream_id, None, new, mark))
            return Applied(new, changed=True)
        assert row is not None
        self._known.pop(row.info.stream_id, None)
        rows.forget(self.connection, row)
        self.news.append(News(stream_id, None, None, rows.NOTHING))
        return Applied(row.info, changed=True)

    def purge(self, limit: int) -> int:
        """One short step: entries of one forgotten stream."""
        while limit > 0 and (found := self.connection.execute("SELECT no FROM garbage LIMIT 1").fetchone()):
            freed = self.connection.execute(_PURGE, {"no": found[0], "limit": limit}).rowcount
            if freed:
                return freed
            self.connection.execute("DELETE FROM garbage WHERE no = ?", found)
        return 0

    def forget_instances(self, instance_ids: Sequence[str]) -> None:
        self.connection.execute(
            "DELETE FROM instances WHERE id IN (SELECT value FROM json_each(?))", (rows.columns(instance_ids),)
        )

    def _facts(self, row: rows.Row | None, command: Command) -> Facts:
        now = self._clock()
        if not isinstance(command, Create):
            return Facts(now, producer_alive=row is not None and self._is_alive(row.info.producer, now))
        if row is not None:
            return Facts(now)
        on_thread = None if command.thread_id is None else rows.live_on_thread(self.connection, command.thread_id)
        return Facts(
            now,
            live_on_thread=on_thread.info.stream_id if on_thread else None,
            live_of_owner=0
            if command.live_per_owner_max is None
            else rows.live_of_owner(self.connection, command.owner),
        )

    def _is_alive(self, producer: str | None, now: float) -> bool:
        if producer is None:
            return False
        return self.connection.execute(_ALIVE, (rows.column(producer), now)).fetchone() is not None

    # ---- the thread ----------------------------------------------------------------------------------

    def _set_up(self) -> None:
        try:
            self._database.prepare()
            # SQLite's own waiting backs off to 100 ms, and a busy neighbour would be ahead each time: see _begin
            self.connection = self._database.patiently(lambda: self._database.connect(busy_timeout_s=0))
            self._presence.begin()
        except (sqlite3.Error, OSError) as error:
            raise named(error, self._database.path) from error

    def _tear_down(self) -> None:
        self._presence.end()
        if hasattr(self, "connection"):
            self.connection.close()

    def _serve(self) -> None:
        is_last = False
        while not is_last:
            items, is_last = self._take()
            if items:
                self._transact(items)
                self.turns.done(len(items))

    def _take(self) -> tuple[list[Append | Task], bool]:
        """All that waits, within bounds, and whether it is the last."""
        items: list[Append | Task] = []
        size_bytes = 0
        while True:
            item = self.queue.get()
            if item is None:
                return items, True
            items.append(item)
            if isinstance(item, Append):
                size_bytes += len(item.entry)
            if self.queue.empty() or len(items) >= ITEMS_MAX or size_bytes >= BYTES_MAX:
                return items, False

    def _transact(self, items: list[Append | Task]) -> None:
        self.news, self._answers = [], []
        self._written_bytes += _WAL_PER_COMMIT_BYTES
        try:
            if not self._append_guarded(items):
                self._take_the_long_way(items)
        except Exception as error:  # noqa: BLE001 - everybody who waits for this transaction is told
            self._roll_back()
            self._answers = [Answer(item.done, error=named(error, self._database.path)) for item in items]
        self._tell(self._deliver, self.news, self._answers)
        if self._written_bytes >= CHECKPOINT_BYTES:
            self._written_bytes = 0
            self._checkpoint()

    def _append_guarded(self, items: list[Append | Task]) -> bool:
        """The short way; False when nothing was stored because it cannot be taken."""
        heads: dict[str, _Known] = {}
        appends: list[Append] = []
        guards: list[int] = []
        stored: list[object] = []
        for item in items:
            known = None
            if isinstance(item, Append):
                known = heads.get(item.stream_id) or self._known.get(item.stream_id)
            if known is None or isinstance(item, Task):
                return False
            decided = self._decide(item, known)
            if isinstance(decided, PlayheadError):
                return False  # perhaps only by what was known
            if item.stream_id not in heads:
                guards += (known.no, known.version, known.no << OFFSET_BITS | known.head.tail)
            heads[item.stream_id], row = decided
            stored += row
            appends.append(item)
        statement = _STORE_GUARDED.format(rows=_lists("(?,?,?,?)", len(appends)), heads=_lists("(?,?,?)", len(heads)))
        try:
            # One statement is a transaction by itself.
            done = self._database.patiently(lambda: self.connection.execute(statement, [*stored, *guards]))
        except sqlite3.IntegrityError:  # a place is taken
            done = None
        if done is None or done.rowcount != len(appends):
            self._known.clear()
            return False
        self._known |= heads
        for append in appends:
            self._accept(append, heads[append.stream_id])
        return True

    def _take_the_long_way(self, items: list[Append | Task]) -> None:
        appends: list[Append] = []
        self._database.patiently(self._begin)
        for item in items:
            if isinstance(item, Append):
                appends.append(item)
                continue
            self._append(appends)
            appends = []
            self._carry_out(item)
        self._append(appends)
        self.connection.execute("COMMIT")

    def _begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def _append(self, appends: list[Append]) -> None:
        """Store what the rules let through; the heads of all streams are asked for once."""
        if not appends:
            return
        heads = self._heads({append.stream_id for append in appends})
        entries = []
        for append in appends:
            decided = self._decide(append, heads.get(append.stream_id))
            if isinstance(decided, PlayheadError):
                self._answers.append(Answer(append.done, error=decided))
                continue
            heads[append.stream_id], row = decided
            entries.append(row)
            self._accept(append, heads[append.stream_id])
        self.connection.executemany(_STORE, entries)
        if len(self._known) > _KNOWN_MAX:
            self._known.clear()
        self._known |= heads

    def _decide(
        self, append: Append, known: _Known | None
    ) -> "tuple[_Known, tuple[int, int, int, bytes]] | PlayheadError":
        """What the rules make of an append: the head after it and the row to store, or the refusal."""
        batch = append.batch
        try:
            head = decide_append(
                append.stream_id,
                known and known.head,
                epoch=append.epoch,
                first=batch.first,
                last=batch.last,
                size_bytes=batch.size_bytes,
                stream_max_bytes=self._options.stream_max_bytes,
            )
            assert known is not None
            if batch.last > OFFSET_MAX:
                raise StreamTooLarge(f"a stream may hold at most {OFFSET_MAX:,} events", limit=OFFSET_MAX)
        except PlayheadError as error:
            return error
        row = (known.no << OFFSET_BITS | batch.last, batch.epoch, head.size_bytes, append.entry)
        return _Known(known.no, known.version, head), row

    def _accept(self, append: Append, known: _Known) -> None:
        self._written_bytes += len(append.entry) + _WAL_PER_ENTRY_BYTES
        self._answers.append(Answer(append.done))
        mark = rows.Mark(known.no, known.version, append.batch.last)
        self.news.append(News(append.stream_id, append.batch, None, mark))

    def _heads(self, stream_ids: set[str]) -> "dict[str, _Known]":
        ids = list(stream_ids)
        found = self.connection.execute(_HEADS, (rows.columns(ids),)).fetchall()
        return {
            ids[index]: _Known(no, version, Head(bool(live), epoch, (place or 0) & OFFSET_MAX, total_bytes or 0))
            for index, no, version, live, epoch, place, total_bytes in found
        }

    def _carry_out(self, task: Task) -> None:
        try:
            result = task.work(self)
        except PlayheadError as error:
            self._answers.append(Answer(task.done, error=error))
        except (TypeError, ValueError, AttributeError) as error:
            # Words that no statement takes: the command's own fault, and nobody else's.
            self._answers.append(Answer(task.done, error=BadRequest(f"a command cannot be stored: {error}")))
        else:
            self._answers.append(Answer(task.done, result))

    def _roll_back(self) -> None:
        self._known.clear()
        self.news, self._answers = [], []
        # After some errors SQLite has rolled back already; a connection that cannot even do that fails the next time
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")


def _lists(one: str, count: int) -> str:
    return ",".join([one] * count)
