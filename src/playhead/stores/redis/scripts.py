"""The three scripts, and how they are called. Redis loses them at a flush or a failover; then they are sent again."""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from playhead.stores.redis.router import Router
from playhead.stores.redis.wire import Word


class Script:
    """A Lua script beside this file."""

    def __init__(self, name: str) -> None:
        self.source = files(__package__).joinpath(name).read_bytes()
        self._sha = hashlib.sha1(self.source).hexdigest()

    def words(self, keys: list[bytes], arguments: list[Word]) -> list[Word]:
        return ["EVALSHA", self._sha, len(keys), *keys, *arguments]

    def call(
        self,
        router: Router,
        lane: int,
        keys: list[bytes],
        arguments: list[Word],
        answer: Callable[[Any], None],
        acks: int,
    ) -> None:
        router.call(lane, keys[0], self.words(keys, arguments), answer, script=self.source, acks=acks)

    async def ask(self, router: Router, lane: int, keys: list[bytes], *arguments: Word, acks: int = 0) -> Any:
        """Raises: StoreError."""
        words = self.words(keys, list(arguments))
        return await router.ask(lane, keys[0], *words, script=self.source, acks=acks)


APPEND = Script("append.lua")
COMMIT = Script("commit.lua")
READ = Script("read.lua")
