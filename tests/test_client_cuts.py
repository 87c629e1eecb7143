"""The client against a network that cuts, resets, stalls and half-opens its connections: 0 lost, 0 repeated."""

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cutting_proxy import HALF_OPEN, PASS, Fate, cutting_proxy
from running_server import WAIT_S, ServerProcess, eventually, serving
from streaming import has_stored

from playhead import Event, event
from playhead.client import AsyncClient, Client, Limits, State
from playhead.model import COMPLETED, OutcomeKind, draft

CUTS = 1_000
NOBODY = 1  # a port on which nobody listens
OWNER = "local"
QUICK = Limits(stall_s=0.4, backoff_min_s=0.002, backoff_max_s=0.02, asked_max_s=0.002)
# Twelve at once, or beside processes that start: who is too quick to give up keeps all from coming through
BUSY = replace(QUICK, stall_s=2.0, backoff_max_s=0.1)
PIECES: list[Any] = [
    "word ", "", "två ", "字", "🙂", "\r\n", "\r", "\n\n", "data: no\nid: 7\n\n", "\ud83d", "half \udc00", "\0",
    "\ufeff", "\u2028", b"", b"\xff\xfe\0", b"\n\n", {"a": [1, None]}, event("tool_call", {"name": "clock"}),
    event("data", b"\x80"), "long " * 300,
]  # fmt: skip


@dataclass
class Source:
    """Says anything at all, as long as it is wanted, and remembers what it said."""

    seed: int
    wanted: Callable[[], bool]
    said: list[tuple[int, str, bytes]] = field(default_factory=list)

    async def __call__(self) -> AsyncIterator[Any]:
        chance = random.Random(self.seed)
        while self.wanted():
            for _ in range(chance.randint(1, 8)):
                piece = chance.choice(PIECES)
                self.said.append((len(self.said) + 1, *draft(piece)))
                yield piece
            await asyncio.sleep(0.02)


def unlucky(chance: random.Random) -> Fate:
    """Most connections are cut after some events, some in mid-frame or before the head is through."""
    kind = chance.random()
    if kind < 0.02:
        return HALF_OPEN
    if kind < 0.05:
        return Fate("stall", chance.randint(1, 4_000))
    return Fate("cut" if kind < 0.5 else "reset", chance.randint(1, 6_000), delay_s=0.003 * (kind > 0.9))


def check_joined(events: list[Event], said: list[tuple[int, str, bytes]]) -> None:
    """Each event stands for those between the one before and itself; only text was joined."""
    before = 0
    for offset, kind, data in events:
        stands_for = said[before:offset]
        assert b"".join(each[2] for each in stands_for) == data
        assert len(stands_for) == 1 or {each[1] for each in stands_for} == {"text"} == {kind}
        before = offset
    assert before == len(said)


