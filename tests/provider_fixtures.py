"""Fixtures of the tests of adapters. Import them by name: they take the place of conftest's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import OpenPlayhead

from playhead import Options, Playhead
from playhead.store import Store
from playhead.stores import open_store


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[Options], Store]:
    """One store is enough: what a source yields is the same to all of them."""
    return lambda options: open_store(f"sqlite:///{tmp_path}/streams.db", options.store)


@pytest_asyncio.fixture(name="playhead")
async def patient_playhead(open_playhead: OpenPlayhead) -> Playhead:
    """These sources clean up over sockets and files when they are cancelled: no stall may cut that short."""
    return await open_playhead(cancel_grace_s=30.0)
