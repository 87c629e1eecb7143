"""Threads and their history in SQL: one suite for a SQLite file, SQLite in memory and PostgreSQL."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres_server import ASKED, database, postgres  # noqa: F401 - fixtures
from sqlalchemy import select
from sqlalchemy import text as sql

import playhead.conversations
from playhead.conversations import Settled, Threads, is_postgresql, open_threads
from playhead.conversations.database import VERSION_TABLE
from playhead.conversations.schema import HEAD, entries, metadata
from playhead.conversations.threads import TOMBSTONES_KEPT_S
from playhead.errors import (
    BadRequest,
    InvalidSetting,
    PlayheadError,
    StoreCorrupt,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionUnsupported,
    ThreadNotFound,
)
from playhead.model import COMPLETED, Outcome, OutcomeKind

ANN, BOB = "ann", "bob"
MIGRATIONS = Path(playhead.conversations.__file__).with_name("migrations")


@pytest.fixture(params=["file", "memory", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'threads.db'}"


@pytest.fixture
async def threads(url: str) -> AsyncIterator[Threads]:
    async with open_threads(url) as threads:
        yield threads


def words(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


def settled(stream_id: str = "s1", thread_id: str = "t", owner: str = ANN, at: float = 1_000.0, **more: Any) -> Settled:
    given = {"user": (f"m-{stream_id}", f"question {stream_id}"), "parts": words(f"answer {stream_id}"), **more}
    return Settled(thread_id, owner, stream_id, at, at + 5, given.pop("outcome", COMPLETED), **given)


async def shown(threads: Threads, thread_id: str = "t", owner: str = ANN) -> list[tuple[str, str]]:
    return [(entry.role, entry.text) for entry in await threads.entries(thread_id, owner=owner)]


# ---- threads ---------------------------------------------------------------------------------------------


async def test_a_thread_is_made_once_and_its_time_never_moves_back(threads: Threads) -> None:
    threads._clock = lambda: 1_000.0
    await threads.touch("t", owner=ANN, preview="  how \n it   begins " + 200 * "x")
    first = await threads.get("t", owner=ANN)
    assert (first.title, first.created_at, first.last_activity_at) == (None, 1_000.0, 1_000.0)
    assert first.preview == ("how it begins " + 200 * "x")[:100]
    threads._clock = lambda: 2_000.5
    await threads.touch("t", owner=ANN, preview="another")
    later = await threads.get("t", owner=ANN)
    assert (later.preview, later.created_at, later.last_activity_at) == (first.preview, 1_000.0, 2_000.5)
    threads._clock = lambda: 1_500.0
    await threads.touch("t", owner=ANN)
    await threads.settle(settled(at=1_600.0))
    assert await threads.get("t", owner=ANN) == later


async def test_strangers_find_nothing(threads: Threads) -> None:
    await threads.touch("t", owner=ANN, preview="secret")
    await threads.settle(settled())
    for refused in (
        threads.touch("t", owner=BOB),
        threads.get("t", owner=BOB),
        threads.rename("t", owner=BOB, title="mine"),
        threads.archive("t", owner=BOB, archived=True),
        threads.begin_delete("t", owner=BOB),
        threads.settle(settled("s2", owner=BOB)),
        threads.get("unknown", owner=ANN),
        threads.touch("a\0b", owner=ANN),
        threads.get("\ud800", owner=ANN),
        threads.settle(settled("s\ud800")),
        threads.settle(settled("s3", user=("m\0", "question"))),
    ):
        with pytest.raises(ThreadNotFound):
            await refused
    assert await shown(threads, owner=BOB) == await shown(threads, "unknown") == await shown(threads, "\0") == []
    for owner in (BOB, "\0", "\ud800"):
        assert (await threads.find(owner=owner, search="secret")).threads == []
    await threads.end_delete("\ud800")
    assert len(await shown(threads)) == 2


async def test_long_ids_are_kept_and_too_long_ones_refused(threads: Threads) -> None:
    dice = random.Random(5)
    # Of letters that do not compress: PostgreSQL's indexes would take longer ids of few different ones.
    thread_id, stream_id, owner, message_id = (
        "".join(map(chr, dice.choices(range(0x4E00, 0x9FFF), k=333))) for _ in "1234"
    )
    assert await threads.settle(settled(stream_id, thread_id, owner, user=(message_id, "question")))
    assert await shown(threads, thread_id, owner) == [("user", "question"), ("assistant", f"answer {stream_id}")]
    assert await threads.settle(settled("s" * 1_000, "t" * 1_000, "o" * 1_000, user=("m" * 1_000, "question")))
    for refused in (
        threads.touch(thread_id + "aa", owner=ANN),
        threads.touch("t", owner=owner + "aa"),
        threads.settle(settled(stream_id + "aa")),
        threads.settle(settled(user=(message_id + "aa", "question"))),
        threads.touch("\ud800" * 1_001, owner=ANN),
    ):
        with pytest.raises(BadRequest):
            await refused
    assert (await threads.find(owner=ANN)).threads == []


async def test_names_and_archive(threads: Threads) -> None:
    await threads.touch("t", owner=ANN)
    assert (await threads.rename("t", owner=ANN, title=" Name\0 🐳 \ud800 ")).title == "Name 🐳 ?"
    for title in ("", "  ", "\0", 201 * "x"):
        with pytest.raises(BadRequest):
            await threads.rename("t", owner=ANN, title=title)
    put_away = await threads.archive("t", owner=ANN, archived=True)
    assert put_away.archived_at is not None
    assert (await threads.find(owner=ANN)).threads == []
    assert (await threads.find(owner=ANN, archived=True)).threads == [put_away]
    assert (await threads.archive("t", owner=ANN, archived=False)).archived_at is None


async def test_search_knows_no_wildcards_and_no_case(threads: Threads) -> None:
    for thread_id, text in {"per": "100% sure", "under": "a_b", "back": "a\\b", "umlaut": "Größe ΣΊΣΥΦΟΣ"}.items():
        await threads.settle(settled(thread_id, thread_id, parts=words(text)))
    await threads.rename("per", owner=ANN, title="ÜBERSCHRIFT")

    async def found(search: str) -> set[str]:
        return {thread.thread_id for thread in (await threads.find(owner=ANN, search=search)).threads}

    assert await found("%") == {"per"}
    assert await found("A_B") == {"under"}
    assert await found("a\\b") == {"back"}
    assert await found("größe") == await found("σίσυφος") == {"umlaut"}
    assert await found("überschrift") == {"per"}
    assert await found("QUESTION") == {"per", "under", "back", "umlaut"}
    assert await found("a%b") == await found("nowhere") == set()
    assert await found("\0") == await found("  ") == {"per", "under", "back", "umlaut"}


async def test_pages_lose_no_thread_that_did_not_move(threads: Threads) -> None:
    names = [f"t{number:03}" for number in range(520)]
    for number, name in enumerate(names):
        threads._clock = lambda number=number: 1_000.0 + number // 3  # several at the same moment
        await threads.touch(name, owner=ANN)
    threads._clock = lambda: 9_000.0
    moved, seen, after = set(), [], None
    dice = random.Random(3)
    while True:
        page = await threads.find(owner=ANN, limit=17, after=after)
        seen += [thread.thread_id for thread in page.threads]
        after = page.next
        if after is None:
            break
        mover = dice.choice(names)
        await threads.touch(mover, owner=ANN)
        moved.add(mover)
    assert len(seen) == len(set(seen))
    assert set(names) - set(seen) <= moved
    for garbage in ("", "x", "1", "-1.t", "1.\0", "9" * 30 + ".t"):
        with pytest.raises(BadRequest):
            await threads.find(owner=ANN, after=garbage)


# ---- settling --------------------------------------------------------------------------------------------


@pytest.mark.proves("P7.6")
async def test_racing_settlers_settle_once_and_a_late_one_keeps_its_place(threads: Threads) -> None:
    late = settled("s1", at=1_000.0)
    newer = settled("s2", at=1_001.0)
    assert await threads.settle(newer)
    assert all(await asyncio.gather(*(threads.settle(late) for _ in range(20))))
    assert await threads.settle(settled("s1", at=1_000.0, parts=words("something else")))
    assert await shown(threads) == [
        *(("user", "question s1"), ("assistant", "answer s1"), ("user", "question s2"), ("assistant", "answer s2"))
    ]


@pytest.mark.parametrize("kind", OutcomeKind)
async def test_all_outcomes_are_kept_with_their_reason(threads: Threads, kind: OutcomeKind) -> None:
    error = "it broke \0 \ud800 🐳" if kind is OutcomeKind.FAILED else None
    await threads.settle(settled(outcome=Outcome(kind, error=error), parts=[]))
    question, answer = await threads.entries("t", owner=ANN)
    assert (question.outcome, answer.outcome, answer.text) == (None, kind, "")
    assert answer.error == (error and "it broke  ? 🐳")
    assert (question.created_at, question.entry_id, answer.entry_id) == (1_000.0, "m-s1", "s1")


async def test_an_answer_without_a_question(threads: Threads) -> None:
    await threads.settle(settled("s1", user=None))
    await threads.settle(settled("nothing", user=None, parts=[]))
    assert await shown(threads) == [("assistant", "answer s1")]
    assert (await threads.get("t", owner=ANN)).preview == "answer s1"


async def test_any_text_survives(threads: Threads) -> None:
    for number, text in enumerate(
        ["\0", "\ud800 half", "🐳\u202eRTL مرحبا", "a\r\nb\rc\n", 'quote " \\ %s :x', "x" * 2**20]
    ):
        call = {"type": "tool_call", "name": text[:50], "id": "1", "args": {text[:9]: None}, "result": text[:100]}
        parts = [*words(text), call, *words(text)]
        await threads.settle(settled(f"s{number}", at=1_000.0 + number, user=(f"m{number}", text), parts=parts))
        question, answer = (await threads.entries("t", owner=ANN))[-2:]
        assert (question.text, answer.parts, answer.text) == (text, parts, text + text)


@pytest.mark.proves("P10.1")
async def test_nobody_waits_for_ever(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr("playhead.conversations.database.OPERATION_MAX_S", 0.05)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.05 s"):
            await threads._database.write(lambda _: answer.wait(60))
    answer.set()
    assert await threads.settle(settled())


# ---- deletion --------------------------------------------------------------------------------------------


@pytest.mark.proves("C7")
async def test_a_deleted_thread_stays_deleted(threads: Threads) -> None:
    await threads.settle(settled())
    await threads.begin_delete("t", owner=ANN)
    await threads.begin_delete("t", owner=ANN)
    assert await threads.deleting() == [("t", ANN)]
    assert await threads.settle(settled("late")) is False
    assert await shown(threads) == []
    assert await threads._database.read(lambda connection: connection.execute(select(entries)).all()) == []
    assert (await threads.find(owner=ANN, search="question")).threads == (await threads.find(owner=ANN)).threads == []
    with pytest.raises(ThreadNotFound):
        await threads.touch("t", owner=ANN)
    await threads.end_delete("t")
    assert await threads.deleting() == []
    assert await threads.settle(settled("later")) is False
    with pytest.raises(ThreadNotFound):
        await threads.begin_delete("t", owner=ANN)
    now = threads._clock()
    threads._clock = lambda: now + TOMBSTONES_KEPT_S + 60
    await threads.deleting()
    await threads.touch("t", owner=BOB)


# ---- the database ----------------------------------------------------------------------------------------


async def test_what_the_migrations_make_is_what_the_code_expects(url: str) -> None:
    async with open_threads(url) as threads:
        found = await threads._database.read(
            lambda connection: compare_metadata(
                MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata
            )
        )
    # Whoever shares the database keeps tables of their own in it.
    assert [change for change in found if "remove" not in str(change[0])] == []
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_current_head() == HEAD


async def test_a_database_is_there_after_it_was_closed(url: str) -> None:
    if url == "sqlite://":
        return
    async with open_threads(url) as threads:
        await threads.settle(settled())
    async with open_threads(url) as threads:
        assert len(await shown(threads)) == 2


async def test_two_openers_of_a_fresh_database_migrate_once(url: str) -> None:
    if url == "sqlite://":
        return

    async def open_and_say(name: str) -> None:
        async with open_threads(url) as threads:
            await threads.touch(name, owner=ANN)

    await asyncio.gather(*(open_and_say(f"t{number}") for number in range(4)))
    async with open_threads(url) as threads:
        assert len((await threads.find(owner=ANN)).threads) == 4


async def test_a_newer_version_is_refused(url: str) -> None:
    if url == "sqlite://":
        return
    async with open_threads(url) as threads:
        await threads._database.write(lambda c: c.execute(sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")))
    with pytest.raises(StoreVersionUnsupported, match="9999"):
        async with open_threads(url):
            pass


@pytest.mark.proves("P10.1", "P10.2")
async def test_callers_who_are_cancelled_at_any_moment_disturb_nobody(threads: Threads) -> None:
    dice = random.Random(11)
    for number in range(2_000):
        thread_id = f"t{number % 7}"
        works = {
            0: partial(threads.touch, thread_id, owner=ANN),
            1: partial(threads.settle, settled(f"s{number}", thread_id, at=1_000.0 + number)),
            2: partial(threads.entries, thread_id, owner=ANN),
            3: partial(threads.find, owner=ANN, search="answer"),
        }
        task: asyncio.Future[Any] = asyncio.ensure_future(works[dice.randrange(4)]())
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() < 0.8:
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None
    for number in range(7):
        roles = [role for role, _ in await shown(threads, f"t{number}")]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert await threads.settle(settled("last"))
    assert len(await shown(threads)) == 2


@pytest.mark.proves("P10.2")
async def test_what_a_cancelled_caller_began_is_carried_out(threads: Threads) -> None:
    go_on = threading.Event()
    blocking = asyncio.ensure_future(threads._database.write(lambda _: go_on.wait(60)))
    await asyncio.sleep(0)
    settling = asyncio.ensure_future(threads.settle(settled()))
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.wait([settling])
    go_on.set()
    await blocking
    assert settling.cancelled()
    until = time.monotonic() + 60
    while not await shown(threads):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)


OPENER = """
import asyncio, sys
from playhead.conversations import Settled, open_threads
from playhead.model import COMPLETED