@pytest.mark.timeout(300)
@pytest.mark.proves("K1", "K2", "P2.1")
async def test_a_thousand_cuts_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    async with cutting_proxy() as proxy, serving(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as server:
        proxy.target_port = server.port
        chance = random.Random(14)
        is_enough = threading.Event()

        def fate() -> Fate:
            if sum(proxy.met.values()) < CUTS:
                return unlucky(chance)
            is_enough.set()
            return PASS

        proxy.fate = fate
        sources = [Source(seed, lambda: not is_enough.is_set()) for seed in range(3)]
        for number, source in enumerate(sources):
            await server.playhead.start(source, stream_id=f"stream/{number}", owner=OWNER)

        async def read(number: int, coalesce: bool) -> list[Event]:
            async with AsyncClient(proxy.url, limits=BUSY) as client:
                tail = client.tail(f"stream/{number}", coalesce=coalesce)
                events = [each async for each in tail]
                assert (tail.outcome, tail.state) == (COMPLETED, State.CLOSED)
                assert tail.tail == len(sources[number].said)
                return events

        def read_blocking(number: int) -> list[Event]:
            with Client(proxy.url, limits=BUSY) as client:
                return list(client.tail(f"stream/{number}", give_up_after_s=WAIT_S))

        readers = [(number, coalesce) for number in range(3) for coalesce in (False, False, True)]
        async with asyncio.timeout(240):
            got = await asyncio.gather(
                *(read(number, coalesce) for number, coalesce in readers),
                *(asyncio.to_thread(read_blocking, number) for number in range(3)),
            )
        for (number, coalesce), events in zip([*readers, *((n, False) for n in range(3))], got, strict=True):
            if coalesce:
                check_joined(events, sources[number].said)
            else:
                assert events == sources[number].said
        assert sum(proxy.met.values()) >= CUTS
        assert min(proxy.met[how] for how in ("cut", "reset", "stall")) >= CUTS / 50, proxy.met
        await eventually(lambda: proxy.open_now == 0, "all connections are closed")


@pytest.mark.proves("K5")
async def test_a_connection_that_says_nothing_counts_as_lost(tmp_path: Path) -> None:
    """Before the answer, in its middle, and while nothing is said because there is nothing to say."""
    async with cutting_proxy() as proxy, serving(tmp_path, allowed_hosts=f"127.0.0.1:{proxy.port}") as server:
        proxy.target_port = server.port
        states: list[State] = []
        go_on = asyncio.Event()

        def fate() -> Fate:
            """Half-open, then a stall in the middle of the answer, as often as it takes to get that far."""
            if not proxy.met["stall"]:
                return HALF_OPEN
            return PASS if State.CATCHING_UP in states else Fate("stall", 700)

        proxy.fate = fate

        async def source() -> AsyncIterator[str]:
            for number in range(50):
                yield f"{number} "
            await go_on.wait()
            yield "end"

        await server.playhead.start(source, stream_id="s", owner=OWNER)
        await has_stored(server.playhead, "s", 50, principal=OWNER)  # so that there is something to catch up with
        async with AsyncClient(proxy.url, limits=QUICK) as client, asyncio.timeout(WAIT_S):
            tail = client.tail("s", on_state=states.append)
            texts = [(await anext(tail)).text for _ in range(50)]
            ending = asyncio.create_task(anext(tail))
            await eventually(lambda: len(proxy.heads) > 5, "it connects again and again while nothing comes")
            go_on.set()
            assert "".join([*texts, (await ending).text]) == "".join(f"{n} " for n in range(50)) + "end"
            assert [each async for each in tail] == []
        assert tail.outcome == COMPLETED
        assert states[:3] == [State.RECONNECTING, State.CATCHING_UP, State.RECONNECTING]
        assert states[-2:] == [State.LIVE, State.CLOSED]


class Reading:
    """A blocking reader in a thread; what it was given so far."""

    def __init__(self, url: str, stream_id: str) -> None:
        self.events: list[Event] = []
        self.states: list[State] = []
        self.outcome: OutcomeKind | None = None
        self._thread = threading.Thread(target=self._read, args=(url, stream_id))
        self._thread.start()

    def _read(self, url: str, stream_id: str) -> None:
        with Client(url, limits=BUSY) as client:
            tail = client.tail(stream_id, on_state=self.states.append, give_up_after_s=WAIT_S)
            for each in tail:
                self.events.append(each)
            self.outcome = tail.outcome.kind if tail.outcome else None

    async def ended(self) -> None:
        await asyncio.to_thread(self._thread.join, WAIT_S)
        assert not self._thread.is_alive()


@pytest.mark.crash
@pytest.mark.proves("K1", "K2")
async def test_a_server_killed_and_started_again_on_the_same_file(tmp_path: Path) -> None:
    # The proxy keeps the port, which might be somebody else's by the time the second server has started.
    async with cutting_proxy() as proxy:
        with contextlib.ExitStack() as started:

            def start() -> ServerProcess:
                return started.enter_context(ServerProcess(tmp_path, PLAYHEAD_ALLOWED_HOSTS=f"127.0.0.1:{proxy.port}"))

            async def begin_again() -> None:
                proxy.target_port = NOBODY
                server.kill()
                proxy.target_port = (await asyncio.to_thread(start)).port

            server = start()
            proxy.target_port = server.port
            async with AsyncClient(proxy.url, limits=BUSY) as client, asyncio.timeout(2 * WAIT_S):
                stream_id = (await client.say("/pace 50 /long 2000")).stream_id
                reading = Reading(proxy.url, stream_id)
                states: list[State] = []
                tail = client.tail(stream_id, on_state=states.append)
                events = [await anext(tail) for _ in range(20)]
                await eventually(lambda: len(reading.events) >= 20)
                beginning = asyncio.create_task(begin_again())
                events += [each async for each in tail]
                await reading.ended()
                await beginning
                whole = [each async for each in client.tail(stream_id)]
        assert events == reading.events == whole
        assert [each.offset for each in events] == list(range(1, tail.tail + 1))
        assert tail.outcome is not None
        assert tail.outcome.kind is reading.outcome is OutcomeKind.INTERRUPTED
        for told in (states, reading.states):
            assert State.RECONNECTING in told
            assert told[-1] is State.CLOSED
