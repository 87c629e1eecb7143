"""Several servers, each in a directory of its own, on one Redis and one PostgreSQL: they are one system.

A produces, B is read, C is asked to cancel; A is killed, frozen, told to stop. The servers are real processes
(``serve_forks``).
"""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from postgres_server import postgres  # noqa: F401 - a fixture
from process_clients import COMMAND, Reader, run, said
from redis_server import RedisServer, connect_patiently, free_port
from running_server import WAIT_S, Frame, ServerProcess, eventually, frames_of
from serve_forks import Forks, Instance
from streaming import until

from playhead import Options, Playhead, ProducerActive, Writer
from playhead.cli.codes import CANCELLED, DONE, FAILED, USAGE
from playhead.server.greeting import ONE_HOST
from playhead.state import unpack_state

LEASE_S = 6.0
"""Of all servers: nobody trusts leases before one of its own has passed. A renewal may be late by two thirds of it."""

KILLS = 20
SESAME = "open-sesame"
Start = Callable[..., Instance]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """This module's own: other tests empty theirs."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def start(
    redis: RedisServer,
    postgres: str,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Start]:
    """Begins to start one more server on the Redis and the PostgreSQL of all."""
    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    directory = tmp_path_factory.mktemp("instances")
    common = {
        "PLAYHEAD_STORE": redis.url,
        "PLAYHEAD_DATABASE": postgres.format(name),
        "PLAYHEAD_LEASE_S": str(LEASE_S),
        "PLAYHEAD_SHUTDOWN_GRACE_S": "0.2",
    }
    with Forks() as forks:

        def start_one(*, on_another_machine: bool = False, **environment: str) -> Instance:
            place = directory / uuid.uuid4().hex
            return forks.serve(place, on_another_machine=on_another_machine, **{**common, **environment})

        yield start_one


@pytest.fixture(scope="module")
def three(start: Start) -> list[Instance]:
    started = [start() for _ in "ABC"]
    return [instance.wait() for instance in started]


@contextlib.asynccontextmanager
async def clients(*instances: Instance) -> AsyncIterator[list[httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=None)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=one.url, timeout=WAIT_S, limits=limits))
            for one in instances
        ]


async def some(*readers: Reader) -> None:
    async with asyncio.timeout(WAIT_S):
        for reader in readers:
            await reader.has_some.wait()


async def all_of(*readers: Reader) -> None:
    """Wait for the end of these, each of which must have every event once, in order, and a close."""
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(reader.task for reader in readers))
    for reader in readers:
        assert offsets(reader.seen.frames) == list(range(1, len(reader.seen.frames) + 1))
        assert [frame.event for frame in reader.seen.frames].count("playhead.close") == 1
        assert reader.seen.frames == readers[0].seen.frames


def offsets(frames: list[Frame]) -> list[int]:
    return [frame.json()["offset"] for frame in frames]


def end_of(reader: Reader) -> tuple[str, str | None]:
    last = reader.seen.frames[-1]
    assert last.event == "playhead.close"
    return last.json()["outcome"], last.json().get("reason")


async def same_history(thread_id: str, *servers: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The turns of a thread, which are the same wherever they are read."""
    read = [(await http.get("/thread", params={"thread_id": thread_id, "all": True})).json() for http in servers]
    assert all(turns == read[0] for turns in read), read
    turns: list[dict[str, Any]] = read[0]
    return turns


# ---- one system ------------------------------------------------------------------------------------------


