"""Without authentication: this machine only, no DNS rebinding, no other site's pages."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from running_server import Server, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving(
        tmp_path_factory.mktemp("server"), allowed_hosts="tunnel.example:9000, localhost:9001"
    ) as server:
        yield server


def code(answer: object) -> str:
    body: dict[str, str] = answer.json()  # type: ignore[attr-defined]
    return body["code"]


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.8.7", "[::1]"])
async def test_this_machines_own_names_are_answered(server: Server, name: str) -> None:
    for path in ("/health", "/", "/v1/streams"):
        assert (await server.http.get(path, headers={"host": f"{name}:{server.port}"})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1.evil.example:{port}"),
        *("localhost", "localhost:1", "127.0.0.1:80", "192.168.0.1:{port}", "0.0.0.0:{port}", "[::]:{port}"),
        *("localhost:{port}@evil.example", "evil.example#localhost:{port}", "", "localhost:{port}:1", "127.1:{port}"),
    ],
)
@pytest.mark.proves("P12.2")
async def test_every_other_host_is_refused_on_every_path(server: Server, host: str) -> None:
    for path in ("/health", "/", "/v1/streams", "/static/app.js", "/unknown"):
        answer = await server.http.get(path, headers={"host": host.format(port=server.port)})
        assert (answer.status_code, code(answer)) == (421, "host-refused")


async def test_two_hosts_are_refused(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /health HTTP/1.1\r\nHost: localhost:{server.port}\r\nHost: evil.example\r\n\r\n".encode())
    status = await reader.readline()
    writer.close()
    assert status.split()[1] in (b"400", b"421")


@pytest.mark.parametrize("host", ["tunnel.example:9000", "localhost:9001", "TUNNEL.example:9000"])
async def test_hosts_that_were_allowed_are_answered(server: Server, host: str) -> None:
    headers = {"host": host, "origin": f"https://{host.lower()}"}
    assert (await server.http.get("/health", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "http://evil.example", "http://localhost:{port}", "http://127.0.0.1:1", "http://127.0.0.1"),
        *("file://", "http://127.0.0.1:{port}.evil.example", "http://127.0.0.1:{port}/", "chrome-extension://abc"),
        "http://user@127.0.0.1:{port}",
    ],
)
@pytest.mark.proves("P12.2")
async def test_pages_of_other_origins_can_neither_write_nor_read(server: Server, origin: str) -> None:
    before = (await server.http.get("/v1/streams")).json()
    headers = {"origin": origin.format(port=server.port)}
    for method, path in [("POST", "/v1/chat/message"), ("POST", "/chat/cancel?thread_id=x"), ("GET", "/v1/streams/x")]:
        answer = await server.http.request(method, path, headers=headers, json={"message": "hello"})
        assert (answer.status_code, code(answer)) == (403, "origin-refused")
        assert "access-control-allow-origin" not in answer.headers
    assert (await server.http.get("/v1/streams")).json() == before


async def test_preflights_are_refused(server: Server) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert (await server.http.options("/v1/chat/message", headers=headers)).status_code == 403


async def test_the_same_origin_may_do_everything(server: Server) -> None:
    headers = {"origin": server.url, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    answer = await server.http.post("/v1/chat/message", json={"message": "/pace 0 hi"}, headers=headers)
    assert answer.status_code == 200
    path = f"/v1/streams/{answer.json()['stream_id']}"
    assert (await server.http.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
async def test_requests_that_other_sites_caused_are_refused_even_without_origin(server: Server, site: str) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    for path in ("/v1/streams", "/static/app.js", "/chat/stream?thread_id=x"):
        answer = await server.http.get(path, headers=headers)
        assert (answer.status_code, code(answer)) == (403, "origin-refused")


async def test_a_link_on_another_page_leads_here_but_a_frame_or_a_form_does_not(server: Server) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await server.http.get("/", headers=link)).status_code == 200
    assert (await server.http.get("/", headers={**link, "sec-fetch-dest": "iframe"})).status_code == 403
    assert (await server.http.post("/chat/cancel?thread_id=x", headers=link)).status_code == 403
