"""``playhead serve`` as a process: its start, its clean end, and what a kill leaves behind. On SQLite."""

import asyncio
import contextlib
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from process_clients import Reader, as_environment, client, run, said
from running_server import WAIT_S, Frame, Frames, ServerProcess, eventually, settings

from playhead import Playhead
from playhead.server.stopping import EXIT_FORCED, deadline_s


def test_the_start_says_where_what_and_who(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        assert server.lines == [
            f"Playhead is at http://127.0.0.1:{server.port}",
            "  store     sqlite:///var/playhead.db",
            "  database  sqlite:///var/threads.db",
            "  model     the built-in demo model (set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)",
            "  access    no authentication: reachable from this machine only; everybody who comes in acts as one local"
            " user",
        ]
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        assert len(server.lines) == 5
    assert {path.name for path in (tmp_path / "var").iterdir()} >= {"playhead.db", "threads.db", "checkpoints.db"}


def test_the_model_in_use_is_named(tmp_path: Path) -> None:
    environment = {"OPENAI_BASE_URL": "http://127.0.0.1:9", "OPENAI_MODEL": "some-model"}
    with ServerProcess(tmp_path, "--store", "memory://", **environment) as server:
        assert "  model     some-model" in server.lines
        assert "  store     memory://" in server.lines


def test_settings_come_from_env_file_variables_and_options_in_rising_order(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLAYHEAD_DATA_DIR=from-file\nPLAYHEAD_STORE=memory://\nUNKNOWN=fine\n")
    with ServerProcess(tmp_path) as server:
        assert "  store     memory://" in server.lines
    with ServerProcess(tmp_path, PLAYHEAD_STORE="sqlite:///from-variable.db") as server:
        assert "  store     sqlite:///from-variable.db" in server.lines
        assert (tmp_path / "from-file" / "checkpoints.db").exists()
    with ServerProcess(tmp_path, "--store", "memory://", PLAYHEAD_STORE="sqlite:///from-variable.db") as server:
        assert "  store     memory://" in server.lines


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = run(tmp_path, "--port", port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"playhead: 127.0.0.1:{port} is in use; choose another one with --port or --uds\n"


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0 is not a loopback address"),
        (["--store", "mongodb://nowhere"], {}, "a store is memory://, sqlite:///path"),
        ([], {"PLAYHEAD_RETENTION_S": "long"}, "setting PLAYHEAD_RETENTION_S: "),
        ([], {"PLAYHEAD_LEASE_S": "-1"}, "setting PLAYHEAD_LEASE_S: "),
        ([], {"PLAYHEAD_ALLOWED_HOSTS": "localhost:9000,http://x/"}, "setting PLAYHEAD_ALLOWED_HOSTS: "),
        ([], {"PLAYHEAD_CORS_ORIGINS": "*"}, "setting PLAYHEAD_CORS_ORIGINS: '*' would let every page"),
        (["--uds", "x" * 200], {}, "the path of a Unix socket may have 103 bytes"),
        (["--workers", "0"], {}, "setting PLAYHEAD_WORKERS: "),
    ],
)
def test_a_wrong_start_is_one_clear_line(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], says: str
) -> None:
    ended = run(tmp_path, "--port", "0", *arguments, **environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"playhead: {says}")
    assert ended.stderr.count("\n") == 1


def test_a_store_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear reader, this is no database at all. " * 1_000)
    ended = run(tmp_path, "--port", "0", "--store", "sqlite:///letter.db")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("playhead: ")
    assert ended.stderr.count("\n") == 1


