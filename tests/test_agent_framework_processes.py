"""Microsoft Agent Framework: worker and clients in processes of their own, over SQLite and over Redis."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from agent_framework_hosting import START_S, Asker, WorkerProcess, clean_environment, running_backend
from agent_framework_scripted import words
from streaming import until

from playhead import Query
from playhead.adapters.agent_framework import AgentStreamReader, StreamChunk

CLIENT = Path(__file__).with_name("agent_framework_client.py")


class Place(NamedTuple):
    """Where runs are recorded: the URL, and the settings that say so."""

    url: str
    settings: dict[str, str]


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return Place(url, {"REDIS_CONNECTION_STRING": url, "REDIS_STREAM_TTL_MINUTES": "3"})
    url = f"sqlite:///{tmp_path}/runs.db"
    return Place(url, {"PLAYHEAD_STORE": url})


@pytest.fixture
def backend() -> Iterator[str]:
    with running_backend() as address:
        yield address


class Chunk(NamedTuple):
    cursor: str
    type: str
    text: str
    is_done: bool
    error: str | None


class ClientProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.chunks: list[Chunk] = []

    async def read(self, text: str | None = None) -> list[Chunk]:
        """What it has told, at its end or when this text has come."""
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            while line := await self.process.stdout.readline():
                self.chunks.append(Chunk(*json.loads(line)))
                if text is not None and self.chunks[-1].text == text:
                    return self.chunks
        assert text is None, self.chunks
        return self.chunks


@asynccontextmanager
async def client(address: str, place: Place, session: str, *more: str) -> AsyncIterator[ClientProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CLIENT), address, session, *more),
        stdout=asyncio.subprocess.PIPE,
        env=clean_environment(**place.settings),
    )
    try:
        yield ClientProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def said(count: int) -> str:
    return "".join(words(count))


def text_of(chunks: Sequence[Any]) -> str:
    return "".join(chunk.text for chunk in chunks)


class Follower:
    """A reader in this process, which is no worker's: what it has read, as it comes."""

    def __init__(self, place: Place, session: str, cursor: str | None = None) -> None:
        self.chunks: list[StreamChunk] = []
        self._reading = asyncio.create_task(self._read(place, session, cursor))

    async def _read(self, place: Place, session: str, cursor: str | None) -> None:
        async with AgentStreamReader(place.url) as reader:
            async for chunk in reader.read_stream(session, cursor):
                self.chunks.append(chunk)

    async def has(self, text: str) -> None:
        await until(lambda: text in [chunk.text for chunk in self.chunks], START_S)

    async def end(self) -> tuple[str, str | None]:
        """All the text, and the error."""
        async with asyncio.timeout(START_S):
            await self._reading
        return text_of(self.chunks), self.chunks[-1].error


async def test_worker_and_client_in_processes_of_their_own(backend: str, place: Place, tmp_path: Path) -> None:
    with WorkerProcess(backend, **place.settings):
        ask = ("--ask", f"say:5 wait:{tmp_path}/go tool:Oslo say:5 usage")
        async with client(backend, place, "s1", *ask) as first:
            begun = list(await first.read("w5 "))
            async with client(backend, place, "s1", "--cursor", begun[2].cursor) as second:
                (tmp_path / "go").touch()
                whole, rest = await asyncio.gather(first.read(), second.read())
        assert text_of(whole) == said(5) + said(5)
        assert (whole[-1].type, whole[-1].error) == ("close", None)
        assert rest == whole[3:]
        async with AgentStreamReader(place.url) as reader:
            (info,) = await reader._playhead.find(Query(thread_ids=("s1",)))
        assert info.retention_s == (180.0 if "REDIS_STREAM_TTL_MINUTES" in place.settings else 86_400.0)
        with Asker(backend) as asker:
            for message in ("say:2 fail", "say:2 retry:3"):
                asker.ask(message, "s1")
        second_turn = Follower(place, "s1", whole[-1].cursor)
        assert await second_turn.end() == (said(2), "failed: RuntimeError: the provider refused, key ***")
        third_turn = Follower(place, "s1", second_turn.chunks[-1].cursor)
        assert await third_turn.end() == (said(2) + said(3).upper(), None)


@pytest.mark.crash
@pytest.mark.parametrize("how", ["recorded", "plain"])
async def test_a_killed_worker_is_known(backend: str, place: Place, how: str) -> None:
    with Asker(backend) as asker, WorkerProcess(backend, how=how, **place.settings) as worker:
        asker.ask("say:3 hang", "s1")
        reading = Follower(place, "s1")
        await reading.has("w3 ")
        worker.kill()
        assert await reading.end() == (said(3), "interrupted: producer-lost")
    late = Follower(place, "s1")
    await late.end()
    assert late.chunks == reading.chunks


@pytest.mark.crash
async def test_a_request_is_delivered_again_after_its_worker_was_killed(backend: str, place: Place) -> None:
    with Asker(backend) as asker, WorkerProcess(backend, **place.settings) as worker:
        asker.send("say:3 hang", "s1", "request-1")
        reading = Follower(place, "s1")
        await reading.has("w3 ")
        # The in-memory backend never delivers again; a scheduler does, to another worker, at once maybe.
        with running_backend() as other, Asker(other) as again, WorkerProcess(other, **place.settings):
            worker.kill()
            again.send("say:6", "s1", "request-1")
            assert await reading.end() == (said(3), "interrupted: producer-lost")
            answered = Follower(place, "s1", reading.chunks[-1].cursor)
            assert await answered.end() == (said(6), None)


async def test_a_request_that_runs_on_two_workers_at_once_is_recorded_once(
    backend: str, place: Place, tmp_path: Path
) -> None:
    with (
        running_backend() as other,
        Asker(backend) as asker,
        Asker(other) as again,
        WorkerProcess(backend, **place.settings),
        WorkerProcess(other, **place.settings) as second,
    ):
        asker.send(f"say:3 wait:{tmp_path}/go say:2", "s1", "request-1")
        reading = Follower(place, "s1")
        await reading.has("w3 ")
        again.send("say:9", "s1", "request-1")
        again.send("say:9", "other", "request-2")
        assert await Follower(place, "other").end() == (said(9), None)
        (tmp_path / "go").touch()
        assert await reading.end() == (said(3) + said(2), None)
        assert "ERROR" not in await asyncio.to_thread(second.stop)
    late = Follower(place, "s1")
    await late.end()
    assert late.chunks == reading.chunks


async def test_sessions_at_once_and_a_cancel_from_another_process(backend: str, place: Place) -> None:
    with Asker(backend) as asker, WorkerProcess(backend, "TravelPlanner", "Weather", **place.settings):
        asker.ask("say:3 hang", "s1")
        asker.ask("say:4 hang", "s1", agent="Weather")
        asker.ask("say:2 pace:0.01 say:50", "s2")
        first, same_key = Follower(place, "@TravelPlanner@s1"), Follower(place, "@Weather@s1")
        await asyncio.gather(first.has("w3 "), same_key.has("w4 "))
        assert await Follower(place, "s2").end() == (said(2) + said(50), None)
        async with AgentStreamReader(place.url) as reader:
            assert await reader.cancel("@Weather@s1", reason="enough")
            assert await same_key.end() == (said(4), "cancelled: enough")
            assert first.chunks[-1].text == "w3 "
            assert await reader.cancel("@TravelPlanner@s1")
            assert await first.end() == (said(3), "cancelled")
