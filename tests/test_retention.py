"""The housekeeper: deaths, settling, unwatched streams, expiry; and the lease that keeps the living alive."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import OpenPlayhead
from streaming import Scripted, count, finished, follow, follow_texts, has_stored, say, stored_texts, until

from playhead import Options, OutcomeKind, Playhead, Query, Status, StreamExpired, StreamInfo, StreamNotFound
from playhead.log import Create
from playhead.model import Lease
from playhead.retention import Housekeeper
from playhead.store import Store
from playhead.testing.case import texts
from playhead.testing.clock import ManualClock
from playhead.testing.faults import FaultyStore


async def dead_stream(store: Store, stream_id: str = "s", **facts: Any) -> None:
    """A live stream whose instance never speaks again; ``close`` gives its lease back."""
    applied = await store.apply(stream_id, Create(producer=store.instance_id, **facts))
    await store.append(Lease(stream_id, applied.info.epoch), texts(Lease(stream_id, 1), 1, "last words"))


# ---- death ---------------------------------------------------------------------------------------------


@pytest.mark.proves("P5.1")
async def test_p5_readers_of_a_dead_producer_are_told_within_the_lease_and_a_second(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store]
) -> None:
    lease_s = 1.0
    playhead = await open_playhead(lease_s=lease_s)
    silent = make_store(Options(lease_s=lease_s))
    await silent.open()
    try:
        await asyncio.sleep(lease_s)  # the sweeper's own first lease
        silent.renew()
        renewed_at = time.monotonic()
        await dead_stream(silent)
        attached = playhead.tail("s")
        assert (await anext(attached)).text == "last words"
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(attached), lease_s + 1.5)
        assert lease_s - 0.1 <= time.monotonic() - renewed_at <= lease_s + 1.0
        assert attached.outcome
        assert (attached.outcome.kind, attached.outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")
        assert await follow_texts(playhead, "s") == ["last words"]
    finally:
        await silent.close()


@pytest.mark.proves("P5.2")
async def test_p5_a_process_that_said_goodbye_is_known_dead_at_once(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store]
) -> None:
    store = make_store(Options())
    await store.open()
    for n in range(3):
        await dead_stream(store, f"s{n}")
    await store.close()
    started_at = time.monotonic()
    playhead = await open_playhead()  # within its own first lease of 5 s
    for n in range(3):
        assert (await finished(playhead, f"s{n}")).reason == "producer-lost"
    assert time.monotonic() - started_at < 2.5


@pytest.mark.proves("P5.3", "P6.3")
async def test_p5_a_blocked_loop_is_not_death(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(lease_s=0.6)
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await has_stored(playhead, "s", 1)

    sweeps = []

    def sweep_from_another_thread() -> None:
        """An instance of its own, on its own loop, that sweeps while ours stands still."""

        async def sweep() -> None:
            store = playhead.store
            until_s = time.monotonic() + 2.0
            while time.monotonic() < until_s:
                sweeps.append(await other_orphans())
                await asyncio.sleep(0.05)
            assert store is not None

        asyncio.run(sweep())

    options = Options(lease_s=0.6)
    other_store = open_playhead_store(playhead, options)

    async def other_orphans() -> list[str]:
        return await other_store.orphans(proven=False)

    await other_store_open(other_store)
    blocker = asyncio.get_running_loop()
    del blocker
    time.sleep(1.5)  # noqa: ASYNC251 - the point of the test: nothing of this loop runs
    assert await other_store.orphans(proven=False) == []
    source.go_on.set()
    assert await follow_texts(playhead, "s") == ["a", "b"]
    assert (await playhead.info("s")).epoch == 1
    await other_store.close()
