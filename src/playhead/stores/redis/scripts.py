"""The three scripts, and how they are called. Redis loses them at a flush or a failover; then they are sent again."""

import hashlib
from importlib.resources import files
from typing import Any

from playhead.stores.redis.router import Router
from playhead.stores.redis.wire import Word


class Script:
    """A Lua script beside this file."""

    def __init__(self, name: str) -> None:
        self.source = files(__package__).joinpath(name).read_bytes()
        self.sha = hashlib.sha1(self.source).hexdigest()

    async def ask(self, router: Router, lane: int, keys: list[bytes], *arguments: Word, acks: int = 0) -> Any:
        """Raises: StoreError."""
        words: list[Word] = ["EVALSHA", self.sha, len(keys), *keys, *arguments]
        return await router.ask(lane, keys[0], *words, script=self.source, acks=acks)


APPEND = Script("append.lua")
COMMIT = Script("commit.lua")
READ = Script("read.lua")
