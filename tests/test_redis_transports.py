"""The store over TLS and over a Unix socket, on asyncio's own loop and on uvloop's, with a real Redis."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis_server import RedisServer, connect_patiently, free_port

from playhead import Playhead
from playhead.errors import StoreUnavailable

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
TEXTS = [f"event {number} " + "x" * (200_000 if number % 10 == 0 else 5) for number in range(60)]


async def say() -> Any:
    for text in TEXTS:
        yield text
        await asyncio.sleep(0)


async def works(url: str) -> None:
    """Written by one, read live by another; with events that no socket takes at once."""
    async with Playhead.open(url) as here, Playhead.open(url) as there:
        info = await here.start(say())
        async with asyncio.timeout(60):
            assert [event.text async for event in there.tail(info.stream_id)] == TEXTS


async def refused(url: str) -> str:
    playhead = Playhead.open(url)
    with pytest.raises(StoreUnavailable) as error:
        await playhead.connect()
    return str(error.value)


def run(loop: Callable[[], asyncio.AbstractEventLoop], work: Any) -> Any:
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(work)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    connect_patiently(monkeypatch)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a Redis that speaks TLS, and the folder with its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for name, host in (("redis", "127.0.0.1"), ("stranger", "127.0.0.2")):
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={host}"]
        words += ["-addext", f"subjectAltName=IP:{host}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(folder / "redis.pem"))
    tls += ("--tls-key-file", str(folder / "redis.key"), "--tls-auth-clients", "no")
    server = RedisServer(folder / "redis", args=tls)
    try:
        server.start()
        yield port, folder
    finally:
        server.kill()


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_tls(guarded: tuple[int, Path], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    port, folder = guarded
    run(loop, works(f"rediss://127.0.0.1:{port}/0?ca={folder}/redis.pem"))
    run(loop, works(f"rediss://127.0.0.1:{port}/0?verify=false"))


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_server_that_is_not_who_it_says_is_refused(
    guarded: tuple[int, Path], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    port, folder = guarded
    for authority in ("", f"?ca={folder}/stranger.pem"):
        assert "certificate" in run(loop, refused(f"rediss://127.0.0.1:{port}/0{authority}"))


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_unix_socket(
    make_redis: Callable[..., RedisServer], tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    make_redis("--unixsocket", str(tmp_path / "r.sock"))
    run(loop, works(f"unix://{tmp_path}/r.sock"))
