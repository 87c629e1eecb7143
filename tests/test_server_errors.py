"""Every error is a problem document; bad input is never a 500; what nobody expected tells the log, not the caller."""

import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from running_server import Server, serving

from playhead.server.body_limit import BODY_MAX_BYTES
from playhead.server.chat_routes import MESSAGE_MAX_CHARACTERS
from playhead.server.docs import render

PROBLEM = "application/problem+json"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


async def test_unknown_paths_and_methods_are_problems(server: Server) -> None:
    for path in ("/nothing", "/v1/streams/", "/v1", "/static/nothing.js", "/static/../app.py", "/docs/"):
        answer = await server.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
        assert answer.json()["code"] == "not-found"
    answer = await server.http.put("/v1/chat/message", json={})
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method-not-allowed", "POST")


BAD_BODIES = {
    "empty": b"",
    "no json": b"{",
    "not utf-8": b'{"message": "\xff"}',
    "too deep": b'{"message": ' + 100_000 * b"[",
    "huge number": b'{"message": ' + 5_000 * b"9" + b"}",
    "lone surrogate": b'{"message": "\\ud800"}',
    "surrogate in the thread id": b'{"message": "x", "thread_id": "\\ud800"}',
    "not a number": b'{"message": NaN}',
    "thread id not printable": b'{"message": "x", "thread_id": "a\\u0000b"}',
    "thread id empty": b'{"message": "x", "thread_id": ""}',
    "thread id a list": b'{"message": "x", "thread_id": []}',
    "supersede no boolean": b'{"message": "x", "supersede": "perhaps"}',
    "too long": b'{"message": "' + (MESSAGE_MAX_CHARACTERS + 1) * b"x" + b'"}',
    "only white space": '{"message": "\u2003\u00a0\\r\\n"}'.encode(),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_bodies_are_the_callers_fault(server: Server, body: bytes) -> None:
    answer = await server.http.post("/v1/chat/message", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["code"] in ("bad-request", "invalid-request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
async def test_what_a_form_of_another_site_could_send_is_no_message(server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = await server.http.post("/v1/chat/message", content=b'{"message": "hello"}', headers=headers)
    assert answer.status_code == 422


async def test_a_body_has_a_limit_said_or_unsaid(server: Server) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(BODY_MAX_BYTES // 65_536 + 2):
            yield 65_536 * b" "

    for content in (chunks(), (BODY_MAX_BYTES + 1) * b" "):
        headers = {"content-type": "application/json"}
        answer = await server.http.post("/v1/chat/message", content=content, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)


async def test_odd_but_right_messages_are_taken(server: Server) -> None:
    for message in ("\0", "/pace 0 a\r\nb", "😀" * 100, "/nothing", "<script>alert(1)</script>", "x" * 10_000):
        answer = await server.http.post("/v1/chat/message", json={"message": message})
        assert answer.status_code == 200, message
        started = answer.json()
        await server.playhead.cancel(started["stream_id"], principal="local")
        await server.playhead.wait(started["stream_id"], principal="local")
        turns = (await server.http.get("/thread", params={"thread_id": started["thread_id"]})).json()
        assert turns[0]["content"] == message


async def test_odd_headers_are_the_callers_fault(server: Server) -> None:
    body = {"message": "/pace 0 hello"}
    answer = await server.http.post("/chat/message", json=body, headers={"idempotency-key": "x" * 300})
    assert answer.status_code == 422
    for cursor in (b"\xff\xfe", b"1.\xb2.\xb3.\xb9", "1.x.١.١".encode(), b"1.x.-1.-1"):
        answer = await server.http.get("/v1/streams/x", headers={b"last-event-id": cursor})
        assert (answer.status_code, answer.json()["code"]) in [(400, "cursor-invalid"), (404, "stream-not-found")]


async def test_a_problem_does_not_send_back_what_was_sent(server: Server) -> None:
    answer = await server.http.post("/v1/chat/message", json={"message": ["secret words"]})
    assert answer.status_code == 422
    assert "secret" not in answer.text
    assert answer.json()["errors"] == [{"where": ["body", "message"], "why": "Input should be a valid string"}]


async def test_the_unexpected_is_logged_and_answered_without_a_traceback(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the inside of the server")

    monkeypatch.setattr(server.chat.threads, "entries", broken)
    with caplog.at_level(logging.ERROR):
        answer = await server.http.get("/thread", params={"thread_id": "x"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "inside" not in answer.text
    assert "the inside of the server" in caplog.text


async def test_openapi_and_docs_tell_every_door_and_load_nothing_from_elsewhere(server: Server) -> None:
    document = (await server.http.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        *("/health", "/ready", "/v1/chat/cancel", "/v1/chat/message", "/v1/chat/stream", "/v1/streams", "/v1/thread"),
        *("/v1/streams/{stream_id}", "/v1/streams/{stream_id}/cancel", "/v1/streams/{stream_id}/info"),
        *("/v1/follow", "/v1/threads", "/v1/threads/{thread_id}"),
    }
    answers = document["paths"]["/v1/streams/{stream_id}"]["get"]["responses"]
    assert list(answers["200"]["content"]) == ["text/event-stream"]
    assert list(answers["default"]["content"]) == [PROBLEM]
    docs = await server.http.get("/docs")
    assert docs.headers["content-type"] == "text/html; charset=utf-8"
    for path in document["paths"]:
        assert path in docs.text
    assert "http" not in docs.text.replace("HTTP", "")
    assert "<script" not in docs.text
    assert "default-src 'none'" in docs.headers["content-security-policy"]


async def test_docs_escape_what_they_show() -> None:
    operation = {"summary": "<b>", "description": "<i>", "responses": {"200": {"description": "<u>"}}}
    document = {
        "info": {"title": "<t>", "version": "1", "description": "<d>"},
        "paths": {"/<p>": {"get": operation}},
    }
    assert not any(tag in render(document) for tag in ("<b>", "<i>", "<u>", "<t>", "<d>", "<p>:", "/<p>"))


async def test_the_page_is_served_with_a_strict_policy(server: Server) -> None:
    page = await server.http.get("/")
    assert page.status_code == 200
    assert 'data-model="demo"' in page.text
    for path in ("/", "/static/app.js", "/static/styles.css", "/static/icon.svg"):
        answer = await server.http.get(path)
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http:" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in answer.text
