"""playhead.client against the real server: both clients, every end and error, tokens, loops cancelled and left."""

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cutting_proxy import PASS, Fate, cutting_proxy
from running_server import WAIT_S, eventually, in_thread, serving
from serving import Server as UvicornServer
from serving import application
from streaming import Scripted, has_stored, say

from playhead import Cursor, Event, OutcomeKind, Playhead, Status, StreamNotFound, event
from playhead.client import AsyncClient, AsyncTail, Client, ConnectionLost, Limits, Refused, State, Tail, Unauthorized
from playhead.errors import (
    CursorAhead,
    CursorInvalid,
    CursorOfAnotherStream,
    EventTooLarge,
    InvalidSetting,
    PlayheadError,
    ThreadBusy,
)
from playhead.model import COMPLETED, draft

OWNER = "local"
QUICK = Limits(stall_s=5.0, backoff_min_s=0.005, backoff_max_s=0.05, asked_max_s=0.01)
ITEMS: list[Any] = [
    *("a", "", "två 字 🙂", "\r\n\r", "data: x\n\n", "\ud83d", "\0", "\ufeff", "x" * 70_000),
    *(b"\xff\0", {"a": [1]}, event("tool_call", {"name": "clock"}), "end"),
]
WHOLE = [Event(offset, *draft(item)) for offset, item in enumerate(ITEMS, 1)]
both = pytest.mark.parametrize("kind", ["async", "blocking"])


async def read(kind: str, url: str, stream_id: str, *, client: dict[str, Any] | None = None, **how: Any) -> Any:
    """All events of a stream and the tail that gave them; what it raised is in their place."""
    given = {"limits": QUICK, **(client or {})}

    def blocking() -> tuple[list[Event] | PlayheadError, Tail]:
        with Client(url, **given) as http:
            tail = http.tail(stream_id, **how)
            try:
                return list(tail), tail
            except PlayheadError as error:
                assert list(tail) == []
                return error, tail

    async with asyncio.timeout(WAIT_S):
        if kind == "blocking":
            return await asyncio.to_thread(blocking)
        async with AsyncClient(url, **given) as http:
            tail = http.tail(stream_id, **how)
            try:
                return [each async for each in tail], tail
            except PlayheadError as error:
                assert [each async for each in tail] == []
                return error, tail


# ----------------------------------------------------------------------------- to the close


