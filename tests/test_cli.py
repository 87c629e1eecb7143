"""The ``playhead`` command as people and scripts use it: in a real terminal, and through pipes."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from running_server import ServerProcess
from terminal import Terminal

from playhead import Event, Playhead, event
from playhead.cli import streams
from playhead.cli.asking import complete_id

COMMAND = str(Path(sys.executable).parent / "playhead")
WAIT_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("cli")) as process:
        process.directory = tmp_path_factory.getbasetemp() / "cli0"  # type: ignore[attr-defined]
        yield process


def environment(url: str) -> dict[str, str]:
    # COLUMNS and LINES would say more than the terminal itself.
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PLAYHEAD_", "COLUMNS", "LINES"))}
    kind, _, path = url.partition(":")
    return {**keep, **({"PLAYHEAD_UDS": path} if kind == "unix" else {"PLAYHEAD_URL": url})}


def run(server: ServerProcess, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [COMMAND, *arguments], env=environment(server.url), capture_output=True, timeout=WAIT_S, check=False, **options
    )


def terminal(server: ServerProcess, *arguments: str, columns: int = 80, **env: str) -> Terminal:
    return Terminal([COMMAND, *arguments], {**environment(server.url), **env}, columns)


def said(server: ServerProcess, message: str) -> str:
    kind, _, path = server.url.partition(":")
    transport = httpx.HTTPTransport(uds=path) if kind == "unix" else None
    base_url = "http://localhost" if kind == "unix" else server.url
    with httpx.Client(base_url=base_url, timeout=WAIT_S, transport=transport) as http:
        return str(http.post("/v1/chat/message", json={"message": message}).json()["stream_id"])


def told_of(server: ServerProcess, stream_id: str) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/v1/streams/{stream_id}/info", timeout=WAIT_S).json())


def closed(server: ServerProcess, stream_id: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while (state := told_of(server, stream_id))["status"] == "live":
        assert time.monotonic() < until
        time.sleep(0.02)
    return state


def recorded(server: ServerProcess, *items: Any, stream_id: str | None = None) -> str:
    """A stream with exactly these events, on the server's store."""

    async def source() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async def record() -> str:
        directory: Path = server.directory  # type: ignore[attr-defined]
        async with Playhead.open(f"sqlite:///{directory / 'var' / 'playhead.db'}") as playhead:
            info = await playhead.start(source, owner="local", stream_id=stream_id)
            await playhead.wait(info.stream_id, principal="local")
            return info.stream_id

    return asyncio.run(record())