@pytest.mark.proves("P1.2", "P2.1", "P4.1")
async def test_started_on_one_read_on_another_from_the_middle_cancelled_from_a_third(three: list[Instance]) -> None:
    async with clients(*three) as (a, b, c):
        started = await said(a, "/pace 20 /long 10000")  # 200 s: nothing but the cancel ends it
        path = f"/v1/streams/{started['stream_id']}"
        readers = [Reader(http, started["stream_id"], events=30) for http in (a, b, c)]
        await some(*readers)
        cursor = readers[0].seen.frames[9].id
        middle = asyncio.create_task(frames_of(b, path, headers={"last-event-id": cursor}))
        more = [Reader(b, started["stream_id"], events=60)]
        await some(*more)
        asked_at = time.monotonic()
        assert (await c.post(path + "/cancel")).status_code in (200, 202)
        await all_of(*readers, *more)
        assert time.monotonic() - asked_at < 20
        assert end_of(readers[1])[0] == "cancelled"
        assert await middle == readers[1].seen.frames[10:]

        turns = await same_history(started["thread_id"], a, b, c)
        assert [(turn["type"], turn.get("outcome")) for turn in turns] == [("human", None), ("ai", "cancelled")]
        assert turns[1]["content"] == readers[1].text
        for http in (a, b, c):
            info = (await http.get(path + "/info")).json()
            assert (info["status"], info["tail"]) == ("closed", len(readers[0].seen.frames) - 1)
            last = readers[0].seen.frames[-1].id
            assert (await http.get(path, headers={"last-event-id": last or ""})).status_code == 204


@pytest.mark.proves("P4.1")
async def test_cancelled_from_another_before_the_first_event(three: list[Instance]) -> None:
    async with clients(*three) as (a, b, c):
        started = await said(a, "/slow 600 hello")
        reader = Reader(b, started["stream_id"], events=1)
        thread = {"thread_id": started["thread_id"]}
        asked_at = time.monotonic()
        assert (await c.post("/chat/cancel", params=thread)).json() == {"cancelled": True, **started}
        await all_of(reader)
        assert time.monotonic() - asked_at < 20
        assert (len(reader.seen.frames), end_of(reader)[0]) == (1, "cancelled")
        # The thread is free everywhere at once, and the cancelled turn part of its history
        again = await said(b, "/pace 0 next", thread_id=started["thread_id"])
        await all_of(Reader(c, again["stream_id"], events=1))
        turns = await same_history(started["thread_id"], a, b, c)
        assert [turn["type"] for turn in turns] == ["human", "ai", "human", "ai"]
        assert [turn.get("outcome") for turn in turns[1::2]] == ["cancelled", None]


@pytest.mark.proves("P7.4")
async def test_a_thread_has_one_live_answer_on_all_of_them(three: list[Instance]) -> None:
    async with clients(*three) as (a, b, c):
        first = await said(a, "/pace 5 /long 10000")
        thread_id = first["thread_id"]
        busy = await b.post("/chat/message", json={"message": "and?", "thread_id": thread_id})
        assert (busy.status_code, busy.json()["code"]) == (409, "thread-busy")
        assert busy.json()["stream_id"] == first["stream_id"]

        reader = Reader(b, first["stream_id"], events=5)
        await some(reader)
        second = await said(c, "/pace 0 and?", thread_id=thread_id, supersede=True)
        assert second["stream_id"] != first["stream_id"]
        await all_of(reader)
        assert end_of(reader)[0] == "cancelled"
        other = Reader(a, second["stream_id"], events=1)
        await all_of(other)
        assert end_of(other)[0] == "completed"
        turns = await same_history(thread_id, a, b, c)
        assert [turn["content"] for turn in turns] == ["/pace 5 /long 10000", reader.text, "/pace 0 and?", other.text]


@pytest.mark.proves("P7.3", "P7.4")
async def test_of_messages_sent_to_all_at_once_one_is_answered(three: list[Instance]) -> None:
    async with clients(*three) as servers:

        async def ask(http: httpx.AsyncClient, thread_id: str, key: str | None) -> httpx.Response:
            headers = {"idempotency-key": key} if key else {}
            return await http.post(
                "/chat/message", json={"message": "/slow 600 me!", "thread_id": thread_id}, headers=headers
            )

        for number in range(10):
            thread_id = str(uuid.uuid4())
            key = uuid.uuid4().hex if number % 2 else None
            answers = await asyncio.gather(*(ask(http, thread_id, key) for http in servers for _ in range(2)))
            assert len({answer.json()["stream_id"] for answer in answers}) == 1
            told = [200] * 6 if key else [200] + [409] * 5
            assert sorted(answer.status_code for answer in answers) == told
            live = await servers[number % 3].get("/v1/streams", params={"thread_id": thread_id, "status": "live"})
            assert len(live.json()["streams"]) == 1
            await servers[number % 2].post("/chat/cancel", params={"thread_id": thread_id})


