"""The example app over real HTTP, as two processes on one Redis, and on one SQLite file."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from resumable_app import WAIT_S, AppProcess
from streaming import until

EXAMPLE = Path(__file__).parent.parent / "examples" / "resumable_stream"
HELD = Path(__file__).parent / "resumable_held"
SLOW = {"chunks": 1000, "pause_s": 0.02}


def whole(chunks: int) -> str:
    return "".join(f"data: chunk {number} – größer\n\n" for number in range(chunks))


class Apps:
    """Two processes on one store; one that was ended is started again.

    ``hold(n)`` lets no stream of n chunks end before the file that it gives is deleted.
    """

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._directory, self._environment = directory, environment
        self._apps = [self._start(), self._start()]

    def _start(self) -> AppProcess:
        return AppProcess(HELD, self._directory, **self._environment)

    def hold(self, chunks: int) -> Path:
        held = self._directory / f"hold-{chunks}"
        held.touch()
        return held

    def __getitem__(self, number: int) -> AppProcess:
        if not self._apps[number].is_running:
            self._apps[number].end()
            self._apps[number] = self._start()
        return self._apps[number]

    def end(self) -> None:
        for app in self._apps:
            app.end()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def apps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apps]:
    environment = {}
    if request.param == "redis":
        server = request.getfixturevalue("redis_server")
        server.command("FLUSHALL")
        environment["REDIS_URL"] = server.url
    apps = Apps(tmp_path_factory.mktemp("apps"), environment)
    yield apps
    apps.end()


def client(app: AppProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=app.url, timeout=WAIT_S)


async def some_of(answer: httpx.Response, characters: int) -> str:
    """What has come when it is at least so much."""
    text = ""
    async for part in answer.aiter_text():
        text += part
        if len(text) >= characters:
            break
    return text


async def test_begin_lose_the_connection_and_resume_on_the_other_process(apps: Apps) -> None:
    hold = apps.hold(60)
    async with client(apps[0]) as one, client(apps[1]) as other:
        async with one.stream("GET", "/stream/s1", params={"chunks": 60, "pause_s": 0.01}) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            text = (await some_of(answer, 30))[:30]
        for _ in range(3):  # cut thrice more
            async with other.stream("GET", "/stream/s1", params={"resume_at": len(text)}) as answer:
                text += (await some_of(answer, 30))[:30]  # all that is not held back may have come
        async with other.stream("GET", "/stream/s1", params={"resume_at": len(text)}) as rest:
            assert rest.status_code == 200
            hold.unlink()  # not before there is its last reader
            text += (await rest.aread()).decode()
        assert text == whole(60)
        for again in (one, other):
            done = await again.get("/stream/s1", params={"resume_at": 3})
            assert (done.status_code, done.text) == (422, "Stream is already done")


async def test_post_to_begin_and_get_to_resume(apps: Apps) -> None:
    hold = apps.hold(40)
    async with client(apps[0]) as one, client(apps[1]) as other:
        missing = await other.get("/streams/s2")
        assert (missing.status_code, missing.text) == (404, "Stream not found")
        assert (await other.get("/streams/s2/state")).json() == {"state": None}
        async with one.stream("POST", "/streams/s2", params={"chunks": 40, "pause_s": 0.01}) as answer:
            text = await some_of(answer, 1)
            exists = await other.post("/streams/s2")
            assert (exists.status_code, exists.text) == (422, "Stream already exists")
            assert (await other.get("/streams/s2/state")).json() == {"state": True}
            async with (
                other.stream("GET", "/streams/s2", params={"resume_at": len(text)}) as rest,
                one.stream("GET", "/streams/s2") as everything,
            ):
                assert (rest.status_code, everything.status_code) == (200, 200)
                hold.unlink()  # not before there are its last readers
                await asyncio.gather(rest.aread(), everything.aread())
        assert text + rest.text == everything.text == whole(40)
        assert (await other.get("/streams/s2")).status_code == 422
        assert (await one.get("/streams/s2/state")).json() == {"state": "DONE"}


async def test_cancel_through_the_other_process(apps: Apps) -> None:
    async with client(apps[0]) as one, client(apps[1]) as other:
        async with one.stream("POST", "/streams/s3", params=SLOW) as answer:
            parts = answer.aiter_text()
            text = await anext(parts)
            assert (await other.post("/streams/s3/cancel")).json() == {"state": True}
            async with asyncio.timeout(WAIT_S):
                text += "".join([part async for part in parts])  # ends well
        assert whole(1000).startswith(text)
        assert len(text) < len(whole(1000))
        assert (await other.post("/streams/s3/cancel")).json() == {"state": "DONE"}


@pytest.mark.crash
async def test_the_process_that_generates_is_killed(apps: Apps) -> None:
    async with client(apps[0]) as one, client(apps[1]) as other:
        async with one.stream("POST", "/streams/s4", params=SLOW) as answer:
            seen = await some_of(answer, 100)
        text, killed = "", apps[0]

        async def read() -> None:
            nonlocal text
            async with other.stream("GET", "/streams/s4") as answer:
                async for part in answer.aiter_text():
                    text += part
                    killed.kill()

        with pytest.raises(httpx.RemoteProtocolError):  # not a clean end: there is more that will never come
            await asyncio.wait_for(read(), WAIT_S)
        assert text.startswith(seen)
        assert whole(1000).startswith(text)
        assert (await other.get("/streams/s4/state")).json() == {"state": "DONE"}
        await until(lambda: "producer-lost" in apps[1].output)  # it says why
        async with other.stream("GET", "/streams/s4", params={"resume_at": 5}) as answer:
            assert await some_of(answer, len(text) - 5) == text[5:]
        anew = await other.post("/streams/s4", params={"chunks": 2, "pause_s": 0})
        assert anew.text == whole(2)


async def test_a_stopped_process_leaves_quietly(apps: Apps) -> None:
    """SIGTERM: what it generated for nobody has a grace period, the others know its end, and nothing is said."""
    stopped = apps[0]
    async with client(stopped) as one, client(apps[1]) as other:
        for name, params in (("long", SLOW), ("short", {"chunks": 30, "pause_s": 0.02})):
            async with one.stream("POST", f"/streams/{name}", params=params) as answer:
                await some_of(answer, 1)
        assert await asyncio.to_thread(stopped.stop) in (0, -15)
        for word in ("Traceback", "Warning", "ERROR"):
            assert word not in stopped.output

        async def are_both_done() -> bool:
            states = [(await other.get(f"/streams/{name}/state")).json()["state"] for name in ("long", "short")]
            return states == ["DONE", "DONE"]

        await until(are_both_done)
        assert (await other.get("/streams/short")).status_code == 422  # it came to its end
        with pytest.raises(httpx.RemoteProtocolError):
            await other.get("/streams/long")
        await until(lambda: "stream interrupted: shutdown" in apps[1].output)


def test_an_app_without_its_redis_says_so_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"StoreUnavailable: Redis at 127\.0\.0\.1:1 "):
        AppProcess(EXAMPLE, tmp_path, REDIS_URL="redis://127.0.0.1:1/0")