async def main(url, name):
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_threads(url) as threads:
        for number in range(30):
            said = [{"type": "text", "text": "answer of " + name}]
            at, stream = 1_000.0 + number, f"s{number:02}"
            assert await threads.settle(Settled("t", "ann", stream, at, at + 1, COMPLETED, ("m-" + stream, name), said))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.proves("P7.6")
async def test_processes_that_open_a_fresh_database_and_settle_the_same_streams_do_it_once(url: str) -> None:
    if url == "sqlite://":
        return
    openers = [
        subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", OPENER, url, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    try:
        for opener in openers:
            assert opener.stdout is not None
            assert await asyncio.to_thread(opener.stdout.readline) == "ready\n"
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("go\n")
            opener.stdin.flush()
        assert [await asyncio.to_thread(opener.wait, 120) for opener in openers] == [0, 0, 0]
    finally:
        for opener in openers:
            opener.kill()
            opener.communicate()
    async with open_threads(url) as threads:
        found = await threads.entries("t", owner=ANN)
        assert [(entry.stream_id, entry.role) for entry in found] == [
            (f"s{number:02}", role) for number in range(30) for role in ("user", "assistant")
        ]
        for question, answer in zip(found[::2], found[1::2], strict=True):
            assert answer.text == f"answer of {question.text}"  # one transaction, one author


KILLED = """
import asyncio, os, signal, sys
from sqlalchemy import event
from playhead.conversations import Settled, open_threads
from playhead.model import COMPLETED

async def main(url, place):
    async with open_threads(url) as threads:
        said = [{"type": "text", "text": "answer"}]
        first, second = (
            Settled("t", "ann", name, at, at + 1, COMPLETED, ("m-" + name, "q"), said)
            for name, at in (("s1", 1_000), ("s2", 2_000))
        )
        await threads.settle(first)
        left = int(place.rstrip("abcdefghijklmnopqrstuvwxyz"))

        @event.listens_for(threads._database._engine, "after_cursor_execute")
        def executed(connection, cursor, statement, *_):
            nonlocal left
            if statement.startswith(("INSERT", "UPDATE", "DELETE")):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        await (threads.settle(second) if place.endswith("settle") else threads.begin_delete("t", owner="ann"))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.crash
@pytest.mark.proves("P7.6")
@pytest.mark.parametrize("place", ["1settle", "2settle", "1delete", "2delete"])
async def test_a_kill_between_two_statements_leaves_all_or_nothing(url: str, place: str) -> None:
    if url == "sqlite://":
        return
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, url, place)
    async with asyncio.timeout(60):
        assert await killed.wait() == -signal.SIGKILL
    async with open_threads(url) as threads:
        assert await shown(threads) == [("user", "q"), ("assistant", "answer")]
        assert await threads.deleting() == []
        assert (await threads.get("t", owner=ANN)).last_activity_at == 1_001.0
        assert await threads.settle(settled("s2", at=2_000.0))
        assert len(await shown(threads)) == 4


SETTLER = """
import asyncio, sys
from playhead.conversations import Settled, open_threads
from playhead.model import COMPLETED

async def main(url, name):
    async with open_threads(url) as threads:
        for number in range(10_000):
            said = [{"type": "text", "text": "answer"}]
            at, stream = 1_000.0 + number, f"{name}-{number}"
            await threads.settle(Settled("t", "ann", stream, at, at + 1, COMPLETED, ("m-" + stream, "q"), said))
            print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.crash
@pytest.mark.proves("P7.6")
async def test_processes_killed_while_they_settle_lose_nothing_that_was_acknowledged(url: str) -> None:
    if url == "sqlite://":
        return
    settlers = [
        subprocess.Popen([sys.executable, "-c", SETTLER, url, name], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        for name in ("one", "two")
    ]
    acknowledged = {}
    try:
        for name, settler in zip(("one", "two"), settlers, strict=True):
            assert settler.stdout is not None
            lines = [await asyncio.to_thread(settler.stdout.readline) for _ in range(20)]
            settler.kill()
            acknowledged[name] = int((lines + settler.stdout.read().split())[-1])
    finally:
        for settler in settlers:
            settler.kill()
            settler.communicate()
    async with open_threads(url) as threads:
        found = await threads.entries("t", owner=ANN)
        per_stream: dict[str | None, list[str]] = {}
        for entry in found:
            per_stream.setdefault(entry.stream_id, []).append(entry.role)
        assert all(roles == ["user", "assistant"] for roles in per_stream.values())
        for name, last in acknowledged.items():
            assert {f"{name}-{number}" for number in range(last + 1)} <= per_stream.keys()


# ---- what is wrong, in words -----------------------------------------------------------------------------


async def refusal(url: str) -> PlayheadError:
    with pytest.raises(PlayheadError) as refused:
        async with open_threads(url):
            pass
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "", "redis://x", "sqlite+pysqlcipher:///x"])
async def test_other_databases_are_refused(url: str) -> None:
    assert isinstance(await refusal(url), InvalidSetting)
    with pytest.raises(InvalidSetting):
        is_postgresql(url)


