"""Every store keeps the contract: one suite, one model, one fixture each."""

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from redis_server import RedisServer, connect_patiently

from playhead.stores.memory import MemoryData, MemoryStore
from playhead.stores.redis import RedisStore
from playhead.stores.sqlite import SQLiteStore
from playhead.testing import StoreSuite
from playhead.testing.stateful import StoreMachine
from playhead.testing.suite.case import MakeStore


class TestMemory(StoreSuite):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        data = MemoryData()
        return lambda clock, options: MemoryStore(data, clock=clock, options=options)


class TestSQLite(StoreSuite):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda clock, options: SQLiteStore(tmp_path / "playhead.db", clock=clock, options=options)


class TestRedis(StoreSuite):
    @pytest.fixture
    def make_store(self, redis_url: str) -> MakeStore:
        return lambda clock, options: RedisStore(redis_url, clock=clock, options=options)


class MemoryMachine(StoreMachine):
    def start(self) -> MakeStore:
        data = MemoryData()
        return lambda clock, options: MemoryStore(data, clock=clock, options=options)


class SQLiteMachine(StoreMachine):
    def start(self) -> MakeStore:
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name) / "playhead.db"
        return lambda clock, options: SQLiteStore(path, clock=clock, options=options)

    def finish(self) -> None:
        self.folder.cleanup()


class RedisMachine(StoreMachine):
    url = ""
    numbers = itertools.count()

    def start(self) -> MakeStore:
        url = f"{self.url}?prefix=example{next(self.numbers)}"
        return lambda clock, options: RedisStore(url, clock=clock, options=options)


TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = settings(max_examples=60, stateful_step_count=50)
TestSQLiteModel = SQLiteMachine.TestCase
TestSQLiteModel.settings = settings(max_examples=25, stateful_step_count=50)


class TestRedisModel(RedisMachine.TestCase):
    settings = settings(max_examples=25, stateful_step_count=50)

    @pytest.fixture(autouse=True)
    def redis(self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        connect_patiently(monkeypatch)
        RedisMachine.url = redis_server.url
