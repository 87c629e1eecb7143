"""Threads: what may be asked of them and done to them. Every method takes the owner; strangers find nothing."""

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, case, delete, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from playhead.conversations.model import Entry, Part, Settled, Thread, ThreadPage
from playhead.conversations.schema import entries, threads
from playhead.errors import BadRequest, ThreadNotFound
from playhead.model import OutcomeKind

if TYPE_CHECKING:
    from playhead.conversations.database import Database

PREVIEW_CHARACTERS = 100
TITLE_MAX_CHARACTERS = 200
TOMBSTONES_KEPT_S = 30 * 86_400.0
ID_MAX_BYTES = 1_000
"""Of UTF-8. An index entry of PostgreSQL, which holds two ids, has at most 2,704 bytes."""
_MICROSECONDS = 1_000_000
AnyRow = Row[*tuple[Any, ...]]
_TOUCH_FACTS = ("thread_id", "owner", "preview", "preview_key", "title_key", "created_at", "last_activity_at")
_NOTHING = {"title": None, "title_key": "", "preview": "", "preview_key": ""}
_COLUMNS = (
    *(threads.c.thread_id, threads.c.owner, threads.c.title, threads.c.preview),
    *(threads.c.created_at, threads.c.last_activity_at, threads.c.archived_at),
)


