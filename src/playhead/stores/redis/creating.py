"""Making a stream: claim what must be unique, list it, then make it. A crash between two steps leaves nothing wrong."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

from playhead.errors import PlayheadError, StoreCorrupt, StoreUnavailable
from playhead.log import Create, Facts, decide
from playhead.model import StreamInfo
from playhead.state import pack_state
from playhead.store import Applied
from playhead.stores.redis.claims import Claim, Claims
from playhead.stores.redis.keys import Keys, encoded
from playhead.stores.redis.lists import Listing, Lists
from playhead.stores.redis.router import WRITE, Router
from playhead.stores.redis.scripts import COMMIT
from playhead.stores.redis.states import Row, States, fields


class Creating:
    """Carries out Create commands."""

    def __init__(
        self,
        router: Router,
        keys: Keys,
        states: States,
        lists: Lists,
        claims: Claims,
        clock: Callable[[], float],
        take_back: Callable[[Row], Awaitable[object]],
    ) -> None:
        self._router, self._keys, self._states, self._lists = router, keys, states, lists
        self._claims, self._clock, self._take_back = claims, clock, take_back
        self._replicas = router.address.replicas

    async def create(self, stream_id: str, command: Create) -> Applied:
        claims = self._claims
        key, thread_id = command.idempotency_key, command.thread_id
        taken: list[Claim] = []
        pack_state(StreamInfo(stream_id, metadata=command.metadata))  # refused before anything is done
        try:
            if key is not None:
                of_key = self._keys.request(command.owner, key)
                request = await claims.take(
                    of_key, stream_id, lambda info: (info.owner, info.idempotency_key) == (command.owner, key)
                )
                if isinstance(request, StreamInfo):
                    return self._existing(request, command)
                taken.append(request)
            row = await self._states.row(stream_id)
            if row is not None:
                return self._existing(row.info, command)
            if thread_id is not None:
                of_thread = self._keys.live_on(thread_id)
                thread = await claims.take(
                    of_thread, stream_id, lambda info: info.is_live and info.thread_id == thread_id
                )
                if isinstance(thread, StreamInfo):
                    decide(stream_id, None, command, Facts(self._clock(), live_on_thread=thread.stream_id))
                    raise StoreCorrupt("the rules let two streams be live on one thread")
                taken.append(thread)
            info = await self._make(stream_id, command, taken)
            if info is not None:
                return Applied(info, changed=True)
        finally:
            for claim in taken:
                await claims.give_back(claim)
        return await self.create(stream_id, command)  # somebody was faster: it is there now

    def _existing(self, info: StreamInfo, command: Create) -> Applied:
        same = decide(info.stream_id, info, command, Facts(self._clock()))
        assert same is info
        return Applied(info, changed=False)

    async def _make(self, stream_id: str, command: Create, taken: list[Claim]) -> StreamInfo | None:
        """The new stream, once everything that must be unique is claimed; None when there is one of that id."""
        keys, lists = self._keys, self._lists
        number = await self._router.ask(WRITE, keys.count, "INCR", keys.count)
        command = replace(command, metadata=json.loads(json.dumps(dict(command.metadata))))
        now, older = self._clock(), 0
        place, name = keys.owner_live(command.owner), encoded(stream_id)
        if command.live_per_owner_max is not None:
            # Listed first, then counted: of those who race, the one with the lowest numbers win.
            await lists.carry_out([(place, ["ZADD", place, number, name])])
            older = await self._live_before(place, number, command.live_per_owner_max)
        try:
            new = decide(stream_id, None, command, Facts(now, live_of_owner=older))
        except PlayheadError:
            await lists.carry_out([(place, ["ZREM", place, name])])
            raise
        assert new is not None
        await lists.carry_out(lists.before(None, new, number))
        stream, info = keys.stream(stream_id), pack_state(new)
        values = [*fields(b"1", new, info), "tail", 0, "size", 0, "no", number]
        # From here on the claims may be the stream's: who does not hear the answer must not give them back.
        held, taken[:] = list(taken), []
        # The last step, so whoever is woken by it finds the stream.
        begun = b"" if new.thread_id is None else keys.begun(new.thread_id)
        reply = await COMMIT.ask(
            self._router, WRITE, [stream.state], "", stream.news, info, begun, *values, acks=self._replicas
        )
        if reply is None:
            taken += held
            return None
        for claim in held:
            if not await self._claims.check(claim):
                await self._take_back(Row(b"1", number, new))
                raise StoreUnavailable("Redis was too slow to make this stream; start it again")
        return new

    async def _live_before(self, place: bytes, number: int, limit: int) -> int:
        """How many live streams of an owner are older than ``number``; those that only seem to be are struck off."""
        lists = self._lists
        found = await lists.newest(place, f"({number}", limit + 100)
        if len(found) < limit:
            return len(found)
        rows = await self._states.rows([stream_id for _, stream_id in found])
        # One that is not there yet is about to be made, unless its maker died: then it is struck off in a while.
        count = 0
        healed: list[Listing] = []
        for (_, stream_id), row in zip(found, rows, strict=True):
            if row is None or not row.info.is_live:
                healed += lists.suspect(place, stream_id)
            count += row is None or row.info.is_live
        await lists.carry_out(healed)
        return count