@both
@pytest.mark.proves("P1.3", "K3")
async def test_follows_to_the_close_byte_for_byte(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as server:
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[Any]:
            for item in ITEMS[:-1]:
                yield item
            await go_on.wait()
            yield ITEMS[-1]

        await server.playhead.start(source, stream_id="s", owner=OWNER)
        states: list[State] = []
        loop = asyncio.get_running_loop()

        def told(state: State) -> None:
            states.append(state)
            if state is State.LIVE:
                loop.call_soon_threadsafe(go_on.set)

        events, tail = await read(kind, server.url, "s", on_state=told)
        assert events == WHOLE
        assert states[-2:] == [State.LIVE, State.CLOSED]
        assert set(states) <= {State.CATCHING_UP, State.LIVE, State.CLOSED}
        info = await server.playhead.info("s", principal=OWNER)
        assert (tail.state, tail.outcome, tail.cursor, tail.tail) == (State.CLOSED, COMPLETED, info.cursor, len(ITEMS))


@both
@pytest.mark.proves("P2.1")
async def test_goes_on_from_every_cursor(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as server:
        info = await server.playhead.start(say(*ITEMS), stream_id="s", owner=OWNER)
        await server.playhead.wait("s", principal=OWNER)
        for offset in range(len(ITEMS) + 2):
            after = str(Cursor(info.mark, info.epoch, offset)) if offset else None
            events, tail = await read(kind, server.url, "s", after=after)
            assert events == WHOLE[offset:]
            assert (tail.outcome, tail.state) == (COMPLETED, State.CLOSED)
            assert Cursor.parse(tail.cursor).offset == len(ITEMS) + 1


@both
async def test_every_outcome_is_told(tmp_path: Path, kind: str) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "a"
        raise RuntimeError("broken")

    async with serving(tmp_path) as server:
        playhead = server.playhead
        await playhead.start(failing, stream_id="failed", owner=OWNER)
        await playhead.start(Scripted("a"), stream_id="cancelled", owner=OWNER)
        await playhead.cancel("cancelled", principal=OWNER, reason="enough")
        for stream_id in ("failed", "cancelled"):
            _, tail = await read(kind, server.url, stream_id)
            assert tail.outcome == (await playhead.info(stream_id, principal=OWNER)).outcome
            assert tail.outcome.kind == stream_id


@both
async def test_joined_text(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as server:
        await server.playhead.start(say(*map(str, range(2_000))), stream_id="s", owner=OWNER)
        await server.playhead.wait("s", principal=OWNER)
        events, tail = await read(kind, server.url, "s", coalesce=True)
        assert len(events) < 20
        assert "".join(each.text for each in events) == "".join(map(str, range(2_000)))
        assert (events[-1].offset, tail.tail, tail.outcome) == (2_000, 2_000, COMPLETED)


# --------------------------------------------------------------------- what cannot be read


@both
@pytest.mark.proves("K4", "P2.2")
async def test_a_stream_that_cannot_be_read_is_an_error_with_its_code(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as server:
        info = await server.playhead.start(say("a"), stream_id="s", owner=OWNER)
        other = await server.playhead.start(say("a"), stream_id="other", owner=OWNER)
        await server.playhead.start(say("a"), stream_id="mine", owner="somebody else")
        for stream_id, after, error in (
            ("unknown", None, StreamNotFound),
            ("mine", None, StreamNotFound),
            ("s", "garbage", CursorInvalid),
            ("s", str(Cursor(other.mark, other.epoch, 1)), CursorOfAnotherStream),
            ("s", str(Cursor(info.mark, info.epoch, 99)), CursorAhead),
        ):
            states: list[State] = []
            raised, tail = await read(kind, server.url, stream_id, after=after, on_state=states.append)
            assert type(raised) is error
            assert (tail.state, tail.trouble, tail.outcome, states) == (State.FAILED, raised, None, [State.FAILED])
        raised, _ = await read(kind, server.url, "s", client={"limits": Limits(frame_max_bytes=10)})
        assert type(raised) is EventTooLarge


@both
@pytest.mark.proves("K4")
async def test_a_new_server_that_does_not_know_the_stream_is_no_new_beginning(tmp_path: Path, kind: str) -> None:
    async with (
        cutting_proxy() as proxy,
        serving(tmp_path / "1", allowed_hosts=f"127.0.0.1:{proxy.port}", shutdown_grace_s=0) as first,
        serving(tmp_path / "2", allowed_hosts=f"127.0.0.1:{proxy.port}") as second,
    ):
        proxy.target_port = first.port
        await first.playhead.start(Scripted("a", "b"), stream_id="s", owner=OWNER)
        # An id may be used again by a server that has lost its data; the cursor tells the two streams apart.
        await first.playhead.start(Scripted("a", "b"), stream_id="again", owner=OWNER)
        await second.playhead.start(say("x", "y", "z"), stream_id="again", owner=OWNER)
        loop = asyncio.get_running_loop()
        for stream_id, error in (("s", StreamNotFound), ("again", CursorOfAnotherStream)):
            await has_stored(first.playhead, stream_id, 2, principal=OWNER)
            has_read_them = asyncio.Event()

            def told(state: State, has_read_them: asyncio.Event = has_read_them) -> None:
                if state is State.LIVE:  # what was there at the beginning was handed on, so it has a cursor
                    loop.call_soon_threadsafe(has_read_them.set)

            proxy.target_port = first.port
            reading = asyncio.create_task(read(kind, proxy.url, stream_id, on_state=told))
            await asyncio.wait_for(has_read_them.wait(), WAIT_S)
            proxy.target_port = second.port
            proxy.cut()
            raised, tail = await reading
            assert type(raised) is error
            assert tail.state is State.FAILED


@both
async def test_a_server_that_has_no_room_is_waited_for(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path, readers_per_owner_max=1) as server:
        source = Scripted("a", then=("b",))
        await server.playhead.start(source, stream_id="s", owner=OWNER)
        async with AsyncClient(server.url, limits=QUICK) as client:
            first = client.tail("s")
            assert (await anext(first)).text == "a"
            is_waiting = asyncio.Event()
            loop = asyncio.get_running_loop()

            def told(state: State) -> None:
                if state is State.RECONNECTING:
                    loop.call_soon_threadsafe(is_waiting.set)

            second = asyncio.create_task(read(kind, server.url, "s", on_state=told))
            await asyncio.wait_for(is_waiting.wait(), WAIT_S)
            await first.aclose()
            source.go_on.set()
            events, _ = await second
            assert [each.text for each in events] == ["a", "b"]


@both
async def test_nobody_there(kind: str) -> None:
    async with cutting_proxy() as proxy:
        nowhere = proxy.url
    for patience_s in (0.2, 2.0, 15.0):  # on a busy machine the first attempt alone may take longer than that
        states: list[State] = []
        raised, tail = await read(kind, nowhere, "s", give_up_after_s=patience_s, on_state=states.append)
        if states[0] is State.RECONNECTING:
            break
    assert type(raised) is ConnectionLost
    assert nowhere in str(raised)
    assert (states, tail.state) == ([State.RECONNECTING, State.FAILED], State.FAILED)


@both
@pytest.mark.proves("K1")
async def test_nobody_there_is_not_asked_without_a_pause(kind: str) -> None:
    limits = Limits(backoff_min_s=0.1, backoff_max_s=0.2)
    for patience_s in (0.5, 3.0, 15.0):  # on a busy machine few attempts fit into the first
        asked_at: list[float] = []

        def fate(asked_at: list[float] = asked_at) -> Fate:
            asked_at.append(time.monotonic())
            return PASS

        async with cutting_proxy() as proxy:
            proxy.target_port = 1  # nobody listens behind it
            proxy.fate = fate
            raised, _ = await read(kind, proxy.url, "s", client={"limits": limits}, give_up_after_s=patience_s)
        assert type(raised) is ConnectionLost
        if len(asked_at) >= 4:
            break
    # A pause begins after the proxy was asked, and ends before it is asked again: here it can only look longer than it
    # is. The last one is cut short by giving up.
    pauses_s = [after - before for before, after in pairwise(asked_at)][:-1]
    assert len(pauses_s) >= 2
    assert min(pauses_s) >= 0.09


# ------------------------------------------------------------------------------------ tokens


class Gate:
    """ASGI middleware: only one token opens, and it changes."""

    def __init__(self) -> None:
        self.valid = "one"
        self.asked: list[str] = []
        self.app: Any = None

    def around(self, app: Any) -> "Gate":
        self.app = app
        return self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        token = dict(scope["headers"]).get(b"authorization", b"").decode()
        self.asked.append(token)
        if token == f"Bearer {self.valid}":
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "http.response.body", "body": b"who are you?"})


@both
@pytest.mark.proves("K2")
async def test_an_expired_token_is_asked_for_anew(tmp_path: Path, kind: str) -> None:
    gate = Gate()
    async with (
        cutting_proxy() as proxy,
        serving(tmp_path, gate.around, allowed_hosts=f"127.0.0.1:{proxy.port}") as server,
    ):
        proxy.target_port = server.port
        source = Scripted("a", then=("b",))
        await server.playhead.start(source, stream_id="s", owner=OWNER)
        given = iter(["stale", "one", "one", "two"])

        async def token_async() -> str:
            return next(given)

        token = token_async if kind == "async" else (lambda: next(given))
        reading = asyncio.create_task(read(kind, proxy.url, "s", client={"token": token}))
        await eventually(lambda: len(gate.asked) == 2)
        gate.valid = "two"
        await eventually(lambda: server.playhead._readers.counts)
        proxy.cut()
        await eventually(lambda: len(gate.asked) == 4)
        source.go_on.set()
        events, tail = await reading
        assert [each.text for each in events] == ["a", "b"]
        assert tail.outcome == COMPLETED
        assert gate.asked == [f"Bearer {token}" for token in ("stale", "one", "one", "two")]


@both
@pytest.mark.parametrize("kind_of_token", ["text", "function"])
async def test_a_token_that_stays_wrong_fails(tmp_path: Path, kind: str, kind_of_token: str) -> None:
    gate = Gate()
    token = "wrong" if kind_of_token == "text" else lambda: "wrong"
    async with serving(tmp_path, gate.around) as server:
        raised, tail = await read(kind, server.url, "s", client={"token": token})
        assert (type(raised), tail.state) == (Unauthorized, State.FAILED)
        assert gate.asked == ["Bearer wrong"] * (1 if kind_of_token == "text" else 2)
        assert "wrong" not in f"{raised}{tail!r}"


async def test_calls_ask_for_a_token_once_more_too(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate.around) as server:
        for wrong in (1, 2):
            given = iter(["stale"] * wrong + ["one"])
            async with AsyncClient(server.url, token=lambda given=given: next(given)) as client:  # type: ignore[misc]
                if wrong == 1:
                    assert await client.find() == []
                else:
                    with pytest.raises(Unauthorized):
                        await client.find()


async def test_what_a_token_function_raises_comes_out_and_nothing_is_lost(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.playhead.start(say("a"), stream_id="s", owner=OWNER)
        answers = iter([KeyError("no token today"), "fine"])

        def token() -> str:
            answer = next(answers)
            if isinstance(answer, KeyError):
                raise answer
            return answer

        async with AsyncClient(server.url, token=token) as client:
            tail = client.tail("s")
            with pytest.raises(KeyError):
                await anext(tail)
            assert [each.text async for each in tail] == ["a"]


@pytest.mark.parametrize("token", ["two\nlines", "ü", "", " ", 5])
async def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(token: Any) -> None:
    async with AsyncClient("http://127.0.0.1:9", token=lambda: token) as client:
        with pytest.raises((InvalidSetting, TypeError)) as raised:
            await client.find()
        assert "lines" not in str(raised.value)


# ---------------------------------------------------------- loops that are cancelled, and left


@pytest.mark.proves("P10.1")
async def test_a_cancelled_loop_loses_nothing(tmp_path: Path) -> None:
    """Cancelled again and again at any moment; on with the same tail, or with a new one from its cursor."""
    async with serving(tmp_path) as server:
        chance = random.Random(3)
        is_enough = False
        said: list[str] = []

        async def source() -> AsyncIterator[str]:
            while not is_enough:
                said.append(f"{len(said)} ")
                yield said[-1]
                await asyncio.sleep(0.001)

        await server.playhead.start(source, stream_id="s", owner=OWNER)
        async with AsyncClient(server.url, limits=QUICK) as client:
            tail = client.tail("s")
            got: list[str] = []

            async def follow(tail: AsyncTail) -> None:
                async for each in tail:
                    got.append(each.text)  # noqa: PERF401 - what came before the cancel counts

            for turn in range(150):
                following = asyncio.create_task(follow(tail))
                await asyncio.wait([following], timeout=chance.choice([0, 0.001, 0.005, 0.02, 0.05]))
                following.cancel()
                await asyncio.wait([following])
                assert tail.trouble is None  # what the reader did itself is no trouble, and costs no wait
                if turn % 3 == 0:
                    tail = client.tail("s", after=tail.cursor)
            is_enough = True
            async with asyncio.timeout(WAIT_S):
                await follow(tail)
            assert got == said
            assert len(got) > 100
        await eventually(lambda: not server.playhead._readers.counts, "no reader is left behind")
        await eventually(lambda: len([task for task in asyncio.all_tasks() if "aclose" in repr(task.get_coro())]) == 0)


async def test_leaving_the_loop_closes_the_connection_and_coming_back_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        readers = server.playhead._readers.counts
        source = Scripted("a", "b", "c", then=("d",))
        await server.playhead.start(source, stream_id="s", owner=OWNER)
        async with AsyncClient(server.url, limits=QUICK) as client:
            tail = client.tail("s")
            texts = []
            for _ in range(3):
                async for each in tail:
                    assert readers or texts  # what came before the loop was left is still there
                    texts.append(each.text)
                    break
                await eventually(lambda: not readers, "the connection is closed")
            waiting = asyncio.create_task(anext(tail))
            await eventually(lambda: readers)
            waiting.cancel()
            await eventually(lambda: not readers, "cancelling closes it too")
            assert tail._response is None
            async with client.tail("s") as other:
                assert await anext(other) == Event(1, "text", b"a")
                assert readers
            await eventually(lambda: not readers)
            assert await anext(client.tail("s")) == Event(1, "text", b"a")
            await eventually(lambda: not readers, "a tail that was dropped lets go")
            source.go_on.set()
            texts += [each.text async for each in tail]
            assert texts == ["a", "b", "c", "d"]


def test_leaving_the_blocking_loop_closes_the_connection_and_coming_back_goes_on(tmp_path: Path) -> None:
    with in_thread(tmp_path) as url, Client(url, limits=QUICK) as client:
        stream_id = client.say("/pace 5 /long 10000").stream_id  # as long as it is needed
        tail = client.tail(stream_id)
        events = []
        for _ in range(3):
            for each in tail:
                assert events or tail._response is not None
                events.append(each)
                if len(events) % 5 == 0:
                    break
            assert tail._response is None
        with tail:
            while tail._response is None:
                events.append(next(tail))
        assert tail._response is None
        client.cancel(stream_id)
        events += tail
        assert events == list(client.tail(stream_id))
        assert tail.outcome is not None
        assert tail.outcome.kind is OutcomeKind.CANCELLED


def test_an_interrupt_from_the_keyboard_loses_nothing(tmp_path: Path) -> None:
    with in_thread(tmp_path) as url, Client(url, limits=QUICK) as client:
        stream_id = client.say("/pace 10 /long 10000").stream_id  # no interrupt comes as it ends
        tail = client.tail(stream_id)
        got: list[Event] = []
        interrupts = 0
        main = threading.main_thread().ident
        assert main is not None
        while tail.outcome is None:
            timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
            try:
                if interrupts < 5:
                    timer.start()
                for each in tail:
                    got.append(each)  # noqa: PERF402 - what was appended before the interrupt counts
            except KeyboardInterrupt:
                interrupts += 1
                assert tail._response is None
                assert len(got) == (Cursor.parse(tail.cursor).offset if tail.cursor else 0)
                if interrupts == 5:
                    client.cancel(stream_id)
            finally:
                timer.cancel()
        assert interrupts == 5
        assert tail.outcome.kind is OutcomeKind.CANCELLED
        assert got == list(client.tail(stream_id))


# -------------------------------------------------------------------------------- the calls


@both
async def test_calls(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as server:

        async def ask(call: str, *words: Any, **more: Any) -> Any:
            def blocking() -> Any:
                with Client(server.url) as client:
                    return getattr(client, call)(*words, **more)

            if kind == "blocking":
                return await asyncio.to_thread(blocking)
            async with AsyncClient(server.url) as client:
                return await getattr(client, call)(*words, **more)

        started = await ask("say", "/pace 50 /long 500", idempotency_key="k")
        assert await ask("say", "/pace 50 /long 500", idempotency_key="k") == started
        with pytest.raises(ThreadBusy) as busy:
            await ask("say", "hello", thread_id=started.thread_id)
        assert busy.value.stream_id == started.stream_id
        state = await ask("info", started.stream_id)
        assert (state.stream_id, state.thread_id, state.status) == (started.stream_id, started.thread_id, Status.LIVE)
        assert (state.outcome, state.closed_at, state.cancel_requested) == (None, None, None)
        cancelled = await ask("cancel", started.stream_id)
        assert cancelled.cancel_requested["by"] == OWNER
        _, tail = await read(kind, server.url, started.stream_id)
        assert (tail.outcome.kind, tail.outcome.by) == (OutcomeKind.CANCELLED, OWNER)
        closed = await ask("info", started.stream_id)
        assert (closed.status, closed.outcome, closed.cursor) == (Status.CLOSED, tail.outcome, tail.cursor)
        assert closed.closed_at > closed.created_at
        second = await ask("say", "hello", thread_id=started.thread_id)
        newest = [each.stream_id for each in await ask("find", thread_id=started.thread_id)]
        assert newest == [second.stream_id, started.stream_id]
        assert [each.stream_id for each in await ask("find", before=second.stream_id, limit=1)] == newest[1:]
        await read(kind, server.url, second.stream_id)
        assert await ask("find", status="live") == await ask("find", status=Status.LIVE) == []
        assert await ask("delete", started.stream_id) is None
        for call in ("info", "cancel", "delete"):
            with pytest.raises(StreamNotFound):
                await ask(call, started.stream_id)
        with pytest.raises(Refused) as refused:
            await ask("find", limit=0)
        assert (refused.value.status, refused.value.problem_code) == (422, "invalid-request")
        with pytest.raises(PlayheadError) as bad:
            await ask("say", "hello", idempotency_key="two\nlines")
        assert bad.value.code == "bad-request"


@pytest.mark.parametrize("stream_id", ["a/b", "a/info", "..", ".", "a%2Fb", "ü 🙂?#&+", "x" * 1_000, "../threads"])
@both
async def test_any_stream_id(tmp_path: Path, kind: str, stream_id: str) -> None:
    async with serving(tmp_path) as server:
        await server.playhead.start(say("a"), stream_id=stream_id, owner=OWNER)
        events, tail = await read(kind, server.url, stream_id)
        assert ([each.text for each in events], tail.outcome) == (["a"], COMPLETED)
        async with AsyncClient(server.url) as client:
            assert (await client.info(stream_id)).stream_id == stream_id


@both
async def test_a_call_without_an_answer_is_a_lost_connection(kind: str) -> None:
    async with cutting_proxy() as proxy:
        nowhere = proxy.url

    def blocking() -> None:
        with Client(nowhere) as client:
            client.find()

    async def in_loop() -> None:
        async with AsyncClient(nowhere) as client:
            await client.find()

    with pytest.raises(ConnectionLost, match=nowhere):
        await (in_loop() if kind == "async" else asyncio.to_thread(blocking))


@both
async def test_over_a_unix_socket(tmp_path: Path, playhead: Playhead, kind: str) -> None:
    path = tmp_path / "s"
    await playhead.start(say("a", "b"), stream_id="v1/streams/s")
    server = UvicornServer(uvicorn.Config(application(playhead), uds=str(path), lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        events, _ = await read(kind, "", "s", client={"uds": path})
        assert [each.text for each in events] == ["a", "b"]
    finally:
        server.should_exit = True
        await running


# ------------------------------------------------------------------------------- beginnings


def test_where_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLAYHEAD_URL", raising=False)
    assert Client().url == "http://127.0.0.1:8082"
    monkeypatch.setenv("PLAYHEAD_URL", "https://example.org/playhead/")
    assert Client().url == "https://example.org/playhead"
    assert Client("http://[::1]:9").url == "http://[::1]:9"
    assert Client(uds="/run/playhead").url == "http://localhost"
    assert "secret" not in repr(Client(token="secret"))


@pytest.mark.parametrize("url", ["localhost:8082", "ftp://x", "http://", "http://x?y=1", "http://[", "http://x:y"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting):
        AsyncClient(url)


@pytest.mark.parametrize("name", ["stall_s", "backoff_min_s", "frame_max_bytes"])
def test_limits_that_are_none_are_refused(name: str) -> None:
    for value in (0, -1, float("inf"), float("nan")):
        with pytest.raises(InvalidSetting):
            Limits(**{name: value})


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_importing_it_imports_no_server() -> None:
    done = run("import sys, playhead.client; print(*sys.modules)")
    unwanted = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "langgraph", "pydantic", "typer"}
    assert not (unwanted | {"playhead.server", "playhead.agents"}) & set(done.stdout.split())
    assert "playhead.client" in done.stdout.split(), done.stderr


def test_without_httpx_one_line_tells_what_to_install() -> None:
    done = run("import sys; sys.modules['httpx'] = None; import playhead.client")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: playhead.client needs httpx: pip install 'playhead[client]'"
