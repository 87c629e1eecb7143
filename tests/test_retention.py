"""The housekeeper: deaths, settling, unwatched streams, expiry; and the lease that keeps the living alive."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import OpenPlayhead
from streaming import Scripted, finished, follow_texts, has_stored, rest, say, stored_texts, until

from playhead import Options, OutcomeKind, Playhead, Query, Status, StreamExpired, StreamInfo, StreamNotFound
from playhead.errors import Fenced, StoreUnavailable
from playhead.feed import Readers
from playhead.heartbeat import Heartbeat
from playhead.log import Create, Settle, Watched
from playhead.model import TEXT, Batch, Lease
from playhead.retention import _PURGE_ROUNDS, Housekeeper
from playhead.store import Store, StoreOptions
from playhead.stores.memory import MemoryData, MemoryStore
from playhead.testing.clock import ManualClock
from playhead.testing.faults import FaultyStore

QUICK = {"lease_s": 0.5}


async def speechless(store: Store, stream_id: str = "s", **facts: Any) -> None:
    """A live stream whose instance will never write to it again."""
    applied = await store.apply(stream_id, Create(producer=store.instance_id, **facts))
    await store.append(Lease(stream_id, applied.info.epoch), Batch(1, applied.info.epoch, TEXT, [b"last words"]))


# ---- death ---------------------------------------------------------------------------------------------


@pytest.mark.proves("P5.1")
async def test_p5_readers_of_a_dead_producer_are_told_within_the_lease_and_a_second(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store]
) -> None:
    playhead = await open_playhead(lease_s=1.0)
    for turn in range(10):  # a machine that stands still makes the sweeper itself late, which then rightly waits longer
        await asyncio.sleep(1.0)  # the sweeper's own first lease
        stream_id = f"s{turn}"
        before = time.monotonic()
        silent = make_store(Options(lease_s=1.0))
        await silent.open()
        renewed_at = time.monotonic()
        try:
            await speechless(silent, stream_id)
            attached = playhead.tail(stream_id)
            assert (await anext(attached)).text == "last words"
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(attached), 15)
            ended_at = time.monotonic()
        except Fenced:  # its lease ran out before it could say anything
            continue
        finally:
            await silent.close()
        assert ended_at - before >= 0.9
        assert attached.outcome
        assert (attached.outcome.kind, attached.outcome.reason) == (OutcomeKind.INTERRUPTED, "producer-lost")
        assert await follow_texts(playhead, stream_id) == ["last words"]
        if ended_at - renewed_at <= 2.0:
            break
    else:
        pytest.fail("never within the lease and a second")


@pytest.mark.proves("P5.2")
async def test_p5_a_process_that_said_goodbye_is_known_dead_at_once(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store]
) -> None:
    store = make_store(Options(lease_s=60))
    await store.open()
    for n in range(3):
        await speechless(store, f"s{n}")
    await store.close()
    playhead = await open_playhead(lease_s=60)  # its first lease lasts longer than the patience of ``finished``
    for n in range(3):
        assert (await finished(playhead, f"s{n}")).reason == "producer-lost"


@pytest.mark.proves("P5.3")
async def test_p5_a_blocked_loop_is_not_death(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"

    def sweep() -> None:
        async def look() -> None:
            async with Playhead.open(url, options=Options(lease_s=1.0)) as other:
                await asyncio.sleep(5.0)
                seen.append(await other.info("s"))

        asyncio.run(look())

    seen: list[StreamInfo] = []
    async with Playhead.open(url, options=Options(lease_s=1.0)) as playhead:
        source = Scripted("a", then=("b",))
        await playhead.start(source, stream_id="s")
        await has_stored(playhead, "s", 1)
        epoch = (await playhead.info("s")).epoch
        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        sweeper.join(60)  # the loop stands still for five leases while another instance sweeps
        assert seen[0].is_live
        source.go_on.set()
        assert await follow_texts(playhead, "s") == ["a", "b"]
        assert (await playhead.info("s")).epoch == epoch


class World:
    """A housekeeper on clocks that the test moves, beside an instance that may be silent."""

    def __init__(self, *, lease_s: float = 5.0) -> None:
        self.wall, self.monotonic = ManualClock(), ManualClock(1000.0)
        data, options = MemoryData(), StoreOptions(lease_s=lease_s)
        self.silent = MemoryStore(data, options=options, clock=self.wall)
        self.store = FaultyStore(MemoryStore(data, options=options, clock=self.wall))
        self.settled: list[str] = []
        self.options = Options(lease_s=lease_s)
        self.producers: dict[str, Any] = {}
        self.readers = Readers(self.store, cache_max_bytes=1000, per_owner_max=None)
        self.keeper: Housekeeper
        self.steady_since = float("-inf")

    async def open(self) -> "World":
        if not self.silent.instance_id:
            await self.silent.open()
        await self.store.open()
        await speechless(self.silent)
        self.keeper = Housekeeper(
            self.store,
            self.options,
            self.readers,
            self.producers,
            lambda info, *, is_fresh=True: self.settled.append(info.stream_id),
            {},
            steady_since=lambda: self.steady_since,
            monotonic=self.monotonic,
        )
        return self

    def advance(self, seconds: float) -> None:
        self.wall.advance(seconds)
        self.monotonic.advance(seconds)

    async def is_live(self) -> bool:
        await self.keeper.tick(sweep=True)
        return (await self.store.load("s")).is_live

    async def dies_in_one_lease(self) -> None:
        """The stream lives on until one more lease of 5 s is over, and no longer."""
        self.advance(4.9)
        assert await self.is_live()
        self.advance(0.2)
        assert not await self.is_live()

    async def produce_unwatched(self, stream_id: str, unwatched_after_s: float) -> None:
        """A stream of this instance that is to be cancelled when nobody watches."""
        await self.store.apply(stream_id, Create(self.store.instance_id, unwatched_after_s=unwatched_after_s))
        self.producers[stream_id] = SimpleNamespace(unwatched_after_s=unwatched_after_s)
        await self.keeper.tick(sweep=False)

    async def cancelled_after(self, seconds: float, *, every_s: float = 0.5) -> list[str]:
        """Let time pass as it does for a loop that is on time; which streams were cancelled by then, as unwatched."""
        for number in range(1, math.ceil(seconds / every_s) + 1):
            self.advance(min(every_s, seconds - (number - 1) * every_s))
            await self.keeper.tick(sweep=False)
        cancels = {stream_id: (await self.store.load(stream_id)).cancel for stream_id in self.producers}
        assert {cancel.reason for cancel in cancels.values() if cancel} <= {"unwatched"}
        return [stream_id for stream_id, cancel in cancels.items() if cancel]


@pytest.mark.proves("P6.3")
async def test_p6_a_new_sweeper_waits_one_lease_before_it_trusts_others_leases() -> None:
    world = World()
    await world.silent.open()
    world.advance(100)  # its lease ran out long before the sweeper came
    await world.open()
    assert await world.is_live()
    await world.dies_in_one_lease()
    assert (await world.store.load("s")).outcome.reason == "producer-lost"


@pytest.mark.proves("P6.3")
async def test_p6_a_sweeper_whose_own_lease_was_renewed_late_waits_one_lease() -> None:
    world = await World().open()
    world.advance(100)
    world.steady_since = world.monotonic()  # the store was away for all of us until now
    assert await world.is_live()
    await world.dies_in_one_lease()


@pytest.mark.proves("P6.3")
async def test_p6_a_sweeper_held_up_while_it_sweeps_waits_one_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World().open()
    world.advance(4)
    world.silent.renew()
    world.advance(4)
    orphans = world.store.orphans

    async def held_up(*, proven: bool) -> list[str]:
        assert not proven
        world.advance(4)  # for everybody: nobody could renew a lease
        world.steady_since = world.monotonic()
        return await orphans(proven=proven)

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "orphans", held_up)
        assert await world.is_live()
    await world.dies_in_one_lease()


@pytest.mark.proves("P6.3")
def test_p6_a_heartbeat_knows_since_when_it_is_steady(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is late is so by a clock that the test moves; real time only sets the pace of the renewals."""
    caplog.set_level(logging.INFO)
    clock = ManualClock(1000.0)
    monkeypatch.setattr("playhead.heartbeat.time", SimpleNamespace(monotonic=clock))

    class Away:
        """A store that answers, fails, or does not answer at all."""

        error: StoreUnavailable | None = None
        answers = threading.Event()
        renewals = 0

        def renew(self) -> None:
            self.renewals += 1
            self.answers.wait(60)
            if self.error:
                raise self.error

    store = Away()
    store.answers.set()
    heartbeat = Heartbeat(store, 0.09)  # late is what took more than 0.06 s

    def after(renewals: int) -> None:
        """Wait until so many more renewals have begun: all but the last of them are over then."""
        wanted, until = store.renewals + renewals, time.monotonic() + 60
        while store.renewals < wanted and time.monotonic() < until:
            time.sleep(0.002)
        assert store.renewals >= wanted

    try:
        first = heartbeat.steady_since
        after(3)
        clock.advance(0.05)
        after(3)
        assert heartbeat.steady_since == first
        store.error = StoreUnavailable("away")
        after(2)
        clock.advance(10)
        store.error = None
        after(3)
        assert heartbeat.steady_since == clock()
        came_back = clock()
        clock.advance(0.05)
        after(3)
        assert heartbeat.steady_since == came_back
        store.answers.clear()
        after(1)
        clock.advance(0.07)
        assert heartbeat.steady_since == clock()  # it is late already
        clock.advance(5)
        came_back = clock()
        store.answers.set()
        after(2)
        clock.advance(0.05)
        assert heartbeat.steady_since == came_back
        records = [record for record in caplog.records if record.thread == heartbeat._thread.ident]
        told = [record.getMessage().partition(", after")[0] for record in records]
        assert told == ["the lease cannot be renewed: away", "the lease is renewed again"]
    finally:
        store.answers.set()
        heartbeat.stop()