async def test_a_thread_is_deleted_on_one_while_another_answers(three: list[Instance]) -> None:
    async with clients(*three) as (a, b, c):
        started = await said(a, "/pace 5 /long 10000")
        reader = Reader(c, started["stream_id"], events=5)
        await some(reader)
        assert (await b.delete(f"/v1/threads/{started['thread_id']}")).status_code == 204
        async with asyncio.timeout(WAIT_S):
            await reader.task
        assert end_of(reader) == ("cancelled", "deleted")
        for http in (a, b, c):
            assert (await http.get(f"/v1/streams/{started['stream_id']}")).status_code == 404
            assert await same_history(started["thread_id"], http) == []
            listed = (await http.get("/threads")).json()
            assert started["thread_id"] not in [thread["id"] for thread in listed]
    assert "Traceback" not in "".join(instance.output for instance in three)


async def test_the_command_works_with_any_of_them(three: list[Instance]) -> None:
    def command(number: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
        keep = {name: value for name, value in os.environ.items() if not name.startswith("PLAYHEAD_")}
        environment = {**keep, "PLAYHEAD_URL": three[number].url}
        return subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
        )

    async with clients(*three) as (a, b, _):
        started = await said(a, "/pace 5 /long 10000")
        name, thread = started["stream_id"], started["thread_id"]
        reader = Reader(b, name, events=20)
        tailing = asyncio.create_task(asyncio.to_thread(command, 1, "tail", name))
        await some(reader)
        listed = await asyncio.to_thread(command, 2, "ls", "--live", "--json", "--thread", thread)
        assert json.loads(listed.stdout)["stream_id"] == name
        cancelled = await asyncio.to_thread(command, 2, "cancel", name)
        assert (cancelled.returncode, cancelled.stdout.strip()) == (DONE, "cancelled"), cancelled.stderr
        await all_of(reader)
        tailed = await tailing
        assert (tailed.returncode, tailed.stdout) == (CANCELLED, reader.text), tailed.stderr


# ---- one of them goes ------------------------------------------------------------------------------------


@pytest.mark.crash
@pytest.mark.proves("P5.1", "P5.2")
@pytest.mark.parametrize("on_another_machine", [False, True], ids=["proven", "by lease"])
async def test_p5_readers_elsewhere_learn_of_a_kill_9(
    start: Start, three: list[Instance], redis: RedisServer, *, on_another_machine: bool
) -> None:
    """20 servers are killed at 20 moments between two renewals of their leases.

    Where death can be proven the leases are so long that they tell nobody. Else, when a stream was closed and when its
    producer's lease ended is taken from Redis: how late this process is, or the reader's server, does not change it.
    """
    lease_s = LEASE_S if on_another_machine else 60.0
    killed = [start(on_another_machine=on_another_machine, PLAYHEAD_LEASE_S=str(lease_s)) for _ in range(KILLS)]
    for instance in killed:
        await asyncio.to_thread(instance.wait)
    closed_after_s: list[float] = []
    known_after_s: list[float] = []
    before_lease_end_s: list[float] = []

    async with clients(*three, *killed) as (_, b, c, *servers):

        async def one_life(number: int, server: httpx.AsyncClient) -> None:
            started = await said(server, "/pace 20 /long 10000")
            name = started["stream_id"]
            reader = Reader(b, name, events=5)
            await some(reader)
            state = await asyncio.to_thread(redis.command, "HGET", f"playhead:1:{{s:{name}}}:state", "info")
            await asyncio.sleep(number * LEASE_S / 3 / KILLS)
            killed[number].kill()
            killed_at = time.time()  # Redis's clock is this machine's
            words = ["ZSCORE", "playhead:1:instances", unpack_state(state, 0, 0).producer]
            lease_until = float(await asyncio.to_thread(redis.command, *words))
            await all_of(reader)
            known_after_s.append(time.time() - killed_at)
            assert end_of(reader) == ("interrupted", "producer-lost")
            info = (await b.get(f"/v1/streams/{name}/info")).json()
            closed_at = datetime.fromisoformat(info["closed_at"]).timestamp()
            closed_after_s.append(closed_at - killed_at)
            before_lease_end_s.append(lease_until - closed_at)
            human, ai = await same_history(started["thread_id"], b, c)
            assert human["content"] == "/pace 20 /long 10000"
            assert (ai["content"], ai["outcome"]) == (reader.text, "interrupted")

        await asyncio.gather(*(one_life(number, server) for number, server in enumerate(servers)))
    assert len(closed_after_s) == KILLS
    if on_another_machine:
        assert max(closed_after_s) < LEASE_S + 1
        assert max(before_lease_end_s) < 1, "nothing but the lease told"  # who closes knows Redis's clock roughly
        assert statistics.median(known_after_s) < LEASE_S + 1
        assert max(known_after_s) < LEASE_S + 10  # the machine may be busy at times
    else:
        assert max(known_after_s) < lease_s / 3, "no lease has run out by then"


