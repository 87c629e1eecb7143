"""Without authentication: this machine only, no DNS rebinding, no other site's pages but those that were invited."""

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


# ---- CORS: pages that were invited -----------------------------------------------------------------

WELCOME = "https://app.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def inviting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    origins = f"{WELCOME}:443,http://localhost:5173"
    async with serving(tmp_path_factory.mktemp("inviting"), cors_origins=origins) as server:
        yield server


def from_page(origin: str, **more: str) -> dict[str, str]:
    return {"origin": origin, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", **more}


@pytest.mark.parametrize("origin", [WELCOME, "http://localhost:5173"])
async def test_invited_pages_may_write_follow_and_read_what_they_need(inviting: Server, origin: str) -> None:
    answer = await inviting.http.post(
        "/v1/chat/message", json={"message": "/pace 0 hi"}, headers=from_page(origin, **{"idempotency-key": origin})
    )
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    answer = await inviting.http.get(f"/v1/streams/{answer.json()['stream_id']}", headers=from_page(origin))
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    shown = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert shown >= {"link", "playhead-tail", "x-request-id"}
    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-credentials" not in answer.headers


async def test_invited_pages_may_read_problems_too(inviting: Server) -> None:
    answer = await inviting.http.get("/v1/streams/unknown", headers=from_page(WELCOME))
    assert (answer.status_code, code(answer)) == (404, "stream-not-found")
    assert answer.headers["access-control-allow-origin"] == WELCOME


async def test_preflights_of_invited_pages_are_answered(inviting: Server) -> None:
    asked = {
        "access-control-request-method": "DELETE",
        "access-control-request-headers": "authorization, content-type, idempotency-key, last-event-id",
        "access-control-request-private-network": "true",
    }
    answer = await inviting.http.options("/v1/threads/x", headers=from_page(WELCOME, **asked))
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, WELCOME)
    assert answer.headers["access-control-allow-private-network"] == "true"
    for method in ("GET", "POST", "PATCH", "DELETE"):
        assert method in answer.headers["access-control-allow-methods"]


@pytest.mark.proves("P12.2")
async def test_pages_that_were_not_invited_are_refused_beside_those_that_were(inviting: Server) -> None:
    for origin in ("http://app.example", f"{WELCOME}.evil.example", "https://evil.example", "null", f"{WELCOME}:444"):
        for method in ("GET", "POST", "OPTIONS"):
            headers = from_page(origin, **{"access-control-request-method": "POST"})
            answer = await inviting.http.request(method, "/v1/streams", headers=headers)
            assert answer.status_code in (403, 405)
            assert code(answer) == "origin-refused"
            assert "access-control-allow-origin" not in answer.headers
    # Without an Origin nobody can tell who asks: a script tag, an image
    no_origin = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert (await inviting.http.get("/v1/streams", headers=no_origin)).status_code == 403


async def test_an_invitation_does_not_open_other_hosts(inviting: Server) -> None:
    answer = await inviting.http.get("/v1/streams", headers=from_page(WELCOME, host="evil.example"))
    assert (answer.status_code, code(answer)) == (421, "host-refused")
