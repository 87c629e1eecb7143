"""docs/resumable-stream.md: its examples run, and the tests that it names are there."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
from resumable_app import WAIT_S, AppProcess, complaints_of

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "resumable-stream.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


def test_every_row_names_tests_that_are_there() -> None:
    there = set()
    for path in TESTS.glob("test_resumable_stream*.py"):
        there |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    rows = PAGE.partition("## What it lacks")[2].strip().partition("\n\n")[2].partition("\n\n")[0].split("\n|")[2:]
    assert len(rows) == 11
    for row in rows:
        shown_by = re.findall(r"`(test_\w+)`", row.rstrip("|\n").rpartition("|")[2])
        assert shown_by, row
        assert set(re.findall(r"`(test_\w+)`", row)) <= there, row


def test_the_app_of_the_page(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(EXAMPLES["app"].replace("redis://localhost:6379", redis_url))
    app = AppProcess(tmp_path, tmp_path)
    try:
        with httpx.Client(base_url=app.url, timeout=WAIT_S) as client:
            answer = client.get("/stream/s1")
            assert answer.text == "".join(f"data: chunk {number}\n\n" for number in range(10))
            assert client.get("/stream/s1", params={"resume_at": 5}).status_code == 422
        assert app.stop() in (0, -15)
        assert "Traceback" not in app.output
    finally:
        app.end()


def test_the_script_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EXAMPLES["script"])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert complaints_of(done.stderr) == []
    assert done.stdout == "chunk 0\nchunk 1\nchunk 2\n"