async def test_bad_files_are_named(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"no database " * 1_000)
    assert isinstance(await refusal(f"sqlite:///{garbage}"), StoreCorrupt)
    assert "directory" in str(await refusal(f"sqlite:///{tmp_path}"))
    assert isinstance(await refusal(f"sqlite:///{tmp_path}/none/threads.db"), StoreUnavailable)


async def test_a_locked_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playhead.conversations.database.BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "threads.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert isinstance(await refusal(f"sqlite:///{path}"), StoreLocked)


READ_ONLY = """
import asyncio, os, sys
from playhead.conversations import open_threads
from playhead.errors import PlayheadError

async def main(url):
    if os.getuid() == 0:  # whom no permission stops
        os.setgid(65534)
        os.setuid(65534)
    try:
        async with open_threads(url) as threads:
            await threads.touch("t", owner="ann")
    except PlayheadError as error:
        print(type(error).__name__, error)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("existing", [True, False])
async def test_a_read_only_file_is_named(existing: bool) -> None:
    directory = Path(tempfile.mkdtemp())  # where every user may look, unlike pytest's
    path = directory / "threads.db"
    try:
        if existing:
            async with open_threads(f"sqlite:///{path}") as threads:
                await threads.touch("t", owner=ANN)
            path.chmod(0o444)
        directory.chmod(0o555)  # noqa: ASYNC240
        command = [sys.executable, "-c", READ_ONLY, f"sqlite:///{path}"]
        said = (await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, timeout=120)).stdout
        assert said.decode().startswith("StoreReadOnly threads.db cannot be written")
        assert said.count(b"\n") == 1
    finally:
        directory.chmod(0o700)  # noqa: ASYNC240
        shutil.rmtree(directory)


async def test_a_damaged_file_is_named_while_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "threads.db"
    async with open_threads(f"sqlite:///{path}") as threads:
        await threads.settle(settled())
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)  # the first page, which says what is where, is sound
    path.write_bytes(damaged)
    assert isinstance(await refusal(f"sqlite:///{path}"), StoreCorrupt)


async def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with open_threads(f"sqlite:///{tmp_path / 'threads.db'}") as threads:
            await threads.touch("t", owner=ANN)
            assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}  # noqa: ASYNC240
    finally:
        os.umask(old)


async def test_postgresql_that_cannot_be_used_is_named_without_its_password(postgres: str) -> None:  # noqa: F811
    away = await refusal("postgresql://ann:hunter2@127.0.0.1:1/threads")
    unknown = await refusal(postgres.format(f"t{uuid.uuid4().hex}"))
    for error in (away, unknown):
        assert isinstance(error, StoreUnavailable)
        assert "hunter2" not in str(error)
    assert "127.0.0.1:1" in str(away)
    assert "does not exist" in str(unknown)


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_postgresql_asks_who_one_is(postgres: str, database: str, password: str) -> None:  # noqa: F811
    user = f"guest{uuid.uuid4().hex}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'right' IN ROLE {ASKED}")
    error = await refusal(database.replace("playhead@", f"{user}:{password}@"))
    if password == "wrong":
        assert isinstance(error, StoreUnavailable)
        assert "password authentication failed" in str(error)
    else:  # nobody but its owner may make tables in a database's schema "public"
        assert "does not let this user do it; grant it USAGE and CREATE" in str(error)
    assert f":{password}@" not in str(error)


async def test_postgresql_that_may_not_be_written_is_named(database: str) -> None:  # noqa: F811
    error = await refusal(f"{database}&options=-c%20default_transaction_read_only%3Don")
    assert isinstance(error, StoreReadOnly)


async def test_connections_that_postgresql_ended_are_replaced(database: str) -> None:  # noqa: F811
    async with open_threads(database) as threads:
        await asyncio.gather(*(threads.touch(f"t{number}", owner=ANN) for number in range(20)))
        with psycopg.connect(database, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchall()
        assert ended
        assert all(row == (True,) for row in ended)
        await asyncio.gather(*(threads.touch(f"t{number}", owner=ANN) for number in range(20)))
        assert len((await threads.find(owner=ANN)).threads) == 20