def test_help_and_version_answer_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    version = subprocess.run([COMMAND, "--version"], capture_output=True, timeout=WAIT_S, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Time of the processor: what the clock on the wall says depends on what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert version.stdout.startswith(b"playhead ")
    loaded = (
        "import sys, playhead.cli; print(sorted({'fastapi', 'httpx', 'rich.table', 'sqlalchemy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"[]\n"
    for command in ("ls", "tail", "cancel", "info", "rm", "serve"):
        assert subprocess.run([COMMAND, command, "--help"], capture_output=True, timeout=WAIT_S, check=True).stdout


def test_tail_to_a_pipe_is_the_text_byte_for_byte(server: ServerProcess) -> None:
    text = "a\r\nb\x1b[31m\0 🐳 \u202eright\n"
    stream_id = recorded(server, text, event("tool_call", {"name": "clock"}), "\ud800", "end")
    ended = run(server, "tail", stream_id)
    assert ended.returncode == 0
    assert ended.stdout == text.encode() + b"\xed\xa0\x80end"
    assert ended.stderr == b'[tool_call] {"name":"clock"}\n'


def test_tail_json_is_a_line_for_each_event_and_goes_on_from_a_cursor(server: ServerProcess) -> None:
    stream_id = recorded(server, "one", b"\xff", "three")
    lines = [json.loads(line) for line in run(server, "tail", stream_id, "--json").stdout.splitlines()]
    assert [(one.get("offset"), one["type"]) for one in lines] == [
        *((1, "text"), (2, "bytes"), (3, "text"), (None, "playhead.close"))
    ]
    assert (lines[1]["data"], lines[1]["encoding"], lines[3]["outcome"]) == ("/w==", "base64", "completed")
    rest = run(server, "tail", stream_id, "--json", "--after", lines[1]["cursor"]).stdout.splitlines()
    assert [json.loads(line) for line in rest] == lines[2:]
    nothing = run(server, "tail", stream_id, "--after", lines[3]["cursor"])
    assert (nothing.returncode, nothing.stdout) == (0, b"")


@pytest.mark.parametrize(("message", "code"), [("/pace 0 hi", 0), ("/pace 0 /error hi", 1)])
def test_the_exit_code_tells_the_outcome(server: ServerProcess, message: str, code: int) -> None:
    assert run(server, "tail", said(server, message)).returncode == code


def test_cancel_waits_for_the_close_and_is_idempotent(server: ServerProcess) -> None:
    stream_id = said(server, "/pace 5 /long 10000")
    asked = run(server, "cancel", stream_id)
    assert (asked.returncode, asked.stdout) == (0, b"cancelled\n")
    assert closed(server, stream_id)["outcome"]["kind"] == "cancelled"
    again = run(server, "cancel", stream_id, "--json")
    assert json.loads(again.stdout)["outcome"]["kind"] == "cancelled"
    assert run(server, "tail", stream_id).returncode == 3
    quick = said(server, "/pace 5 /long 10000")
    assert run(server, "cancel", "--no-wait", quick).stdout in (b"asked to stop\n", b"cancelled\n")


def test_a_dead_servers_streams_end_with_4(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as first:
        stream_id = said(first, "/pace 5 /long 10000")
        first.kill()
    with ServerProcess(tmp_path) as second:
        ended = run(second, "tail", stream_id)
    assert ended.returncode == 4
    assert b"interrupted: producer-lost" in ended.stderr


def test_tail_follows_a_server_through_its_restart(tmp_path: Path) -> None:
    # On a Unix socket: a port may be somebody else's by the time the second server has started.
    with tempfile.TemporaryDirectory() as short:  # paths of sockets may not be long
        path = f"{short}/p.sock"
        with ServerProcess(tmp_path, "--uds", path) as first:
            stream_id = said(first, "/pace 5 /long 10000")
            with terminal(first, "tail", stream_id) as shown:
                shown.until(lambda: b"demo model" in shown.raw, "the answer")
                first.kill()
                shown.shows("connection lost, reconnecting")
                with ServerProcess(tmp_path, "--uds", path):
                    assert shown.ended() == 4
                    shown.shows("interrupted: producer-lost")


def test_ls_info_rm_for_scripts(server: ServerProcess) -> None:
    stream_id = said(server, "/pace 0 hi")
    expected = closed(server, stream_id)
    found = [json.loads(line) for line in run(server, "ls", "--json", "--all").stdout.splitlines()]
    [mine] = [one for one in found if one["stream_id"] == stream_id]
    assert mine.keys() == expected.keys()
    assert {key: mine[key] for key in ("tail", "cursor", "outcome", "metadata")} == {
        key: expected[key] for key in ("tail", "cursor", "outcome", "metadata")
    }
    thread = run(server, "ls", "--json", "--thread", expected["thread_id"]).stdout.splitlines()
    assert [json.loads(line)["stream_id"] for line in thread] == [stream_id]
    assert json.loads(run(server, "info", stream_id[:10], "--json").stdout)["stream_id"] == stream_id
    refused = run(server, "rm", stream_id, stdin=subprocess.DEVNULL)
    assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1)
    assert run(server, "rm", "--yes", stream_id).returncode == 0
    gone = run(server, "info", stream_id)
    assert (gone.returncode, gone.stderr) == (6, b"playhead: there is no such stream\n")


def test_a_short_id_must_mean_one_stream(server: ServerProcess) -> None:
    for name in ("twins-1", "twins-2"):
        recorded(server, "x", stream_id=name)
    both = run(server, "info", "twins-")
    assert (both.returncode, both.stderr) == (2, b"playhead: 2 recent streams begin with twins-; give more of the id\n")
    assert run(server, "info", "twin").returncode == 6


def test_no_server_and_bad_words_are_one_line_each(server: ServerProcess) -> None:
    away = run(server, "ls", "--url", "http://127.0.0.1:1")
    assert (away.returncode, away.stderr.count(b"\n")) == (5, 1)
    assert b"playhead serve" in away.stderr
    bad = run(server, "tail", said(server, "/pace 0 hi"), "--after", "garbage")
    assert (bad.returncode, bad.stderr.count(b"\n")) == (2, 1)
    secret = run(server, "ls", "--token", "hunter2", "--url", "http://127.0.0.1:1")
    assert b"hunter2" not in secret.stdout + secret.stderr


def test_a_reader_that_leaves_ends_tail_quietly(server: ServerProcess) -> None:
    stream_id = recorded(server, *["many words " * 100] * 1_000)
    piped = subprocess.run(
        f"'{COMMAND}' tail {stream_id} | head -c 10",
        shell=True,
        env=environment(server.url),
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (piped.stdout, piped.stderr) == (b"many words", b"")


# ---- in a terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 140])
def test_the_table_fits_the_terminal(server: ServerProcess, columns: int) -> None:
    stream_id = said(server, "/pace 0 hi")
    thread_id = closed(server, stream_id)["thread_id"]
    with terminal(server, "ls", "--limit", "3", columns=columns) as shown:
        assert shown.ended() == 0
        head, *rows = shown.lines
        assert head.split()[:5] == ["ID", "STATE", "AGE", "EVENTS", "SIZE"]
        [row] = [row for row in rows if row.startswith(stream_id[:12])]
        assert "completed" in row
        assert (thread_id in row) == (stream_id in row) == (columns == 140)
        assert 1 <= len(rows) <= 3


def test_colours_are_for_terminals_that_want_them(server: ServerProcess) -> None:
    stream_id = said(server, "/pace 0 /error hi")
    closed(server, stream_id)
    with terminal(server, "ls") as coloured:
        assert coloured.ended() == 0
    with terminal(server, "ls", NO_COLOR="1") as plain:
        assert plain.ended() == 0
    assert b"\x1b[31m" in coloured.raw
    assert b"\x1b[31m" not in plain.raw
    assert b"\x1b" not in run(server, "ls").stdout


def test_nothing_in_a_stream_commands_the_terminal(server: ServerProcess) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jgone\x9b31m\u202e\r\nnext"
    stream_id = recorded(server, "before ", evil, event("tool_call", {"name": "\x1b[2J"}), stream_id="evil-id")
    for command in (["tail"], ["info"], ["ls", "--limit", "1"]):
        arguments = command if command[0] == "ls" else [*command, stream_id]
        with terminal(server, *arguments, NO_COLOR="1") as shown:
            assert shown.ended() == 0
            assert b"\x1b]" not in shown.raw
            assert b"\x1b[2J" not in shown.raw
            assert "\u202e".encode() not in shown.raw
            if command == ["tail"]:
                assert shown.lines[0].startswith("before \\x1b]0;owned\\x07\\x1b[2Jgone")
    with terminal(server, "tail", "--raw", stream_id) as raw:
        assert raw.ended() == 0
        assert b"\x1b[2Jgone" in raw.raw


def test_ctrl_c_leaves_with_the_cursor_to_go_on_with(server: ServerProcess) -> None:
    stream_id = said(server, "/pace 5 /long 10000")
    with terminal(server, "tail", stream_id, columns=120) as shown:
        shown.until(lambda: b"demo model" in shown.raw, "the answer")
        shown.resize(200, 50)
        shown.type("\x03")
        assert shown.ended() == 130
        shown.shows(f"playhead tail {stream_id} --after 1.")
    again = shown.text.replace("\n", "").split("go on with: playhead ")[1].split()
    with terminal(server, *again[:4]) as rest:
        rest.until(lambda: len(rest.raw) > 20, "more of the answer")
        assert "demo model" not in rest.text
    assert told_of(server, stream_id)["status"] == "live"
    run(server, "cancel", stream_id)


def test_ctrl_c_while_an_event_is_printed_gives_the_cursor_before_it(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream_id = recorded(server, "one", b"two", "three")
    cursors: list[str] = []

    def show(event: Event, cursor: str, **_: Any) -> None:
        cursors.append(cursor)
        if len(cursors) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(streams, "_show", show)
    for after in (None, "the first"):  # in the middle of the second event; and of the first one after a cursor
        with pytest.raises(typer.Exit) as ended:
            streams.tail(stream_id, after=after and cursors[0], url=server.url)
        assert ended.value.exit_code == 130
        assert capsys.readouterr().err == f"\nplayhead: go on with: playhead tail {stream_id} --after {cursors[0]}\n"
        del cursors[1:]


def test_rm_asks_a_person_first(server: ServerProcess) -> None:
    stream_id = said(server, "/pace 0 hi")
    closed(server, stream_id)
    for answer, code in (("n", 0), ("y", 6)):
        with terminal(server, "rm", stream_id) as shown:
            shown.shows("for good?")
            shown.type(f"{answer}\r")
            assert shown.ended() == 0
        assert run(server, "info", stream_id).returncode == code


def test_waiting_shows_that_something_happens(server: ServerProcess) -> None:
    stream_id = said(server, "/slow 600 hi")
    with terminal(server, "cancel", stream_id) as shown:
        assert shown.ended() == 0
        assert b"waiting for the close" in shown.raw
        assert shown.lines[-1] == "cancelled"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_ids(server: ServerProcess, shell: str) -> None:
    stream_id = said(server, "/pace 0 hi")
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else it is of the shell that runs the tests
    script = subprocess.run(
        [COMMAND, "--show-completion", shell], env={**environment(server.url), **named}, capture_output=True, check=True
    )
    assert {"bash": b"COMPREPLY", "zsh": b"#compdef", "fish": b"complete --command"}[shell] in script.stdout
    assert b"_PLAYHEAD_COMPLETE" in script.stdout
    line = f"playhead tail {stream_id[:4]}"
    asked = {
        "_PLAYHEAD_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }

    def completed(url: str) -> bytes:
        told = subprocess.run(
            [COMMAND], env={**environment(url), **asked}, capture_output=True, timeout=WAIT_S, check=False
        )
        assert told.stderr == b""
        return told.stdout

    until = time.monotonic() + WAIT_S
    while stream_id.encode() not in completed(server.url):  # a busy server may not answer in time
        assert time.monotonic() < until
    assert stream_id.encode() not in completed("http://127.0.0.1:1")


def test_the_shell_does_not_wait_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PLAYHEAD_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.delenv("PLAYHEAD_UDS", raising=False)
        began = time.monotonic()
        assert complete_id("a") == []
        assert time.monotonic() - began < 15, "half of what a client waits otherwise"