@pytest.mark.proves("P2.1", "P11.1", "P11.2")
async def test_readers_of_one_that_stops_go_on_at_another(start: Start, three: list[Instance]) -> None:
    leaving = await asyncio.to_thread(start().wait)
    async with clients(leaving, *three) as (leaver, _, b, c):
        started = await said(leaver, "/pace 5 /long 10000")
        away, here = Reader(leaver, started["stream_id"], events=20), Reader(b, started["stream_id"], events=20)
        await some(away, here)
        os.kill(leaving.pid, signal.SIGTERM)
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(away.task, here.task)
        assert away.seen.frames[-1].event == "text", "the stream had not ended, so nobody may be told so"
        headers = {"last-event-id": away.seen.frames[-1].id or ""}
        rest = await frames_of(c, f"/v1/streams/{started['stream_id']}", headers=headers)
        assert [*away.seen.frames, *rest] == here.seen.frames
        assert end_of(here) == ("interrupted", "shutdown")
        turns = await same_history(started["thread_id"], b, c)
        assert turns[1]["content"] == here.text


# ---- one of them is late -----------------------------------------------------------------------------------


@pytest.mark.crash
@pytest.mark.proves("P6.1")
async def test_p6_a_server_frozen_past_its_lease_and_taken_over_is_refused(
    start: Start, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a prefix of its own, where nobody sweeps: the other instances' first lease is long."""
    connect_patiently(monkeypatch)
    store = f"{redis.url}?prefix=frozen"
    frozen = start(PLAYHEAD_STORE=store)
    other = start(PLAYHEAD_STORE=store, PLAYHEAD_LEASE_S="60")
    for instance in (frozen, other):
        await asyncio.to_thread(instance.wait)
    async with clients(frozen, other) as (a, b), Playhead.open(store, options=Options(lease_s=60)) as playhead:
        started = [await said(a, message) for message in ["/slow 600 hi", *["/pace 4 /long 20000"] * 5]]
        silent, busy, *more_busy = names = [one["stream_id"] for one in started]
        readers = {name: [Reader(http, name, events=20) for http in (a, b)] for name in names}
        await some(*(reader for name in names[1:] for reader in readers[name]))
        epochs = {name: (await playhead.info(name, principal="local")).epoch for name in names}
        frozen.freeze()
        with pytest.raises(ProducerActive):  # its lease has not run out yet
            await playhead.produce(busy, owner="local")
        writers: dict[str, Writer] = {}

        async def lease_is_over() -> bool:
            with contextlib.suppress(ProducerActive):
                writers[busy] = await playhead.produce(busy, owner="local")
            return busy in writers

        await until(lease_is_over)
        for name in (silent, *more_busy):
            writers[name] = await playhead.produce(name, owner="local", take_over=True)
        taken_at = {name: (await playhead.info(name, principal="local")).tail for name in names}
        assert all(writer.epoch > epochs[name] for name, writer in writers.items())
        # Where the new writer has not written yet, and the news of it are lost, only the fence keeps the old one out
        said_first = {name: [] if name in more_busy else ["new 1 "] for name in names}
        for name, words in said_first.items():
            await writers[name].append(*words)
            await writers[name].flush()
        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        frozen.thaw()
        for name in names:
            refused = f"stream {name}: taken over or closed by somebody else"
            await eventually(lambda line=refused: line in frozen.output, refused)  # type: ignore[misc]
            tail = (await playhead.info(name, principal="local")).tail
            assert tail == taken_at[name] + len(said_first[name]), "the refused one wrote on"
        for writer in writers.values():
            await writer.append("new 2")
            await writer.close()
        for one in started:
            name = one["stream_id"]
            await all_of(*readers[name])
            seen = readers[name][0]
            assert end_of(seen)[0] == "completed"
            texts = [frame.json()["data"] for frame in seen.seen.frames[:-1]]
            assert texts[taken_at[name] :] == [*said_first[name], "new 2"]
            assert not any("new" in text for text in texts[: taken_at[name]])
            turns = await same_history(one["thread_id"], b, a)
            assert turns[1]["content"] == seen.text


# ---- the start -----------------------------------------------------------------------------------------


_OF_TEMPLATE = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "{port}"}