def test_settings_without_effect_are_told_in_one_line_and_passwords_never(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("REDIS_PASSWORD=se3ret\nANTHROPIC_API_KEY=ant-1\n")
    with ServerProcess(tmp_path) as server:
        (line,) = (line for line in server.lines if "unused" in line)
        assert line.startswith("  unused    REDIS_PASSWORD, ANTHROPIC_API_KEY: ")
        assert "  store     sqlite:///var/playhead.db" in server.lines
        assert "se3ret" not in server.output


@pytest.mark.parametrize("switch", [None, "true"])
async def test_requests_are_logged_only_if_asked_for(tmp_path: Path, switch: str | None) -> None:
    environment = {"PLAYHEAD_ACCESS_LOG": switch} if switch else {}
    with ServerProcess(tmp_path, "--store", "memory://", **environment) as server:
        async with client(server) as http:
            await http.get("/health", headers={"x-request-id": "look-for-me"})
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
        logged = [line for line in server.lines if "GET /health" in line]
    assert len(logged) == (1 if switch else 0)
    assert all("[look-for-me]" in line and " 200" in line for line in logged)


@pytest.mark.proves("P11.1", "P11.2", "P11.3", "P12.2")
async def test_on_a_unix_socket_everything_is_as_on_a_port(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # paths of sockets may not be long
        path = Path(short) / "p.sock"
        graces = {"shutdown_grace_s": 1, "cancel_grace_s": 20}  # a source that stops at once needs the first only
        with ServerProcess(tmp_path, "--uds", str(path), **as_environment(graces)) as server:
            assert server.url == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            curl = ["curl", "--silent", "--max-time", "20", "--unix-socket", str(path), "http://localhost/health"]
            done = await asyncio.to_thread(subprocess.run, curl, capture_output=True, check=True)
            assert done.stdout == b'{"status":"ok"}'

            second = await asyncio.to_thread(run, tmp_path / "var", "--uds", str(path))
            assert (second.returncode, second.stdout) == (1, "")
            assert second.stderr == f"playhead: {path} is in use; choose another one with --port or --uds\n"

            async with contextlib.AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(client(server)) for _ in range(4)]
                started = await said(clients[0], "/pace 20 /long 10000")
                readers = [Reader(http, started["stream_id"], events=3) for http in clients[1:]]
                async with asyncio.timeout(WAIT_S):
                    for reader in readers:
                        await reader.has_some.wait()
                told = time.monotonic()
                server.signal(signal.SIGTERM)
                async with asyncio.timeout(WAIT_S):
                    for reader in readers:
                        await reader.task
                assert {reader.seen.frames[-1].event for reader in readers} == {"text"}
            assert await asyncio.to_thread(server.ended) == 0
            assert time.monotonic() - told < deadline_s(settings(**graces))
            assert not path.exists()
    await _check_interrupted(tmp_path, started, "shutdown", readers[0])


@pytest.mark.crash
async def test_the_socket_of_a_killed_server_is_no_hindrance(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:
        path = Path(short) / "p.sock"
        with ServerProcess(tmp_path, "--uds", str(path)) as server:
            server.kill()
        assert path.exists()
        with ServerProcess(tmp_path, "--uds", str(path)) as server:
            async with client(server) as http:
                assert (await http.get("/ready")).status_code == 200


@pytest.mark.proves("P11.1", "P11.2", "P11.3")
async def test_sigterm_sends_readers_away_at_once_and_closes_what_remains_interrupted(tmp_path: Path) -> None:
    graces = {"shutdown_grace_s": 3, "cancel_grace_s": 20}  # a source that stops at once needs the first only
    with ServerProcess(tmp_path, **as_environment(graces)) as server:
        async with client(server) as http:
            started = await said(http, "/pace 30 /long 10000")
            reader = Reader(http, started["stream_id"], events=5)
            await asyncio.wait_for(reader.has_some.wait(), WAIT_S)
            told = time.monotonic()
            server.signal(signal.SIGTERM)
            await asyncio.wait_for(reader.task, WAIT_S)
            assert reader.seen.frames[-1].event == "text", "the stream had not ended, so nobody may be told so"
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient() as other:
                    await other.get(server.url + "/health")
        code = await asyncio.to_thread(server.ended)
        assert (code, time.monotonic() - told < deadline_s(settings(**graces))) == (0, True)
    rest = await _check_interrupted(tmp_path, started, "shutdown", reader)
    assert any(frame.event == "text" for frame in rest), "the source spoke on: readers do not wait for its grace"


async def _check_interrupted(directory: Path, started: dict[str, str], reason: str, reader: Reader) -> list[Frame]:
    """Started again: the partial answer is there and says so, readers get the rest, the next message works.

    Returns: the rest.
    """
    with ServerProcess(directory, PLAYHEAD_LEASE_S="60") as server:  # so long would a death take that is not proven
        async with client(server) as http:
            path = f"/v1/streams/{started['stream_id']}"
            began = time.monotonic()
            headers = {"last-event-id": reader.seen.frames[-1].id or ""}
            rest = Frames.of((await http.get(path, headers=headers)).text).frames
            assert time.monotonic() - began < 30, "the predecessor's death is proven, not waited for"
            closed = rest[-1].json()
            assert (rest[-1].event, closed["outcome"], closed["reason"]) == ("playhead.close", "interrupted", reason)
            offsets = [frame.json()["offset"] for frame in [*reader.seen.frames, *rest]]
            assert offsets == list(range(1, len(offsets) + 1))
            human, ai = (await http.get("/thread", params={"thread_id": started["thread_id"]})).json()
            text = "".join(f.json()["data"] for f in [*reader.seen.frames, *rest] if f.event == "text")
            assert (ai["content"], ai["outcome"]) == (text, "interrupted")
            assert human["type"] == "human"
            assert time.monotonic() - began < 30
            await said(http, "/pace 0 next", thread_id=started["thread_id"])
            turns = await eventually(lambda: _turns(http, started["thread_id"], 4))
            assert [turn["type"] for turn in turns] == ["human", "ai", "human", "ai"]
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
    return rest


async def _turns(http: httpx.AsyncClient, thread_id: str, count: int) -> list[dict[str, Any]] | None:
    turns: list[dict[str, Any]] = (await http.get("/thread", params={"thread_id": thread_id})).json()
    return turns if len(turns) == count else None


async def test_an_answer_that_ends_within_the_grace_is_completed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, PLAYHEAD_SHUTDOWN_GRACE_S="20") as server:
        async with client(server) as http:
            started = await said(http, "/pace 10 /long 60")
            server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
    async with Playhead.open(settings(data_dir=tmp_path / "var", store=None).store_url) as playhead:
        info = await playhead.info(started["stream_id"], principal="local")
    assert info.outcome
    assert (info.outcome.kind, info.settled) == ("completed", True)


async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, PLAYHEAD_SHUTDOWN_GRACE_S="100") as server:
        async with client(server) as http:
            started = await said(http, "/slow 600 hello")
            reader = Reader(http, started["stream_id"], events=1)
            await eventually(lambda: reader.seen.retry_ms is not None, "the reader is attached")
            server.signal(signal.SIGINT)
            await asyncio.wait_for(reader.task, WAIT_S)  # it has begun to shut down
        server.signal(signal.SIGINT)
        assert await asyncio.to_thread(server.ended) == EXIT_FORCED
        assert "told twice" in server.output


