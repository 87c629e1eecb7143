"""Planted faults can be planted: their texts are there, their names differ, their tests exist."""

import ast
from pathlib import Path

import pytest
from mutants_list import FAULTS, Fault

import playhead
from playhead.testing import StoreSuite

ROOT = Path(__file__).resolve().parent.parent
SRC = Path(playhead.__file__).parent


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 30
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_planted(fault: Fault) -> None:
    sound = (SRC / fault.file).read_text()
    assert sound.count(fault.old) == 1
    if fault.file.endswith(".py"):  # the others are Lua
        ast.parse(sound.replace(fault.old, fault.new))
    for test in fault.tests:
        path, *_, name = test.partition("[")[0].split("::")
        text = (ROOT / path).read_text()
        assert any(shape in text for shape in (f"def {name}(", f"class {name}(", f"{name} = ")) or hasattr(
            StoreSuite, name
        )
