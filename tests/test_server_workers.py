"""``--workers`` and ``--reload`` as processes on one SQLite file. What a parent decides: test_server_parent.py."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest
from process_clients import Reader, as_environment, run, said
from running_server import WAIT_S, Frames, ServerProcess, eventually, settings

from playhead import Playhead
from playhead.model import StreamInfo
from playhead.server.stopping import deadline_s

START_S = 60.0
"""What a new worker gets on a busy machine; it imports for seconds."""


def worker_pids(server: ServerProcess) -> list[int]:
    # The eldest first, which is worker 1: the numbers of processes begin anew now and then.
    children = sorted(psutil.Process(server.process.pid).children(), key=lambda child: child.create_time())
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


async def two_workers(server: ServerProcess) -> tuple[int, int]:
    await eventually(lambda: any("worker 2 is ready" in line for line in server.lines))
    first, second = worker_pids(server)
    return first, second


@contextlib.asynccontextmanager
async def client_of(server: ServerProcess, pid: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with one connection, which this worker has accepted: the others are held while it does."""
    others = [other for other in worker_pids(server) if other != pid]
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, limits=limits) as http:
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            assert (await http.get("/health")).status_code == 200
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)
        yield http


async def clients_of(stack: contextlib.AsyncExitStack, server: ServerProcess, *pids: int) -> list[httpx.AsyncClient]:
    return [await stack.enter_async_context(client_of(server, pid)) for pid in pids]


async def stored(directory: Path, stream_id: str) -> StreamInfo:
    """What a stream came to, when all servers have ended."""
    async with Playhead.open(settings(data_dir=directory / "var", store=None).store_url) as playhead:
        return await playhead.info(stream_id, principal="local")


@pytest.mark.crash
@pytest.mark.proves("P4.2", "P5.1")
async def test_workers_are_one_server_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--workers", "2", PLAYHEAD_LEASE_S="60") as server:
        assert "  workers   2" in server.lines
        first, second = await two_workers(server)
        async with contextlib.AsyncExitStack() as stack:
            one, other, more = await clients_of(stack, server, first, second, second)
            # Produced here, seen there while it is live, and cancelled from there
            started = await said(one, "/pace 10 /long 10000")
            reader = Reader(other, started["stream_id"], events=5)
            await asyncio.wait_for(reader.has_some.wait(), WAIT_S)
            answer = await more.post(f"/v1/streams/{started['stream_id']}/cancel")
            assert answer.status_code in (200, 202)
            await asyncio.wait_for(reader.task, WAIT_S)
            assert reader.seen.frames[-1].json()["outcome"] == "cancelled"

            # Killed here in mid-answer, known there at once: the lease is 60 s. Connections that were idle for a while
            # may be closed, and made again to the other worker, so these are new ones.
            one, other = await clients_of(stack, server, first, second)
            started = await said(one, "/pace 10 /long 10000")
            reader = Reader(other, started["stream_id"], events=5)
            await asyncio.wait_for(reader.has_some.wait(), WAIT_S)
            killed = time.monotonic()
            os.kill(first, signal.SIGKILL)
            await asyncio.wait_for(reader.task, WAIT_S)
            assert time.monotonic() - killed < 30
            closed = reader.seen.frames[-1].json()
            assert (closed["outcome"], closed["reason"]) == ("interrupted", "producer-lost")
            offsets = [frame.json()["offset"] for frame in reader.seen.frames]
            assert offsets == list(range(1, len(offsets) + 1))

            # The place is filled again, and the thread goes on there
            await eventually(lambda: any("worker 1 is ready" in line for line in server.lines))
            new = next(pid for pid in worker_pids(server) if pid not in (first, second))
            async with client_of(server, new) as third:
                started = await said(third, "/pace 0 next", thread_id=started["thread_id"])
                rest = Frames.of((await third.get(f"/v1/streams/{started['stream_id']}")).text).frames
                assert rest[-1].json()["outcome"] == "completed"
        assert any("was killed by SIGKILL" in line for line in server.lines)
        for pid in (*worker_pids(server), server.process.pid):  # Ctrl-C in a terminal
            os.kill(pid, signal.SIGINT)
        assert await asyncio.to_thread(server.ended) == 0