@pytest.mark.crash
async def test_after_kill_9_the_partial_answer_is_there_and_the_next_message_works(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        async with client(server) as http:
            started = await said(http, "/pace 10 /long 10000")
            reader = Reader(http, started["stream_id"], events=20)
            await asyncio.wait_for(reader.has_some.wait(), WAIT_S)
            server.kill()
            await asyncio.wait_for(reader.task, WAIT_S)
    await _check_interrupted(tmp_path, started, "producer-lost", reader)


def test_files_are_private(tmp_path: Path) -> None:
    with ServerProcess(tmp_path):
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "var").iterdir() if file.is_file()}
    assert {"playhead.db", "checkpoints.db"} <= modes.keys()
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("kind", ["garbage", "directory"])
def test_a_bad_checkpoint_file_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "var" / "checkpoints.db"
    file.parent.mkdir()
    if kind == "garbage":
        file.write_bytes(b"not a database " * 1000)
    else:
        file.mkdir()
    ended = run(tmp_path, "--port", "0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("playhead: the agent's file var/checkpoints.db cannot be opened: ")
    assert ended.stderr.count("\n") == 1


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    ended = run(tmp_path, "--port", "0")
    assert ended.returncode == 2
    assert "PLAYHEAD_DATA_DIR" in ended.stderr
    assert ended.stderr.count("\n") == 1
