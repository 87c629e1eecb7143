"""The whole server on a Unix socket."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvloop
from running_server import WAIT_S, settings

from playhead.server.app import create_app
from playhead.server.listening import listening_at
from playhead.server.opening import open_chat
from playhead.server.serve import make_server


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.proves("P12.2")
def test_on_a_unix_socket_hosts_have_no_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = settings(uds=Path("p.sock"), allowed_hosts="proxy.example:80")

    async def main() -> None:
        async with open_chat(mine) as chat:
            server = make_server(mine, create_app(mine, chat), chat.playhead)
            with listening_at(mine) as listening:
                running = asyncio.create_task(server.serve([listening]))
                await ask()
                server.should_exit = True
                await running

    async def ask() -> None:
        transport = httpx.AsyncHTTPTransport(uds="p.sock")
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=WAIT_S) as http:
            for host in ("localhost", "127.0.0.1", "localhost:8082", "[::1]:1", "proxy.example"):
                assert (await http.get("/v1/streams", headers={"host": host})).status_code == 200
            for host in ("evil.example", "localhost.evil.example", "", "p.sock"):
                assert (await http.get("/v1/streams", headers={"host": host})).json()["code"] == "host-refused"
            answer = await http.get("/v1/streams", headers={"origin": "http://evil.example"})
            assert answer.json()["code"] == "origin-refused"
            started = (await http.post("/chat/message", json={"message": "/pace 0 hello"})).json()
            body = (await http.get(f"/v1/streams/{started['stream_id']}")).text
            assert "event: playhead.close" in body

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
