"""Fixtures of the tests of adapters. Import them by name: they take the place of conftest's."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from playhead import Options
from playhead.store import Store
from playhead.stores import open_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[Options], Store]:
    """One store is enough: what a source yields is the same to all of them."""
    return lambda options: open_store(f"sqlite:///{tmp_path}/streams.db", options.store)


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> Iterator[None]:
    """Each test ends with a collection of garbage; the classes of these clients need not be searched each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