@pytest.mark.proves("P11.1", "P11.2", "P11.3")
async def test_sigterm_with_readers_everywhere_and_a_running_answer(tmp_path: Path) -> None:
    graces = {"shutdown_grace_s": 2, "cancel_grace_s": 20}  # a source that stops at once needs the first only
    with ServerProcess(tmp_path, "--workers", "2", **as_environment(graces)) as server:

        async def refused() -> bool:
            try:
                async with httpx.AsyncClient(timeout=1) as late:
                    await late.get(server.url + "/health")
            except httpx.ConnectError:
                return True
            except httpx.TransportError:
                pass  # the parent's socket is still open, and nobody accepts from it any more
            return False

        first, second = pids = await two_workers(server)
        async with contextlib.AsyncExitStack() as stack:
            clients = await clients_of(stack, server, first, first, second, second)
            started = await said(clients[0], "/pace 20 /long 10000")
            readers = [Reader(http, started["stream_id"], events=3) for http in clients[1:]]
            async with asyncio.timeout(WAIT_S):
                for reader in readers:
                    await reader.has_some.wait()
            told = time.monotonic()
            # As a service manager does it: everybody is told, and the parent passes it on as well
            for pid in (*pids, server.process.pid):
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                for reader in readers:
                    await reader.task
            assert {reader.seen.frames[-1].event for reader in readers} == {"text"}
            await eventually(refused)
            code = await asyncio.to_thread(server.ended)
        assert (code, time.monotonic() - told < deadline_s(settings(**graces))) == (0, True)
        assert not any(psutil.pid_exists(pid) for pid in pids)
    info = await stored(tmp_path, started["stream_id"])
    assert info.outcome
    assert (info.outcome.kind, info.outcome.reason, info.settled) == ("interrupted", "shutdown", True)
    read = max(reader.seen.frames[-1].json()["offset"] for reader in readers)
    assert info.tail > read, "the answer went on: readers do not wait for its grace"


@pytest.mark.crash
async def test_workers_of_a_killed_parent_end_cleanly(tmp_path: Path) -> None:
    graces = {"shutdown_grace_s": 0.2, "cancel_grace_s": 20}  # a source that stops at once needs the first only
    with ServerProcess(tmp_path, "--workers", "2", **as_environment(graces)) as server:
        pids = await two_workers(server)
        async with client_of(server, pids[1]) as http:
            started = await said(http, "/pace 10 /long 10000")
            server.process.kill()
            await eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers' end")
    info = await stored(tmp_path, started["stream_id"])
    assert info.outcome
    assert (info.outcome.kind, info.outcome.reason) == ("interrupted", "shutdown")


@pytest.mark.parametrize("where", [{"PLAYHEAD_STORE": "memory://"}, {"PLAYHEAD_DATABASE": "sqlite://"}])
def test_what_is_in_memory_cannot_be_shared(tmp_path: Path, where: dict[str, str]) -> None:
    ended = run(tmp_path, "--port", "0", "--workers", "2", **where)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("playhead: several workers share one store")
    assert ended.stderr.count("\n") == 1


def test_what_a_worker_cannot_begin_with_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear reader, this is no database at all. " * 1_000)
    ended = run(tmp_path, "--port", "0", "--workers", "2", "--store", "sqlite:///letter.db")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("playhead: ")
    assert ended.stderr.count("\n") == 1


async def test_a_reload_takes_new_settings_and_does_not_wait_for_open_streams(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, "--reload", PLAYHEAD_SHUTDOWN_GRACE_S="60") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            started = await said(http, "/slow 600 hello")
            reader = Reader(http, started["stream_id"], events=1)
            before = worker_pids(server)
            await eventually(lambda: reader.seen.retry_ms is not None, "the reader is attached")

            (tmp_path / ".env").write_text("OPENAI_BASE_URL=http://127.0.0.1:9\nOPENAI_MODEL=another-model\n")
            saved = time.monotonic()
            await asyncio.wait_for(reader.task, WAIT_S)
            assert time.monotonic() - saved < 30, "with seconds to spare: the grace of 60 s is not for reloads"
            assert all(frame.event != "playhead.close" for frame in reader.seen.frames)
            async with httpx.AsyncClient(base_url=server.url, timeout=START_S) as other:
                assert "another-model" in (await other.get("/")).text, "a connection meanwhile waits for the new worker"
            state = (await http.get(f"/v1/streams/{started['stream_id']}/info")).json()
            assert (state["outcome"]["kind"], state["outcome"]["reason"]) == ("interrupted", "shutdown")
            assert not set(before) & set(worker_pids(server))

            (tmp_path / ".env").write_text("PLAYHEAD_LEASE_S=long\n")
            await eventually(lambda: any("when a file changes" in line for line in server.lines))
            assert any("setting PLAYHEAD_LEASE_S: " in line for line in server.lines)
            (tmp_path / ".env").unlink()
            async with httpx.AsyncClient(base_url=server.url, timeout=START_S) as other:
                assert (await other.get("/health")).status_code == 200
        server.signal(signal.SIGINT)
        assert await asyncio.to_thread(server.ended) == 0


def test_reloading_is_for_one_worker(tmp_path: Path) -> None:
    ended = run(tmp_path, "--port", "0", "--workers", "2", "--reload")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
