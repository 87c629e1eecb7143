"""Each response has a request id, and so has what is logged on the way to it."""

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from running_server import Server, serving

from playhead.server.logs import RequestFilter

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.parametrize("path", ["/health", "/", "/v1/streams/unknown", "/nothing", "/static/app.js", "/v1/streams"])
async def test_every_response_has_an_id_of_its_own(server: Server, path: str) -> None:
    ids = [(await server.http.get(path)).headers.get_list("x-request-id") for _ in range(2)]
    assert all(len(one) == 1 and len(one[0]) == 32 for one in ids)
    assert ids[0] != ids[1]


async def test_streams_and_refusals_have_one_too(server: Server) -> None:
    started = await server.http.post("/v1/chat/message", json={"message": "/pace 0 hello"})
    assert started.headers["x-request-id"]
    stream = await server.http.get(f"/v1/streams/{started.json()['stream_id']}")
    assert (stream.status_code, len(stream.headers.get_list("x-request-id"))) == (200, 1)
    refused = await server.http.get("/health", headers={"host": "evil.example"})
    assert (refused.status_code, len(refused.headers.get_list("x-request-id"))) == (421, 1)


@pytest.mark.parametrize("sent", ["abc-123", "01J/trace:span=+~._", "x" * 128])
async def test_a_clients_own_id_is_kept(server: Server, sent: str) -> None:
    assert (await server.http.get("/health", headers={"x-request-id": sent})).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "two words", "a\tb", "<script>", "a;b", "é"])
async def test_an_id_that_is_not_sane_is_replaced(server: Server, sent: str) -> None:
    answer = await server.http.get("/health", headers={b"x-request-id": sent.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


async def test_two_ids_are_none(server: Server) -> None:
    answer = await server.http.get("/health", headers=[("x-request-id", "one"), ("x-request-id", "two")])
    assert len(answer.headers["x-request-id"]) == 32


async def test_what_nobody_expected_is_logged_with_the_id_that_the_client_gets(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        logging.getLogger("playhead").error("on the way")
        raise RuntimeError("the inside of the server")

    monkeypatch.setattr(server.playhead, "info", broken)
    caplog.handler.addFilter(RequestFilter())
    answer = await server.http.get("/v1/streams/x/info", headers={"x-request-id": "look-for-me"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["x-request-id"] == "look-for-me"
    assert "look-for-me" in answer.json()["detail"]
    assert "inside" not in answer.text
    records = {record.getMessage().splitlines()[0]: record for record in caplog.records}
    assert records.keys() == {"on the way", "Exception in ASGI application"}
    assert {record.request for record in records.values()} == {" [look-for-me]"}