@pytest.mark.parametrize(
    ("code", "says", "environment"),
    [
        (
            FAILED,
            "Redis at 127.0.0.1:{free} cannot be reached",
            {"PLAYHEAD_STORE": "redis://:{word}@127.0.0.1:{free}/0"},
        ),
        (FAILED, "Redis at 127.0.0.1:{port} wants a password", _OF_TEMPLATE),
        (FAILED, "Redis at 127.0.0.1:{port} does not accept", {**_OF_TEMPLATE, "REDIS_PASSWORD": "not-{word}"}),
        (FAILED, "Redis at 127.0.0.1:{port} may throw streams away", {**_OF_TEMPLATE, "REDIS_PASSWORD": "{word}"}),
        (USAGE, "the store's URL is not understood", {"PLAYHEAD_STORE": "redis://:{word}@127.0.0.1:{port}/zero"}),
    ],
    ids=["nobody there", "no password", "a wrong password", "evicts", "not a URL"],
)
async def test_a_redis_that_will_not_do_is_one_clear_line(
    make_redis: Callable[..., RedisServer], tmp_path: Path, code: int, says: str, environment: dict[str, str]
) -> None:
    guarded = make_redis("--requirepass", SESAME, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    names = {"port": guarded.port, "free": free_port(), "word": SESAME}
    given = {name: value.format(**names) for name, value in environment.items()}
    ended = await asyncio.to_thread(run, tmp_path, "--port", "0", **given)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert ended.stderr.startswith(f"playhead: {says.format(**names)}")
    assert ended.stderr.count("\n") == 1
    assert SESAME not in ended.stderr


async def test_the_start_warns_of_threads_on_one_host_and_shows_no_password(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    password = "p/a ss%20@:#"
    redis = make_redis("--requirepass", password)
    environment = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": password}
    with await asyncio.to_thread(lambda: ServerProcess(tmp_path, PLAYHEAD_LOG_LEVEL="debug", **environment)) as server:
        assert server.lines[1] == f"  store     redis://:***@127.0.0.1:{redis.port}/0"
        assert [line for line in server.lines if "warning" in line] == [f"  warning   {ONE_HOST}"]
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            await all_of(Reader(http, (await said(http, "/pace 0 hello"))["stream_id"], events=1))
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
        assert password not in server.output
        assert quote(password, "") not in server.output
