"""What the documents show is run, and what they list is complete."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from running_server import in_thread

from playhead.server.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n```python\n(.*?)```", re.DOTALL)


def example(name: str, page: str = README) -> str:
    return dict(EXAMPLE.findall(page))[name]


async def test_readme_makes_a_generator_durable_in_an_app_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(example("embed"))
    code = "import uvicorn; uvicorn.run('app:app', port=0, log_level='info')"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), cwd=tmp_path, stderr=asyncio.subprocess.PIPE, env={**os.environ}
    )
    try:
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=await _address(process), timeout=60) as client:
            stream_id = (await client.post("/ask", params={"question": "is it kept"})).json()["stream_id"]
            body = (await client.get(f"/answers/{stream_id}")).text
            said = re.findall(r'"data":"([^"]*)"', body)
            assert "".join(said) == "You asked: is it kept "
            assert "event: playhead.close" in body
            first = re.search(r"id: (\S+)", body)
            assert first is not None
            rest = (await client.get(f"/answers/{stream_id}", headers={"Last-Event-ID": first[1]})).text
            assert re.findall(r'"data":"([^"]*)"', rest) == said[1:]
            assert (await client.get("/answers/unknown")).status_code == 404
    finally:
        process.terminate()
        async with asyncio.timeout(60):
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise AssertionError("the example app did not start")


def test_readme_example_without_http_prints_what_it_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example("python")], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == [f"{number + 1} {number} " for number in range(5)]
    assert lines[5].startswith("completed 1.")


@pytest.mark.parametrize("name", ["client_async", "client_blocking"])
def test_examples_of_the_client_follow_a_stream_to_its_end(tmp_path: Path, name: str) -> None:
    code = example(name, (ROOT / "docs" / "client.md").read_text())
    with in_thread(tmp_path) as url:
        environment = {**os.environ, "PLAYHEAD_URL": url}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
    lines = done.stdout.splitlines()
    if name == "client_async":
        assert lines[0] in ("[live]", "[catching-up]")
        assert lines[-2].endswith("[closed]")
        assert lines[-1].startswith("completed 1.")
    else:
        offsets = [int(line.split(" ")[0]) for line in lines[:-1] if line[:1].isdigit()]
        assert offsets == list(range(1, len(offsets) + 1))
        assert len(offsets) > 20
        assert lines[-1] == "completed"


def test_the_embedding_example_has_about_twenty_lines() -> None:
    assert len([line for line in example("embed").splitlines() if line.strip()]) <= 21


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_setting_is_documented_with_its_default() -> None:
    table = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        names = _names(name, field.validation_alias)
        row = next((line for line in table.splitlines() if line.startswith(f"| `{names[0]}`")), None)
        assert row is not None, names[0]
        for other in names[1:]:
            assert f"`{other}`" in row, other
        if field.default is not None and field.default != ():
            assert f"`{field.default}`" in row, (names[0], field.default)


def test_every_documented_setting_exists() -> None:
    known = {n for name, field in Settings.model_fields.items() for n in _names(name, field.validation_alias)}
    table = (ROOT / "docs" / "settings.md").read_text()
    assert set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)) <= known


def _names(name: str, alias: object) -> list[str]:
    if alias is None:
        return [f"PLAYHEAD_{name.upper()}"]
    return [alias] if isinstance(alias, str) else list(alias.choices)  # type: ignore[attr-defined]
