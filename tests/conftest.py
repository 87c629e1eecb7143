"""Playheads on memory and on SQLite for the tests of the engines; each test must leave them tidy."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest
import pytest_asyncio
from redis_server import make_redis, redis_server, redis_url  # noqa: F401 - fixtures
from streaming import until

from playhead import Options, Playhead
from playhead.store import Store
from playhead.stores import open_store
from playhead.stores.memory import MemoryData, MemoryStore

# How long one example takes says more about the machine than about the code; ``parent`` keeps what a plugin has set.
hypothesis.settings.register_profile("patient", parent=hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")

OPTION_NAMES = {field.name for field in fields(Options)}


def pytest_configure(config: pytest.Config) -> None:
    # Only loopback is talked to: no client here, and in no process started from here, need read the machine's
    # certificates first (37 ms for each httpx client, and a failed test when somebody is just writing them).
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = os.devnull
    config.addinivalue_line("markers", "proves(*ids): requirements of PROTOCOL.md that this test proves")


def pytest_collection_finish() -> None:
    """Many tests end with a collection of garbage: what the imports made (0.2 s each time) need not be searched."""
    gc.collect()
    gc.freeze()


class OpenPlayhead(Protocol):
    async def __call__(self, wrap: Callable[[Store], Store] = ..., **settings: Any) -> Playhead: ...


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Options], Store]:
    """Makes one more store on the same data: like one more process on one database."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return lambda options: open_store(url, options.store)
    if request.param == "memory":
        data = MemoryData()
        return lambda options: MemoryStore(data, options=options.store)
    return lambda options: open_store(f"sqlite:///{tmp_path}/streams.db", options.store)


@pytest_asyncio.fixture
async def open_playhead(make_store: Callable[[Options], Store]) -> AsyncIterator[OpenPlayhead]:
    """Opens Playheads on one store: ``open_playhead(lease_s=…, settle=…)``; ``wrap`` puts faults around the store."""
    opened: list[Playhead] = []
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def open_one_more(wrap: Callable[[Store], Store] = lambda store: store, **settings: Any) -> Playhead:
        chosen = {name: settings.pop(name) for name in OPTION_NAMES & settings.keys()}
        options = Options(**{"cancel_grace_s": 0.5, **chosen})
        playhead = Playhead(wrap(make_store(options)), options=options, **settings)
        opened.append(playhead)
        return await playhead.connect()

    yield open_one_more
    for playhead in opened:
        async with asyncio.timeout(60):
            await playhead.close()
        assert not playhead._producers
        assert not playhead._background
    del open_one_more
    gc.collect()
    for playhead in opened:
        assert not playhead._readers.counts
        assert not playhead._readers.feeds
    await until(lambda: asyncio.all_tasks() - before <= {asyncio.current_task()})
    assert not complaints


@pytest_asyncio.fixture
async def playhead(open_playhead: OpenPlayhead) -> Playhead:
    return await open_playhead()
