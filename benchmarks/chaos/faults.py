"""The dice: what is done to which process, and when. One fault of Redis at a time; one steady instance always."""

import asyncio
import random
from collections.abc import Sequence

from benchmarks.chaos.processes import Instance, Redis, now
from benchmarks.chaos.streams import Tally

KILL, FREEZE, FREEZE_SHORT = "instance killed", "instance frozen past its lease", "instance frozen for a moment"
REDIS_KILL, REDIS_FREEZE = "Redis killed", "Redis frozen"
CUT_NORMAL, CUT_PUBSUB, FLUSH = "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub", "SCRIPT FLUSH"
_OF_INSTANCES = {KILL: 4, FREEZE: 3, FREEZE_SHORT: 2}
_OF_REDIS = {REDIS_KILL: 2, REDIS_FREEZE: 1, CUT_NORMAL: 2, CUT_PUBSUB: 2, FLUSH: 2}
PAUSE_S = (1.0, 4.0)


class Faults:
    def __init__(
        self, dice: random.Random, instances: Sequence[Instance], redis: Redis | None, lease_s: float, tally: Tally
    ) -> None:
        self._dice = dice
        self._instances = instances
        self._redis = redis
        self._lease_s = lease_s
        self._tally = tally
        self._mending: set[asyncio.Task[None]] = set()
        self._mending_redis: asyncio.Task[None] | None = None

    async def run(self, until: float) -> None:
        """Do harm until that moment, then wait until all is mended. Raises: what mending raised."""
        kinds = _OF_INSTANCES | (_OF_REDIS if self._redis is not None else {})
        while now() < until:
            await asyncio.sleep(self._dice.uniform(*PAUSE_S))
            kind = self._dice.choices(list(kinds), list(kinds.values()))[0]
            if await (self._to_redis(kind) if kind in _OF_REDIS else self._to_instance(kind)):
                self._tally.faults[kind] += 1
            for task in [task for task in self._mending if task.done()]:
                self._mending.discard(task)
                task.result()
        await asyncio.gather(*self._mending)

    def _mend(self, work: "asyncio.Task[None]") -> None:
        self._mending.add(work)

    # ---- instances ---------------------------------------------------------------------------------

    def _is_steady(self, instance: Instance) -> bool:
        """Whether it may close what others leave: it trusts leases only one lease after it came."""
        life = instance.life
        if life is None or instance.is_frozen:
            return False
        return now() - max([life.began_at, *(span.end for span in life.frozen)]) > self._lease_s + 1.0

    async def _to_instance(self, kind: str) -> bool:
        steady = [instance for instance in self._instances if self._is_steady(instance)]
        if len(steady) < 2:
            return False
        instance = self._dice.choice(steady)
        self._tally.done(f"{kind}: {instance.directory.name}")
        if kind == KILL:
            await instance.kill()
            self._mend(asyncio.create_task(self._start_again(instance, self._dice.uniform(0.1, 3.0))))
        else:
            past = kind == FREEZE
            instance.freeze(past_lease=past)
            stands_s = self._lease_s + self._dice.uniform(2.5, 5.0) if past else 0.4 * self._lease_s
            self._mend(asyncio.create_task(self._thaw(instance, stands_s)))
        return True

    async def _start_again(self, instance: Instance, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await instance.start()
        self._tally.done(f"started again: {instance.directory.name}")

    async def _thaw(self, instance: Instance, after_s: float) -> None:
        await asyncio.sleep(after_s)
        instance.thaw()
        self._tally.done(f"thawed: {instance.directory.name}")

    # ---- Redis -------------------------------------------------------------------------------------

    async def _to_redis(self, kind: str) -> bool:
        redis = self._redis
        assert redis is not None
        if self._mending_redis is not None and not self._mending_redis.done():
            return False
        self._tally.done(kind)
        if kind in (REDIS_KILL, REDIS_FREEZE):
            away_s = self._dice.uniform(0.1, 2 * self._lease_s)  # shorter and longer than a lease
            self._mending_redis = asyncio.create_task(self._take_away(redis, kind, away_s))
            self._mend(self._mending_redis)
        else:
            await redis.command(*kind.split())
        return True

    async def _take_away(self, redis: Redis, kind: str, away_s: float) -> None:
        if kind == REDIS_KILL:
            await redis.kill()
            await asyncio.sleep(away_s)
            await redis.start()
        else:
            redis.freeze()
            await asyncio.sleep(away_s)
            await redis.thaw()
        self._tally.done("Redis is there again")
