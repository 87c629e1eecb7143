"""The Agent Framework example: the commands of its README, run as a user runs them."""

import asyncio
import json
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agent_framework_hosting import START_S, clean_environment
from openai_server import Answer, OpenAIServer, ToolCall
from redis_server import free_port

EXAMPLE = Path(__file__).parent.parent / "examples" / "agent_framework_travel"
README = (EXAMPLE / "README.md").read_text()
SCHEDULER = "python scheduler.py"
WORKER = "python worker.py"
ASK = 'python client.py "Plan a trip to Tokyo"'
GO_ON = "python client.py"
NEXT_TURN = 'python client.py "Make it cheap"'
ANOTHER = 'python client.py --new "Plan a trip to Oslo"'
CANCEL = "python client.py --cancel"
COMBINED = 'python combined.py "Plan a trip to Paris" "Make it cheap"'
END = "Have a good trip!\n"


def test_the_readme_shows_what_is_tested_here() -> None:
    shown = re.findall(r"^(python .*?) *(?:#.*)?$", README, re.MULTILINE)
    assert shown == [SCHEDULER, WORKER, ASK, GO_ON, NEXT_TURN, ANOTHER, CANCEL, COMBINED]


def test_its_files_are_short_and_listed() -> None:
    for path in EXAMPLE.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 150, path
    lines = len((EXAMPLE / "worker.py").read_text().splitlines())
    assert f"`worker.py` ({lines} lines)" in README


class Terminal:
    """Commands of the README in one directory, with the settings of one environment."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self._directory = directory
        self._settings = {"ENDPOINT": f"http://127.0.0.1:{free_port()}", **settings}

    @asynccontextmanager
    async def start(self, command: str, **settings: str) -> AsyncIterator["Command"]:
        """A command under way; it is killed at the end at the latest."""
        _, program, *words = shlex.split(command)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", str(EXAMPLE / program), *words),
            cwd=self._directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=clean_environment(**{**self._settings, **settings}),
        )
        try:
            yield Command(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def run(self, command: str, **settings: str) -> str:
        """What a command prints."""
        async with self.start(command, **settings) as under_way:
            return await under_way.end()


class Command:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def prints(self, text: str) -> str:
        """Wait until it has printed this; all until then."""
        assert self._process.stdout is not None
        out = ""
        async with asyncio.timeout(START_S):
            while text not in out:
                read = await self._process.stdout.read(4096)
                assert read, f"it ended after {out!r}"
                out += read.decode()
        return out

    async def end(self) -> str:
        async with asyncio.timeout(START_S):
            out, errors = await self._process.communicate()
        assert (self._process.returncode, errors) == (0, b""), errors.decode()
        return out.decode()

    async def interrupt(self) -> str:
        self._process.send_signal(signal.SIGINT)
        return await self.end()

    def kill(self) -> None:
        self._process.kill()


def plan(place: str) -> re.Pattern[str]:
    return re.compile(
        rf"Let me see what {place} has for you.\n\n\[asks get_weather\]\n\[asks get_events\]\n"
        rf"# {place} in four days\n\n## Day 1\n.*Have a good trip!\n\n?",
        re.DOTALL,
    )


async def test_three_terminals(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    async with terminal.start(SCHEDULER) as scheduler:
        await scheduler.prints("is at http://127.0.0.1:")
        async with terminal.start(WORKER, TRAVEL_PACE_S="0.05") as worker:
            await worker.prints("is at work")
            async with terminal.start(ASK) as client:
                first = await client.prints("## Day 1")
                first += await client.interrupt()
            first, left, nothing = first.partition("\n[left; the agent goes on, and so does: python client.py]\n")
            assert (bool(left), nothing) == (True, "")
            rest = await terminal.run(GO_ON)
            assert plan("Tokyo").fullmatch(first + rest)
            assert "nothing is left to print" in await terminal.run(GO_ON)
            cheap = await terminal.run(NEXT_TURN)
            assert plan("Tokyo").fullmatch(cheap)
            assert "the street market" in cheap
            async with terminal.start(NEXT_TURN) as client:
                await client.prints("## Day 4")  # a second is left to say, and the worker gives it five
                stopping = asyncio.create_task(worker.interrupt())
                assert END in await client.end()  # shutting down lets an answer end that does so soon
                await stopping
        async with terminal.start(WORKER, TRAVEL_PACE_S="0.5") as worker:
            async with terminal.start(ANOTHER) as client:
                oslo = await client.prints("# Oslo")
                oslo += await client.interrupt()
            assert await terminal.run(CANCEL) == "[stopped]\n"
            rest = await terminal.run(GO_ON)
            assert rest.endswith("\n[cancelled]\n")
            assert END not in oslo + rest
            assert await terminal.run(CANCEL) == "[there is nothing to stop]\n"
            async with terminal.start(NEXT_TURN) as client:
                await client.prints("# Oslo")
                worker.kill()
                assert (await client.end()).endswith("\n[interrupted: producer-lost]\n")
        # It may be delivered again: the client would wait for that now.
        assert not json.loads((tmp_path / "travel-client.json").read_text())["is_done"]
        async with terminal.start(SCHEDULER) as second:
            with pytest.raises(AssertionError, match="is in use already"):
                await second.end()


async def test_one_process(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, ENDPOINT="", TRAVEL_PACE_S="0.001")
    out = await terminal.run(COMBINED)
    first, _, second = out.partition("> Make it cheap\n")
    assert plan("Paris").fullmatch(first.removeprefix("> Plan a trip to Paris\n"))
    assert plan("Paris").fullmatch(second)
    async with terminal.start(COMBINED, TRAVEL_PACE_S="0.06") as combined:
        await combined.prints("# Paris")  # there are seconds left to stop it in
        out = await combined.interrupt()
    assert out.index("[cancelled]") < out.index("> Make it cheap") < out.index(END)


async def test_who_says_nothing_at_the_prompt_leaves(tmp_path: Path) -> None:
    assert "Where to?" in await Terminal(tmp_path, ENDPOINT="").run("python combined.py")


async def test_without_a_scheduler_the_client_says_so(tmp_path: Path) -> None:
    async with Terminal(tmp_path).start(ASK) as client:
        with pytest.raises(AssertionError, match="The scheduler does not answer"):
            await client.end()


async def test_without_its_store_the_worker_says_so_at_once(tmp_path: Path) -> None:
    async with Terminal(tmp_path, REDIS_CONNECTION_STRING=f"localhost:{free_port()}").start(WORKER) as worker:
        with pytest.raises(AssertionError, match=r"^Runs cannot be recorded: Redis at .* cannot be reached"):
            await worker.end()


async def test_any_openai_compatible_model_by_its_settings(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.answer(Answer("Let me look. ", tool_calls=(ToolCall("get_weather", ('{"place": "To', 'kyo"}')),)))
        server.answer(Answer("Tokyo ", "is ", "sunny."))
        terminal = Terminal(
            tmp_path, ENDPOINT="", OPENAI_API_KEY="any", OPENAI_BASE_URL=server.url, OPENAI_MODEL="local"
        )
        out = await terminal.run('python combined.py "Plan a trip to Tokyo"')
        assert out == "> Plan a trip to Tokyo\nLet me look. [asks get_weather]\nTokyo is sunny.\n"
        results = [message["content"] for message in server.requests[-1].messages if message["role"] == "tool"]
        assert results == ["Tokyo: 18 °C, sunny, a light wind in the evening"]