class Threads:
    """The threads of a database. One per process; safe for any number of tasks at once.

    Durable: what was written is committed when a method returns.
    Cancel: safe at any await; what was begun is carried out.
    Raises: StoreError from every method; ThreadNotFound where it says so: unknown, deleted, or another owner's.
    """

    def __init__(self, database: "Database", clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[database.dialect]
        made = insert(threads).values({name: bindparam(name) for name in _TOUCH_FACTS})
        later, newest = made.excluded.last_activity_at, threads.c.last_activity_at
        self._touch = made.on_conflict_do_update(
            index_elements=["thread_id"],
            set_={"last_activity_at": case((later > newest, later), else_=newest)},
            where=and_(threads.c.owner == made.excluded.owner, threads.c.deleted_at.is_(None)),
        ).returning(threads.c.thread_id)
        self._keep = insert(entries).on_conflict_do_nothing()

    # ---- what happens to them ----------------------------------------------------------------------

    async def touch(self, thread_id: str, *, owner: str, preview: str = "") -> None:
        """Make the thread if it is new, else move its last activity to now.

        Raises: ThreadNotFound; BadRequest (an id of more than ``ID_MAX_BYTES``).
        """
        _check_size(thread_id, owner)
        facts = self._facts(thread_id, owner, preview, self._clock())

        def work(connection: Connection) -> bool:
            return connection.execute(self._touch, facts).first() is not None

        if not (_can_be_kept(thread_id, owner) and await self._database.write(work)):
            raise _not_found(thread_id)

    async def rename(self, thread_id: str, *, owner: str, title: str) -> Thread:
        """Name it, in 1 to 200 characters. Raises: ThreadNotFound, BadRequest."""
        title = _storable(title.strip())
        if not 1 <= len(title) <= TITLE_MAX_CHARACTERS:
            raise BadRequest(f"a name has 1 to {TITLE_MAX_CHARACTERS} characters", argument="title")
        return await self._change(thread_id, owner, title=title, title_key=_folded(title))

    async def archive(self, thread_id: str, *, owner: str, archived: bool) -> Thread:
        """Put it away, or back; nothing else changes. Raises: ThreadNotFound."""
        return await self._change(thread_id, owner, archived_at=_us(self._clock()) if archived else None)

    async def _change(self, thread_id: str, owner: str, **values: Any) -> Thread:
        statement = update(threads).where(_is(thread_id, owner)).values(values).returning(*_COLUMNS)

        def work(connection: Connection) -> AnyRow | None:
            return connection.execute(statement).first()

        row = await self._database.write(work) if _can_be_kept(thread_id, owner) else None
        if row is None:
            raise _not_found(thread_id)
        return _thread(row)

    # ---- deletion ----------------------------------------------------------------------------------

    async def begin_delete(self, thread_id: str, *, owner: str) -> None:
        """Forget all that the thread holds, and leave a tombstone: nothing that is settled late brings it back.

        Idempotent until ``end_delete``. Raises: ThreadNotFound.
        """
        buried = and_(threads.c.thread_id == thread_id, threads.c.owner == owner, threads.c.cleared_at.is_(None))
        tombstone = update(threads).where(buried).values({**_NOTHING, "deleted_at": self._now()})

        def work(connection: Connection) -> bool:
            found = connection.execute(tombstone.returning(threads.c.thread_id)).first() is not None
            if found:
                connection.execute(delete(entries).where(entries.c.thread_id == thread_id))
            return found

        if not (_can_be_kept(thread_id, owner) and await self._database.write(work)):
            raise _not_found(thread_id)

    async def deleting(self) -> list[tuple[str, str]]:
        """Deleted threads, ``(thread_id, owner)``, whose streams or checkpoints may still be there. Purges the rest."""
        old = threads.c.cleared_at < self._now() - _us(TOMBSTONES_KEPT_S)
        left = and_(threads.c.deleted_at.is_not(None), threads.c.cleared_at.is_(None))

        def work(connection: Connection) -> list[tuple[str, str]]:
            connection.execute(delete(threads).where(old))
            rows = connection.execute(select(threads.c.thread_id, threads.c.owner).where(left))
            return [(row[0], row[1]) for row in rows]

        return await self._database.write(work)

    async def end_delete(self, thread_id: str) -> None:
        """Nothing of the thread is left elsewhere either. Its tombstone goes after 30 days."""
        done = update(threads).where(threads.c.thread_id == thread_id, threads.c.deleted_at.is_not(None))

        def work(connection: Connection) -> None:
            connection.execute(done.values(cleared_at=self._now()))

        if _can_be_kept(thread_id):
            await self._database.write(work)

    # ---- history -----------------------------------------------------------------------------------

    async def settle(self, settled: Settled) -> bool:
        """Make what a stream produced part of its thread's history: the message and the answer, or neither.

        Idempotent by stream id, from any process: what is there already stays as it is. Makes the thread when it is
        unknown. False: the thread was deleted; nothing was kept.

        Raises: ThreadNotFound: it is another owner's. BadRequest: an id of more than ``ID_MAX_BYTES``.
        """
        message_id = settled.user[0] if settled.user else ""
        _check_size(settled.thread_id, settled.owner, settled.stream_id, message_id)
        if not _can_be_kept(settled.thread_id, settled.owner, settled.stream_id, message_id):
            raise _not_found(settled.thread_id)
        preview = settled.user[1] if settled.user else "".join(part.get("text", "") for part in settled.parts)
        facts = self._facts(settled.thread_id, settled.owner, preview, settled.created_at, settled.closed_at)
        rows = _rows(settled)
        deleted = and_(
            threads.c.thread_id == settled.thread_id,
            threads.c.owner == settled.owner,
            threads.c.deleted_at.is_not(None),
        )

        def work(connection: Connection) -> bool | None:
            if connection.execute(self._touch, facts).first() is None:
                return False if connection.execute(select(threads.c.owner).where(deleted)).first() else None
            if rows:
                connection.execute(self._keep, rows)
            return True

        kept = await self._database.write(work)
        if kept is None:
            raise _not_found(settled.thread_id)
        return kept

    async def entries(self, thread_id: str, *, owner: str) -> list[Entry]:
        """The history of a thread, in order; none for an unknown one."""
        question = (
            select(entries)
            .join(threads, threads.c.thread_id == entries.c.thread_id)
            .where(_is(thread_id, owner))
            .order_by(entries.c.position, entries.c.entry_id)
        )

        def work(connection: Connection) -> list[AnyRow]:
            return list(connection.execute(question))

        return [_entry(row) for row in await self._database.read(work)] if _can_be_kept(thread_id, owner) else []

    # ---- questions ---------------------------------------------------------------------------------

    async def get(self, thread_id: str, *, owner: str) -> Thread:
        """Raises: ThreadNotFound."""

        def work(connection: Connection) -> AnyRow | None:
            return connection.execute(select(*_COLUMNS).where(_is(thread_id, owner))).first()

        row = await self._database.read(work) if _can_be_kept(thread_id, owner) else None
        if row is None:
            raise _not_found(thread_id)
        return _thread(row)

    async def find(
        self, *, owner: str, search: str = "", limit: int = 1_000, after: str | None = None, archived: bool = False
    ) -> ThreadPage:
        """Threads of an owner, newest activity first.

        Args:
            search: what the name, the first message or any entry holds, whatever the case; no wildcards.
            after: ``next`` of the page before. A thread that becomes active meanwhile moves to the front.
            archived: those that were put away, instead of the others.
        Raises: BadRequest (``after`` is none of ours).
        """
        place = tuple_(threads.c.last_activity_at, threads.c.thread_id)
        put_away = threads.c.archived_at.is_not(None)
        wanted = [threads.c.owner == owner, threads.c.deleted_at.is_(None), put_away if archived else ~put_away]
        if after is not None:
            wanted.append(place < tuple_(*_place(after)))
        if key := _folded(search.strip()):
            said = select(entries.c.thread_id).where(
                entries.c.thread_id == threads.c.thread_id, entries.c.search_key.contains(key, autoescape=True)
            )
            named = or_(
                *(column.contains(key, autoescape=True) for column in (threads.c.title_key, threads.c.preview_key))
            )
            wanted.append(or_(named, said.exists()))
        newest = (threads.c.last_activity_at.desc(), threads.c.thread_id.desc())
        question = select(*_COLUMNS).where(*wanted).order_by(*newest).limit(limit + 1)

        def work(connection: Connection) -> list[AnyRow]:
            return list(connection.execute(question))

        rows = await self._database.read(work) if _can_be_kept(owner) else []
        more = f"{rows[limit - 1].last_activity_at}.{rows[limit - 1].thread_id}" if len(rows) > limit else None
        return ThreadPage([_thread(row) for row in rows[:limit]], more)

    # ---- helpers -----------------------------------------------------------------------------------

    def _now(self) -> int:
        return _us(self._clock())

    def _facts(
        self, thread_id: str, owner: str, text: str, created_at: float, active_at: float | None = None
    ) -> dict[str, Any]:
        preview = _storable(" ".join(text[: 4 * PREVIEW_CHARACTERS].split()))[:PREVIEW_CHARACTERS]
        return {
            "thread_id": thread_id,
            "owner": owner,
            "preview": preview,
            "preview_key": _folded(preview),
            "title_key": "",
            "created_at": _us(created_at),
            "last_activity_at": _us(created_at if active_at is None else active_at),
        }


def _rows(settled: Settled) -> list[dict[str, Any]]:
    """The entries that a stream makes: the message it answers, and the answer, unless there is nothing to say of it."""
    place = _us(settled.created_at)
    shared = {"thread_id": settled.thread_id, "stream_id": settled.stream_id, "created_at": place}
    rows: list[dict[str, Any]] = []
    if settled.user is not None:
        message_id, text = settled.user
        words = [{"type": "text", "text": text}]
        asked = {"position": place, "role": "user", "entry_id": message_id, "outcome": None, "error": None}
        rows.append({**shared, **_content(words), **asked})
    outcome = settled.outcome
    if settled.parts or outcome.kind is not OutcomeKind.COMPLETED or settled.user is not None:
        ending = {"outcome": outcome.kind.value, "error": None if outcome.error is None else _storable(outcome.error)}
        answer = {"position": place + 1, "role": "assistant", "entry_id": settled.stream_id}
        rows.append({**shared, **_content(settled.parts), **answer, **ending})
    return rows


def _content(parts: list[Part]) -> dict[str, str]:
    words = "".join([part["text"] for part in parts if part["type"] == "text"])
    return {"content": json.dumps(parts), "search_key": _folded(words)}


def _entry(row: AnyRow) -> Entry:
    return Entry(
        entry_id=row.entry_id,
        thread_id=row.thread_id,
        stream_id=row.stream_id,
        role=row.role,
        parts=json.loads(row.content),
        outcome=None if row.outcome is None else OutcomeKind(row.outcome),
        error=row.error,
        created_at=row.created_at / _MICROSECONDS,
    )


def _thread(row: AnyRow) -> Thread:
    return Thread(
        thread_id=row.thread_id,
        owner=row.owner,
        title=row.title,
        preview=row.preview,
        created_at=row.created_at / _MICROSECONDS,
        last_activity_at=row.last_activity_at / _MICROSECONDS,
        archived_at=None if row.archived_at is None else row.archived_at / _MICROSECONDS,
    )


def _is(thread_id: str, owner: str) -> ColumnElement[bool]:
    return and_(threads.c.thread_id == thread_id, threads.c.owner == owner, threads.c.deleted_at.is_(None))


def _place(after: str) -> tuple[int, str]:
    """Where the next page begins. Raises: BadRequest."""
    at, dot, thread_id = after.partition(".")
    if not (dot and at.isascii() and at.isdigit() and len(at) <= 18 and _can_be_kept(thread_id)):
        raise BadRequest("this is no place to go on from; begin without one", argument="after")
    return int(at), thread_id


def _us(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)


def _can_be_kept(*ids: str) -> bool:
    """Whether SQL text can hold these as they are; what it cannot hold, no thread is called."""
    return all(_storable(one) == one for one in ids)


def _check_size(*ids: str) -> None:
    """Raises: BadRequest."""
    if any(len(one.encode("utf-8", "replace")) > ID_MAX_BYTES for one in ids):
        raise BadRequest(f"an id has at most {ID_MAX_BYTES} bytes of UTF-8", argument="id")


def _storable(text: str) -> str:
    """The text without what a database refuses: NUL, and lone surrogates, which UTF-8 cannot carry."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _folded(text: str) -> str:
    """As search compares it."""
    return _storable(text.casefold())


def _not_found(thread_id: str) -> ThreadNotFound:
    return ThreadNotFound("there is no such thread", thread_id=thread_id)