@pytest.mark.proves("P6.3")
@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
async def test_p6_a_sweeper_that_sees_the_clock_jump_waits_one_lease(jump_s: float) -> None:
    world = await World().open()
    for _ in range(6):
        world.advance(1)
        world.silent.renew()
        assert await world.is_live()
    world.wall.jump(jump_s)
    assert await world.is_live()
    world.advance(4)
    assert await world.is_live()
    world.silent.renew()  # alive: it got its lease in time
    world.advance(2)
    assert await world.is_live()
    world.advance(5)
    assert not await world.is_live()


@pytest.mark.proves("P6.3")
async def test_p6_a_process_never_sweeps_itself(open_playhead: OpenPlayhead, caplog: pytest.LogCaptureFixture) -> None:
    made: list[FaultyStore] = []

    def wrap(store: Store) -> FaultyStore:
        made.append(FaultyStore(store))
        return made[0]

    playhead = await open_playhead(wrap, lease_s=0.3)
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await has_stored(playhead, "s", 1)
    playhead._heartbeat.stop()
    await asyncio.sleep(1.0)  # its lease ran out; it ticked many times
    assert (await playhead.info("s")).is_live
    source.go_on.set()
    assert await follow_texts(playhead, "s") == ["a", "b"]


async def test_what_fails_once_is_tried_again_at_the_next_tick(caplog: pytest.LogCaptureFixture) -> None:
    world = await World().open()
    world.advance(6)
    world.store.fail_everything(True)
    with caplog.at_level(logging.WARNING, "playhead"):
        for _ in range(5):
            await world.keeper.tick(sweep=True)
    assert len(caplog.records) <= 6  # each step complains once
    world.store.fail_everything(False)
    assert not await world.is_live()
    assert world.settled == ["s"]


