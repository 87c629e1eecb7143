"""PROTOCOL.md and the tests name the same requirements: an id without a proof, or a proof without an id, fails."""

import re
from pathlib import Path

import playhead.testing

ROOT = Path(__file__).parent.parent
ID = re.compile(r"^[-*] \*\*([A-Z]\d+(?:\.\d+)?)\*\*", re.MULTILINE)
PROOF = re.compile(r"@(?:pytest\.mark\.)?proves\(([^)]*)\)")


def stated() -> set[str]:
    return set(ID.findall((ROOT / "PROTOCOL.md").read_text()))


def proven() -> dict[str, set[str]]:
    """Id → the files whose tests claim to prove it."""
    found: dict[str, set[str]] = {}
    suite = Path(playhead.testing.__file__).parent
    for file in [*(ROOT / "tests").glob("test_*.py"), *suite.rglob("*.py")]:
        for arguments in PROOF.findall(file.read_text()):
            for name in re.findall(r'"([^"]+)"', arguments):
                found.setdefault(name, set()).add(file.name)
    return found


def test_every_requirement_is_proven_by_a_test() -> None:
    assert stated() - proven().keys() == set()


def test_every_proof_names_a_requirement() -> None:
    unknown = {name: files for name, files in proven().items() if name not in stated()}
    assert unknown == {}


def test_there_are_requirements() -> None:
    assert len(stated()) >= 40
