"""The one thread of this process that reads, and looks for what other processes have committed.

The look is one for all that is watched: the file's change counter, and only when that has moved one query for all
streams, and one for what began on any thread. A stream that this process produces can be touched from outside by
commands only (a cancel request, a take-over), so its entries are not looked at, and while there are only such streams,
or threads, the look is less frequent. With nothing watched there is no look.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from queue import Empty
from typing import Any, NamedTuple

from playhead.stores.sqlite import rows
from playhead.stores.sqlite.faults import named
from playhead.stores.sqlite.schema import OFFSET_BITS, Database
from playhead.stores.sqlite.worker import Answer, Deliver, News, Worker

LOOK_S = 0.01
LOOK_OWN_S = 0.04
_LOOK_PAUSE_FACTOR = 5  # a look that took long is followed by a pause so many times as long
_LOOK_FAILED_PAUSE_S = 1.0
_GROUP_MAX = 4  # a look must not wait for many questions

# A row for each watched stream that is not as it was last seen: w.value is [id, no, version, last place or null]
_CHANGED = f"""
    SELECT w.key, {rows.COLUMNS}
    FROM json_each(?) AS w LEFT JOIN streams AS s ON s.id = json_extract(w.value, '$[0]')
         LEFT JOIN entries AS e ON s.status = 'live' AND e.place = {rows.LAST_PLACE}
    WHERE s.no IS NOT json_extract(w.value, '$[1]') OR s.version IS NOT json_extract(w.value, '$[2]')
          OR ifnull(json_extract(w.value, '$[3]') != {rows.LAST_PLACE}, 0)"""
_BEGUN = "SELECT no, thread_id FROM streams WHERE no > ? ORDER BY no"
_NEWEST = "SELECT ifnull(max(no), 0) FROM streams"
_logger = logging.getLogger("playhead.stores.sqlite")


class Question(NamedTuple):
    """Something to be read, in one transaction."""

    ask: Callable[[sqlite3.Connection], Any]
    done: "asyncio.Future[Any]"


class Watch(NamedTuple):
    """Start or stop to look at a stream."""

    stream_id: str
    is_wanted: bool


class WatchThread(NamedTuple):
    """Start or stop to look for streams that begin on a thread."""

    thread_id: str
    is_wanted: bool


class Begun(NamedTuple):
    """A thread may have streams up to this ``no`` that its watchers have not been told of."""

    thread_id: str
    no: int


_UNSEEN = rows.Mark(-1, -1, -1)  # unlike anything, so that the first look tells what is there, or that nothing is


class _Seen(NamedTuple):
    """How a watched stream was when last looked at; whether others may append to it."""

    mark: rows.Mark = _UNSEEN
    follows_entries: bool = False


class Reader(Worker[Question | Watch | WatchThread]):
    """See the module."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Database,
        own: str,
        deliver: Deliver,
        deliver_begun: Callable[[list[Begun]], None],
    ) -> None:
        super().__init__("reader", loop)
        self._database = database
        self._own = own
        self._deliver = deliver
        self._deliver_begun = deliver_begun
        self._seen: dict[str, _Seen] = {}
        self._watched: list[str] = []  # the order of ``_parameter``
        self._parameter: str | None = None
        self._threads: dict[str | None, str] = {}  # by how their column says it
        self._newest: int | None = None  # all streams up to this ``no`` have been told of
        self._data_version: int | None = None
        self._next_look_s = 0.0
        self._looks_fail = False

    def _set_up(self) -> None:
        try:
            self._connection = self._database.connect()
            self._connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise named(error, self._database.path) from error

    def _tear_down(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()

    def _serve(self) -> None:
        while True:
            wait_s = max(0.0, self._next_look_s - time.monotonic()) if self._seen or self._threads else None
            try:
                if not self._take(self.queue.get(timeout=wait_s)):
                    return
            except Empty:
                pass  # it is time to look
            if (self._seen or self._threads) and time.monotonic() >= self._next_look_s:
                self._look()

    # ---- questions -----------------------------------------------------------------------------------

    def _take(self, item: Question | Watch | WatchThread | None) -> bool:
        """This item and a few more that wait, in one hand-over. False when it was the last one."""
        answers: list[Answer] = []
        taken = 0
        while item is not None:
            taken += 1
            if isinstance(item, Question):
                answers.append(self._answer(item))
            elif isinstance(item, Watch):
                self._watch(item)
            else:
                self._watch_thread(item)
            if len(answers) >= _GROUP_MAX or self.queue.empty():
                break
            item = self.queue.get()
        if answers:
            self._tell(self._deliver, [], answers)
        self.turns.done(taken)
        return item is not None

    def _answer(self, question: Question) -> Answer:
        try:
            return Answer(question.done, question.ask(self._connection))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            return Answer(question.done, error=named(error, self._database.path))
        finally:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # it would fail the next question
                    self._connection.execute("ROLLBACK")

    # ---- the look ------------------------------------------------------------------------------------

    def _watch(self, item: Watch) -> None:
        self._parameter = None
        if item.is_wanted:
            self._seen[item.stream_id] = _Seen()
            self._data_version = None
        else:
            self._seen.pop(item.stream_id, None)

    def _watch_thread(self, item: WatchThread) -> None:
        column = rows.column(item.thread_id)
        if not item.is_wanted:
            self._threads.pop(column, None)
            return
        if not self._threads:
            self._newest = self._data_version = None
        self._threads[column] = item.thread_id

    def _look(self) -> None:
        started_s = time.monotonic()
        try:
            news, begun = self._news()
        except Exception:  # the next look tries again; whoever reads is told what is wrong
            if not self._looks_fail:
                _logger.exception("cannot see what others write to %s", self._database.path.name)
            self._looks_fail = True
            self._next_look_s = started_s + _LOOK_FAILED_PAUSE_S
            return
        self._looks_fail = False
        if news:
            self._tell(self._deliver, news, [])
        if begun:
            self._tell(self._deliver_begun, begun)
        ended_s = time.monotonic()
        pause_s = LOOK_OWN_S
        if any(seen.follows_entries for seen in self._seen.values()):
            pause_s = min(max(LOOK_S, _LOOK_PAUSE_FACTOR * (ended_s - started_s)), LOOK_OWN_S)
        self._next_look_s = ended_s + pause_s

    def _news(self) -> tuple[list[News], list[Begun]]:
        data_version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if data_version == self._data_version:
            return [], []
        changed = self._changed() if self._seen else []
        begun = self._begun() if self._threads else []
        self._data_version = data_version
        return changed, begun

    def _changed(self) -> list[News]:
        if self._parameter is None:
            self._watched = list(self._seen)
            self._parameter = json.dumps([self._last_seen(stream_id) for stream_id in self._watched])
        changed = self._connection.execute(_CHANGED, (self._parameter,)).fetchall()
        return [self._noticed(self._watched[index], values) for index, *values in changed]

    def _begun(self) -> list[Begun]:
        if self._newest is None:  # the first look: who watches may have come after anything that is there
            self._newest = self._connection.execute(_NEWEST).fetchone()[0]
            return [Begun(thread_id, self._newest) for thread_id in self._threads.values()]
        found = self._connection.execute(_BEGUN, (self._newest,)).fetchall()
        if found:
            self._newest = found[-1][0]
        return [Begun(self._threads[column], no) for no, column in found if column in self._threads]

    def _last_seen(self, stream_id: str) -> tuple[str | None, int, int, int | None]:
        (no, version, tail), follows_entries = self._seen[stream_id]
        place = no << OFFSET_BITS | tail if follows_entries else None
        return rows.column(stream_id), no, version, place

    def _noticed(self, stream_id: str, values: list[Any]) -> News:
        if values[0] is None:
            # Never taken for seen: it may come and go between two looks, and look the same. Watchers hear of it once.
            if self._seen[stream_id] != _Seen():
                self._seen[stream_id], self._parameter = _Seen(), None
            return News(stream_id, None, None, rows.NOTHING)
        self._parameter = None
        row = rows.Row.of(values)
        is_others = row.info.is_live and row.info.producer not in (None, self._own)
        self._seen[stream_id] = _Seen(row.mark, is_others)
        return News(stream_id, None, row.info, row.mark)