async def test_an_unexpected_error_does_not_end_the_housekeeping(
    playhead: Playhead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticked = asyncio.Event()

    async def broken(limit: int) -> list[str]:
        if ticked.is_set():
            ticked_again.set()
        ticked.set()
        raise RuntimeError("no such thing")

    ticked_again = asyncio.Event()
    monkeypatch.setattr(playhead.store, "due", broken)
    monkeypatch.setattr("playhead.retention._SWEEP_TICKS", 1)
    await asyncio.wait_for(ticked_again.wait(), 15)
    assert "no such thing" in caplog.text


def test_the_heartbeat_survives_whatever_a_renewal_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        renewals = 0

        def renew(self) -> None:
            self.renewals += 1
            raise OSError("no disk")

    store = Broken()
    heartbeat = Heartbeat(store, 0.03)
    deadline = time.monotonic() + 5
    while store.renewals < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    heartbeat.stop()
    assert store.renewals >= 3
    assert "no disk" in caplog.text


# ---- settling ------------------------------------------------------------------------------------------


class Settled:
    """A settle hook that remembers, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls: list[str] = []
        self.outcomes: dict[str, OutcomeKind] = {}

    async def __call__(self, info: StreamInfo) -> None:
        self.calls.append(info.stream_id)
        assert info.outcome
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the history is away")
        self.outcomes[info.stream_id] = info.outcome.kind


@pytest.mark.proves("P7.2")
async def test_p7_all_four_outcomes_are_settled(open_playhead: OpenPlayhead) -> None:
    hook = Settled()
    playhead = await open_playhead(settle=hook)

    async def failing():
        yield "a"
        raise ValueError

    sources = {"completed": say("a"), "failed": failing, "cancelled": Scripted("a"), "interrupted": Scripted("a")}
    for name, source in sources.items():
        await playhead.start(source, stream_id=name)
    await playhead.cancel("cancelled")
    for name in ("completed", "failed", "cancelled"):
        await finished(playhead, name)
    await playhead.drain(grace_s=0)
    assert hook.outcomes == {name: OutcomeKind(name) for name in sources}
    assert sorted(hook.calls) == sorted(sources)
    for name in sources:
        assert (await playhead.info(name)).settled


@pytest.mark.proves("P7.2")
async def test_p7_a_hook_that_failed_is_called_again_until_it_succeeds(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("playhead.retention._SETTLE_AFTER_S", 0.0)
    hook = Settled(failures=2)
    playhead = await open_playhead(settle=hook, **QUICK)
    await playhead.start(say("a"), stream_id="s", thread_id="t")
    await until(lambda: bool(hook.outcomes))
    assert hook.calls == ["s"] * 3
    assert "the history is away" in caplog.text

    async def settled() -> bool:
        return (await playhead.info("s")).settled

    await until(settled)
    await playhead.settle("t")
    assert len(hook.calls) == 3


async def test_p7_what_was_settled_after_the_housekeepers_look_is_not_settled_again(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.retention._SETTLE_AFTER_S", 3_600.0)  # the housekeeper leaves it alone
    hook = Settled(failures=1)
    playhead = await open_playhead(settle=hook, **QUICK)
    await playhead.start(say("a"), stream_id="s")
    await until(lambda: bool(hook.calls) and not playhead._settling.under_way)
    find, looks = playhead.store.find, 0

    async def look(query: Query) -> list[StreamInfo]:
        nonlocal looks
        found = await find(query)
        await playhead.store.apply("s", Settle())  # by somebody else, meanwhile
        monkeypatch.setattr("playhead.retention._SETTLE_AFTER_S", 0.0)
        looks += 1
        return found

    monkeypatch.setattr(playhead.store, "find", look)
    await until(lambda: looks > 1 and not playhead._settling.under_way)
    assert hook.calls == ["s"]


@pytest.mark.proves("P7.2")
async def test_p7_whoever_closes_a_dead_producers_stream_settles_it(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store]
) -> None:
    store = make_store(Options())
    await store.open()
    await speechless(store, "swept", needs_settling=True)
    await speechless(store, "cancelled", needs_settling=True)
    await store.close()
    hook = Settled()
    playhead = await open_playhead(settle=hook)
    await playhead.cancel("cancelled")
    await finished(playhead, "swept")
    await until(lambda: len(hook.outcomes) == 2)
    assert hook.outcomes["cancelled"] in {OutcomeKind.CANCELLED, OutcomeKind.INTERRUPTED}
    assert hook.outcomes["swept"] is OutcomeKind.INTERRUPTED


@pytest.mark.proves("P7.2")
async def test_p7_who_next_asks_for_the_thread_settles_what_is_left(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.retention._SETTLE_AFTER_S", 3_600.0)  # the housekeeper leaves it to who asks
    failing = Settled(failures=10**9)
    playhead = await open_playhead(settle=failing)
    for n in range(3):
        await playhead.start(say(f"{n}"), stream_id=f"s{n}", thread_id="t")
        await finished(playhead, f"s{n}")
    await until(lambda: len(failing.calls) == 3)
    hook = Settled()
    other = await open_playhead(settle=hook)
    await asyncio.gather(*[other.settle("t") for _ in range(5)])
    assert sorted(hook.calls) == ["s0", "s1", "s2"]
    await other.settle("unknown thread")


async def test_p5_a_hook_that_hangs_holds_up_neither_deaths_nor_the_shutdown(
    open_playhead: OpenPlayhead, make_store: Callable[[Options], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.streams._LAST_WORDS_S", 0.2)

    async def hangs(info: StreamInfo) -> None:
        await asyncio.Event().wait()

    playhead = await open_playhead(settle=hangs)
    for n in range(3):
        store = make_store(Options())
        await store.open()
        await speechless(store, f"s{n}", needs_settling=True)
        await store.close()
        assert (await finished(playhead, f"s{n}")).reason == "producer-lost"
    await asyncio.wait_for(playhead.close(), 15)


async def test_p7_the_hook_can_read_the_stream_while_the_process_drains(open_playhead: OpenPlayhead) -> None:
    read: dict[str, list[str]] = {}

    async def hook(info: StreamInfo) -> None:
        read[info.stream_id] = await stored_texts(playhead, info.stream_id, principal=info.owner)

    playhead = await open_playhead(settle=hook)
    source = Scripted("partial", " answer")
    await playhead.start(source, stream_id="s", owner="ann")
    await has_stored(playhead, "s", 2, principal="ann")
    await playhead.drain(grace_s=0)
    assert read == {"s": ["partial", " answer"]}


# ---- nobody watches ------------------------------------------------------------------------------------


@pytest.mark.proves("P3.2")
async def test_p3_by_default_a_stream_goes_on_unwatched(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(**QUICK)
    source = Scripted("a", then=("b",))
    await playhead.start(source, stream_id="s")
    await asyncio.sleep(1.0)
    source.go_on.set()
    assert (await finished(playhead, "s")).kind is OutcomeKind.COMPLETED


@pytest.mark.proves("P3.2")
async def test_p3_a_stream_may_be_cancelled_when_nobody_watches(open_playhead: OpenPlayhead) -> None:
    playhead, other = await open_playhead(**QUICK), await open_playhead(**QUICK)
    unwatched, watched = Scripted("a"), Scripted("a")
    started_at = time.monotonic()
    await playhead.start(unwatched, stream_id="unwatched", unwatched_after_s=0.6)
    await playhead.start(watched, stream_id="watched", unwatched_after_s=3.0)
    tail = other.tail("watched")  # in another process
    assert (await anext(tail)).text == "a"
    await asyncio.wait_for(unwatched.ended.wait(), 30)
    assert time.monotonic() - started_at >= 0.6
    outcome = await finished(other, "unwatched")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.CANCELLED, "unwatched")
    await asyncio.sleep(3.6)
    assert not watched.ended.is_set()
    left_at = time.monotonic()
    await tail.aclose()
    await asyncio.wait_for(watched.ended.wait(), 30)
    assert time.monotonic() - left_at >= 1.0


@pytest.mark.proves("P3.2")
async def test_p3_when_exactly_nobody_has_watched_for_too_long() -> None:
    world = await World().open()
    await world.produce_unwatched("mine", 10)
    assert await world.cancelled_after(9.9) == []
    assert await world.cancelled_after(0.2) == ["mine"]
    await world.produce_unwatched("told of", 10)
    assert await world.cancelled_after(5) == ["mine"]
    await world.silent.apply("told of", Watched())
    # Seen at the first tick, 0.5 s later; and that reader may have stayed until it would have been told of again: a
    # second later, at the tick after that.
    assert await world.cancelled_after(11.9) == ["mine"]
    assert await world.cancelled_after(0.2) == ["mine", "told of"]


@pytest.mark.proves("P3.2")
async def test_p3_an_outage_is_no_silence() -> None:
    """While the store is away nobody can tell that he watches."""
    world = await World().open()
    await world.produce_unwatched("mine", 10)
    await world.silent.apply("mine", Watched())
    assert await world.cancelled_after(5) == []
    world.store.fail_everything(True)
    for _ in range(100):
        world.advance(0.5)
        await world.keeper.tick(sweep=False)
    world.store.fail_everything(False)
    world.steady_since = world.monotonic()
    await world.keeper.tick(sweep=False)  # before the reader's process has told again
    assert await world.cancelled_after(4.9) == []
    await world.silent.apply("mine", Watched())
    assert await world.cancelled_after(9) == []
    assert await world.cancelled_after(3) == ["mine"]


@pytest.mark.proves("P3.2")
@pytest.mark.parametrize("away", [True, False], ids=["the store was away", "the loop was blocked"])
async def test_p3_what_only_the_housekeeping_noticed_is_no_silence_either(*, away: bool) -> None:
    """The renewals came in time: between two of them the store was away, or their thread went on."""
    world = await World().open()
    await world.produce_unwatched("mine", 2)
    await world.silent.apply("mine", Watched())
    assert await world.cancelled_after(1) == []
    if away:
        world.store.fail_everything(True)
        for _ in range(20):
            world.advance(0.5)
            await world.keeper.tick(sweep=False)
        world.store.fail_everything(False)
    else:
        world.advance(10)
    await world.keeper.tick(sweep=False)  # before the reader's process has told again
    assert await world.cancelled_after(0.5) == []
    await world.silent.apply("mine", Watched())
    assert await world.cancelled_after(2) == []
    assert await world.cancelled_after(3) == ["mine"]


@pytest.mark.proves("P3.2")
async def test_p3_a_process_that_is_always_late_cancels_too() -> None:
    world = await World().open()
    await world.produce_unwatched("mine", 10)
    assert await world.cancelled_after(60, every_s=60) == []
    assert await world.cancelled_after(60, every_s=60) == ["mine"]


@pytest.mark.proves("P3.2")
async def test_p3_a_process_whose_renewals_are_late_again_and_again_cancels_too() -> None:
    world = await World().open()
    await world.produce_unwatched("mine", 20)
    for _ in range(2):
        assert await world.cancelled_after(8) == []
        world.steady_since = world.monotonic()
    assert await world.cancelled_after(8) == ["mine"]


@pytest.mark.proves("P3.2")
@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
async def test_p3_a_clock_that_jumps_is_no_silence(jump_s: float) -> None:
    world = await World().open()
    await world.produce_unwatched("mine", 10)
    await world.silent.apply("mine", Watched())
    world.wall.jump(jump_s)
    for _ in range(15):
        assert await world.cancelled_after(1) == []
        await world.silent.apply("mine", Watched())


@pytest.mark.proves("P3.2")
async def test_p3_what_could_not_be_told_is_told_at_the_next_tick() -> None:
    world = await World().open()
    await world.silent.apply("theirs", Create(world.silent.instance_id, unwatched_after_s=10))
    feed = world.readers.attach("theirs", None)
    await feed.refresh()
    world.store.fail_applies(1)
    for told in (False, True):
        await world.keeper.tick(sweep=False)
        assert ((await world.store.load("theirs")).watched_at is not None) is told
    told_at = world.wall()
    world.advance(0.9)
    await world.keeper.tick(sweep=False)
    assert (await world.store.load("theirs")).watched_at == told_at
    world.advance(0.2)
    await world.keeper.tick(sweep=False)
    assert (await world.store.load("theirs")).watched_at == world.wall()
    world.readers.detach(feed, None)


async def test_p3_a_stream_deleted_meanwhile_does_not_end_the_housekeeping(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(**QUICK)
    other = Scripted("a")
    await playhead.start(other, stream_id="other", unwatched_after_s=0.6)
    stubborn = await playhead.produce("s")
    stubborn._producer.unwatched_after_s = 0.1
    stubborn._producer._unwatch()  # so that it does not hear of the delete
    await playhead.delete("s")
    await asyncio.wait_for(other.ended.wait(), 15)
    assert not playhead._housekeeping.done()


# ---- expiry --------------------------------------------------------------------------------------------


@pytest.mark.proves("P2.4")
async def test_p2_a_stream_whose_retention_is_over_is_expired(open_playhead: OpenPlayhead) -> None:
    playhead, other = [await open_playhead(expired_for_s=60, **QUICK) for _ in range(2)]
    source = Scripted("a", "x" * 100_000, then=("b",))
    await playhead.start(source, stream_id="s", retention_s=0.4)
    half_read = playhead.tail("s")
    assert (await anext(half_read)).text == "a"
    source.go_on.set()

    async def expired() -> bool:
        return (await other.info("s")).status is Status.EXPIRED

    await until(expired)
    for at in (playhead, other):
        for call in (at.read("s"), follow_texts(at, "s"), stored_texts(at, "s"), at.cancel("s"), at.wait("s")):
            with pytest.raises(StreamExpired):
                await call
    with pytest.raises(StreamExpired):
        await playhead.start(say("again"), stream_id="s")
    with pytest.raises(StreamExpired):
        await playhead.produce("s")
    await half_read.aclose()


@pytest.mark.proves("P2.4")
async def test_p2_what_was_expired_for_long_is_unknown(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    playhead, other = [await open_playhead(expired_for_s=0.3, **QUICK) for _ in range(2)]
    source = Scripted("a", "x" * 100_000, then=("b",))
    await playhead.start(source, stream_id="s", retention_s=0.4)
    await playhead.start(say("kept"), stream_id="kept", retention_s=600)
    half_read = playhead.tail("s")
    assert (await anext(half_read)).text == "a"
    source.go_on.set()

    async def unknown() -> bool:
        try:
            await other.info("s")
        except StreamNotFound:
            return True
        return False

    await until(unknown)
    with pytest.raises(StreamNotFound):
        await playhead.read("s")
    await half_read.aclose()
    assert [info.stream_id for info in await playhead.find(Query())] == ["kept"]
    assert await follow_texts(other, "kept") == ["kept"]
    purge, purges = playhead.store.purge, 0

    async def counted(limit: int) -> int:
        nonlocal purges
        freed = await purge(limit)
        purges += 1
        return freed

    monkeypatch.setattr(playhead.store, "purge", counted)
    await until(lambda: purges > 0)  # the housekeepers free its space, at the same sweep or the next
    assert await purge(100) == 0


async def test_p2_a_reader_who_comes_too_late_for_the_rest_is_told(open_playhead: OpenPlayhead) -> None:
    playhead = await open_playhead(cache_max_bytes=1, **QUICK)
    source = Scripted(*["x" * 100_000] * 30)
    await playhead.start(source, stream_id="s", retention_s=0.3)
    reader = playhead.tail("s")
    await anext(reader)
    source.go_on.set()

    async def expired() -> bool:
        return (await playhead.info("s")).status is Status.EXPIRED

    await until(expired)
    with pytest.raises(StreamExpired):
        await rest(reader)


async def test_p7_an_unsettled_stream_is_kept_longer(open_playhead: OpenPlayhead) -> None:
    hook = Settled(failures=10**9)
    playhead = await open_playhead(settle=hook, **QUICK)
    await playhead.start(say("a"), stream_id="s", retention_s=0.2)
    await finished(playhead, "s")
    await asyncio.sleep(1.2)  # retention has come by
    assert await follow_texts(playhead, "s") == ["a"]


async def test_a_stream_that_no_writer_takes_up_again_is_closed(open_playhead: OpenPlayhead) -> None:
    hook = Settled()
    playhead = await open_playhead(settle=hook, **QUICK)
    async with await playhead.produce("s", retention_s=0.3, keep_open=True) as out:
        await out.append("a")
    outcome = await finished(playhead, "s")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.INTERRUPTED, "abandoned")
    await until(lambda: bool(hook.outcomes))


async def test_much_garbage_does_not_keep_the_housekeeper_from_its_rounds(
    open_playhead: OpenPlayhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playhead.retention._PURGE_ENTRIES", 1)
    playhead = await open_playhead(**QUICK)
    async with await playhead.produce("s", retention_s=0.1) as out:
        for n in range(300):
            await out.append(f"{n}")
            await out.flush()
    happened: list[str] = []
    orphans, purge = playhead.store.orphans, playhead.store.purge

    async def look(*, proven: bool) -> list[str]:
        happened.append("L")
        return await orphans(proven=proven)

    async def free(limit: int) -> int:
        happened.append("p")
        return await purge(limit)

    monkeypatch.setattr(playhead.store, "orphans", look)
    monkeypatch.setattr(playhead.store, "purge", free)
    await until(lambda: happened.count("p") >= 3 * _PURGE_ROUNDS)
    assert max(map(len, "".join(happened).split("L"))) <= _PURGE_ROUNDS
    assert happened.count("L") >= 3


def test_a_heartbeat_ends_when_its_loop_is_closed_and_nobody_stopped_it() -> None:
    """Nothing runs there any more: others must learn of it by the lease."""

    class Counted:
        renewals = 0

        def renew(self) -> None:
            self.renewals += 1

    store, loop = Counted(), asyncio.new_event_loop()
    heartbeat = Heartbeat(store, 0.03, loop.is_closed)
    while not store.renewals:
        time.sleep(0.005)
    loop.close()
    heartbeat._thread.join(5)
    assert not heartbeat._thread.is_alive()
