"""Watch: every kind of news wakes every watcher, of this instance and of others."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from playhead.errors import StreamExpired, StreamNotFound
from playhead.log import Claim, Close, CloseDead, Command, Delete, Expire, RequestCancel
from playhead.model import COMPLETED, Batch, StreamInfo
from playhead.store import Store
from playhead.testing.clock import ManualClock
from playhead.testing.suite.case import LEASE_S, StoreCase, Watcher, append, create, create_closed, proves, words


class WatchingSuite(StoreCase):
    async def test_p1_watchers_are_woken_before_the_append_returns(self, store: Store) -> None:
        lease = await create(store)
        watcher = Watcher()
        store.watch("s", watcher)
        for offset in range(1, 6):
            await append(store, lease, offset, str(offset))
            assert watcher.batches[-1].last == offset
        assert [event.text for batch in watcher.batches for event in batch.events] == list("12345")

    @proves("P1.1")
    async def test_p1_a_woken_watcher_finds_the_news_stored(self, store: Store) -> None:
        lease = await create(store)
        seen: list[asyncio.Task[list[str]]] = []

        def look(batch: Batch | None, _info: StreamInfo | None) -> None:
            if batch is not None:  # a store may wake for nothing, whenever it likes
                seen.append(asyncio.ensure_future(words(store)))

        store.watch("s", look)
        await append(store, lease, 1, "a")
        await append(store, lease, 2, "b")
        assert [(await task)[:n] for n, task in enumerate(seen, start=1)] == [["a"], ["a", "b"]]

    async def test_p4_own_news_of_the_state(self, store: Store) -> None:
        lease = await create(store)
        watcher = Watcher()
        store.watch("s", watcher)
        for command in (RequestCancel("ann"), Close(lease.epoch, COMPLETED)):
            wakes = watcher.wakes
            info = (await store.apply("s", command)).info

            async def known(wakes: int = wakes) -> bool:
                return watcher.wakes > wakes

            await watcher.until(known)
            assert await store.load("s") == info

    @proves("P9.2")
    async def test_p2_other_instances_appends_arrive(self, store: Store, other: Store) -> None:
        lease = await create(store)
        watcher = Watcher()
        other.watch("s", watcher)
        for offset in range(1, 21):
            await append(store, lease, offset, str(offset))

            async def read(offset: int = offset) -> bool:
                return len(await words(other)) == offset

            wakes = watcher.wakes
            await watcher.until(read)
            assert watcher.wakes >= wakes
        await _until_woken_after(watcher, lambda: append(store, lease, 21, "21"))
        assert await words(other) == [str(n) for n in range(1, 22)]

    @pytest.mark.parametrize("news", ["cancel", "close", "take over", "close dead", "expire", "delete"])
    async def test_p4_other_instances_news_of_the_state_arrive(
        self, store: Store, other: Store, clock: ManualClock, news: str
    ) -> None:
        lease = await create(store, retention_s=1)
        if news == "expire":
            await store.apply("s", Close(lease.epoch, COMPLETED))
            clock.advance(2)
        if news == "close dead":
            await other.apply("s", Claim(other.instance_id, take_over=True))
            clock.advance(LEASE_S + 1)
        commands: dict[str, Command] = {
            "cancel": RequestCancel("ann"),
            "close": Close(lease.epoch, COMPLETED),
            "take over": Claim(store.instance_id, take_over=True),
            "close dead": CloseDead(),
            "expire": Expire(10, 0),
            "delete": Delete(),
        }
        watcher = Watcher()
        other.watch("s", watcher)
        await _until_woken_after(watcher, lambda: store.apply("s", commands[news]))
        if news == "delete":
            with pytest.raises(StreamNotFound):
                await other.load("s")
        elif news == "expire":
            with pytest.raises(StreamExpired):
                await other.read("s", 0)
        else:
            assert await other.load("s") == await store.load("s")

    async def test_every_watcher_is_woken(self, store: Store, other: Store) -> None:
        lease = await create(store)
        watchers = [(at, Watcher()) for at in [store, other] * 3]
        for at, watcher in watchers:
            at.watch("s", watcher)
        await append(store, lease, 1, "x")
        for at, watcher in watchers:

            async def woken(watcher: Watcher = watcher) -> bool:
                return watcher.wakes > 0

            await watcher.until(woken)
            assert await words(at) == ["x"]

    async def test_an_undone_watcher_is_left_alone(self, store: Store) -> None:
        lease = await create(store)
        gone, stays = Watcher(), Watcher()
        undo = store.watch("s", gone)
        store.watch("s", stays)
        await append(store, lease, 1, "x")
        undo()
        undo()
        await append(store, lease, 2, "y")
        await store.apply("s", Close(lease.epoch, COMPLETED))
        assert [batch.last for batch in gone.batches] == [1]
        assert [batch.last for batch in stays.batches] == [1, 2]

    async def test_one_callable_may_watch_twice(self, store: Store) -> None:
        lease = await create(store)
        watcher = Watcher()
        undo = store.watch("s", watcher)
        store.watch("s", watcher)
        undo()
        undo()
        await append(store, lease, 1, "x")
        assert [batch.last for batch in watcher.batches] == [1]

    async def test_a_watcher_may_undo_itself(self, store: Store) -> None:
        lease = await create(store)
        woken: list[str] = []

        def only_once(_batch: Batch | None, _info: StreamInfo | None) -> None:
            woken.append("first")
            undo()

        undo = store.watch("s", only_once)
        store.watch("s", lambda batch, _info: woken.append("second") if batch else None)
        await append(store, lease, 1, "x")
        await append(store, lease, 2, "y")
        assert sorted(woken) == ["first", "second", "second"]

    async def test_p8_a_watcher_that_fails_costs_nobody_anything(self, store: Store) -> None:
        lease = await create(store)
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

        def fail(_batch: Batch | None, _info: StreamInfo | None) -> None:
            raise RuntimeError("a watcher's own mistake")

        watcher = Watcher()
        store.watch("s", fail)
        store.watch("s", watcher)
        await append(store, lease, 1, "x")
        await store.apply("s", Close(lease.epoch, COMPLETED))
        assert [batch.last for batch in watcher.batches] == [1]
        assert len(complaints) >= 2
        assert {str(context["exception"]) for context in complaints} == {"a watcher's own mistake"}

    async def test_watching_what_does_not_exist_yet(self, store: Store, other: Store) -> None:
        watcher = Watcher()
        other.watch("s", watcher)

        async def make() -> None:
            lease = await create(store)
            await append(store, lease, 1, "x")

        await _until_woken_after(watcher, make)
        assert await words(other) == ["x"]

    async def test_wakes_come_on_the_loop(self, store: Store, other: Store) -> None:
        lease = await create(store)
        watchers = [Watcher(), Watcher()]
        store.watch("s", watchers[0])
        other.watch("s", watchers[1])
        await _until_woken_after(watchers[0], lambda: store.apply("s", RequestCancel("ann")))
        await _until_woken_after(watchers[1], lambda: append(store, lease, 1, "x"))
        assert watchers[0].threads == watchers[1].threads == {threading.get_ident()}

    async def test_p1_hints_are_what_is_stored(self, store: Store, other: Store) -> None:
        lease = await create(store)
        watchers = [Watcher(), Watcher()]
        store.watch("s", watchers[0])
        other.watch("s", watchers[1])
        await append(store, lease, 1, "a", "b")
        await append(store, lease, 3, "c")
        info = (await store.apply("s", Close(lease.epoch, COMPLETED))).info

        async def told() -> bool:
            return watchers[1].wakes > 0

        await watchers[1].until(told)
        stored = [(batch.first, batch.epoch, batch.events) for batch in (await store.read("s", 0)).batches]
        for watcher in watchers:
            assert all((batch.first, batch.epoch, batch.events) in stored for batch in watcher.batches)
            assert all(hint == info for hint in watcher.infos if hint.outcome)

    async def test_p6_own_take_over_wakes_the_fenced(self, store: Store) -> None:
        await create(store)
        watcher = Watcher()
        store.watch("s", watcher)
        await _until_woken_after(watcher, lambda: store.apply("s", Claim(store.instance_id, take_over=True)))

    async def test_refused_commands_are_no_news(self, store: Store) -> None:
        closed = await create_closed(store)
        watcher = Watcher()
        store.watch("s", watcher)
        await store.apply("s", Close(closed.epoch, COMPLETED))
        await store.apply("s", RequestCancel("ann"))
        assert (watcher.batches, watcher.infos) == ([], [])


async def _until_woken_after(watcher: Watcher, bring: Callable[[], Awaitable[object]]) -> None:
    """Bring the news, and wait (bounded) until the watcher was woken once more since."""
    wakes = watcher.wakes
    await bring()

    async def woken() -> bool:
        return watcher.wakes > wakes

    await watcher.until(woken)
