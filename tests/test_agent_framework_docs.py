"""What docs/agent-framework.md shows is run, and what it lists is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from agent_framework_hosting import clean_environment, running_backend

from playhead.adapters.agent_framework import AgentStreamReader, PlayheadResponseCallback, StreamChunk, events

PAGE = (Path(__file__).parent.parent / "docs" / "agent-framework.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "model.py").write_text("from agent_framework_scripted import ScriptedChatClient as chat_client\n")
    return tmp_path


def run(directory: Path, name: str, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, f"{name}.py", *words],
        cwd=directory,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_worker_and_client_do_what_the_page_says(directory: Path) -> None:
    with running_backend() as address:
        environment = clean_environment(ENDPOINT=f"http://{address}")
        worker = subprocess.Popen(
            [sys.executable, "worker.py"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            first = run(directory, "client", "say:3", ENDPOINT=f"http://{address}")
            assert re.fullmatch(r"w1 w2 w3 \n\[done\] 1\.\S+\n", first)
            second = run(directory, "client", "say:1 fail", ENDPOINT=f"http://{address}")
            assert re.fullmatch(r"w1 \n\[failed: RuntimeError: the provider refused, key \*\*\*\] 1\.\S+\n", second)
            worker.communicate("\n", timeout=120)
            assert worker.returncode == 0
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.communicate()


def test_a_direct_run_does_what_the_page_says(directory: Path) -> None:
    assert run(directory, "direct") == "w1 w2 w3 "


def test_what_the_page_lists_is_there() -> None:
    for name in StreamChunk.__dataclass_fields__:
        assert f"`{name}`" in PAGE
    for kind in (events.MESSAGE, events.CONTENT, events.UPDATE, events.REPLACED, events.OMITTED):
        assert f"| `{kind}` |" in PAGE
    for call in (PlayheadResponseCallback.__init__, AgentStreamReader.__init__, AgentStreamReader.read_stream):
        for name in call.__annotations__.keys() - {"return"}:
            assert re.search(rf"\b{name}=", PAGE) or f"`{name}`" in PAGE, name
