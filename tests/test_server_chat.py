"""The chat door: saying, stopping, reading a thread. Frames and the choice of stream: test_server_chat_stream.py."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_server import Answer, OpenAIServer
from running_server import Server, eventually, serving

from playhead import Query, Status
from playhead.server.turns import turns_of

OWNER = "local"
STUCK = "/slow 600 hello"


@pytest.fixture(params=["memory://", None], ids=["memory", "sqlite"])
async def server(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with serving(tmp_path, store=request.param) as server:
        yield server


async def say(server: Server, message: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", None)
    return await server.http.post("/v1/chat/message", json={"message": message, **more}, headers=headers)


async def said(server: Server, message: str, **more: Any) -> dict[str, str]:
    answer = await say(server, message, **more)
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


async def turns(server: Server, thread_id: str, **params: Any) -> list[dict[str, Any]]:
    answer = await server.http.get("/v1/thread", params={"thread_id": thread_id, **params})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    times = [turn.pop("created_at") for turn in found]
    assert times == sorted(times)
    return found


async def finished(server: Server, started: dict[str, str]) -> None:
    await asyncio.wait_for(server.playhead.wait(started["stream_id"], principal=OWNER), 60)


async def streamed(server: Server, stream_id: str) -> str:
    return "".join([e.text async for e in server.playhead.events(stream_id, principal=OWNER) if e.type == "text"])


async def test_a_message_is_answered_and_becomes_history(server: Server) -> None:
    started = await said(server, "/pace 0 hello there")
    assert str(uuid.UUID(started["thread_id"])) == started["thread_id"]
    await finished(server, started)
    human, ai = await turns(server, started["thread_id"])
    assert (human["type"], human["content"]) == ("human", "/pace 0 hello there")
    assert human["stream_id"] == started["stream_id"]
    stream_id = started["stream_id"]
    assert ai == {"type": "ai", "content": await streamed(server, stream_id), "stream_id": stream_id}
    assert "demo model" in ai["content"]


async def test_both_paths_are_the_same_door(server: Server) -> None:
    answer = await server.http.post("/chat/message", json={"message": "/pace 0 hello"})
    started = answer.json()
    await finished(server, started)
    params = {"thread_id": started["thread_id"]}
    assert (await server.http.get("/thread", params=params)).json() == (
        await server.http.get("/v1/thread", params=params)
    ).json()
    assert (await server.http.post("/chat/cancel", params=params)).json()["cancelled"] is False


@pytest.mark.proves("P7.5", "C1")
async def test_the_message_is_stored_before_the_answer_to_it_begins(server: Server) -> None:
    started = await said(server, STUCK)
    info = await server.playhead.info(started["stream_id"], principal=OWNER)
    assert info.metadata["user_message"]["text"] == STUCK
    expected = {"type": "human", "content": STUCK, "stream_id": started["stream_id"], "live": True}
    assert await turns(server, started["thread_id"]) == [expected]
    await server.playhead.cancel(started["stream_id"], principal=OWNER)


async def test_a_running_answer_is_not_in_the_thread_not_even_its_first_step(server: Server) -> None:
    # With a tool the graph has stored a first part of the answer while the second part is on its way.
    started = await said(server, "/pace 5 /tool /long 20000")
    reached = eventually(lambda: _has_tool_result(server, started["stream_id"]))
    await reached
    [human] = await turns(server, started["thread_id"])
    assert (human["type"], human["live"]) == ("human", True)
    assert (await server.http.post("/chat/cancel", params={"thread_id": started["thread_id"]})).json()["cancelled"]
    await finished(server, started)
    human, ai = await turns(server, started["thread_id"])
    assert ai["content"] == await streamed(server, started["stream_id"])


async def _has_tool_result(server: Server, stream_id: str) -> bool:
    return "tool_result" in [e.type async for e in server.playhead.events(stream_id, principal=OWNER)]


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": " \n\t"}, {"message": None}, {"message": 5}, []])
async def test_a_missing_or_blank_message_is_422(server: Server, body: Any) -> None:
    answer = await server.http.post("/v1/chat/message", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert await server.playhead.find(Query(), principal=OWNER) == []


async def test_a_busy_thread_is_409_with_the_running_stream(server: Server) -> None:
    started = await said(server, STUCK)
    answer = await say(server, "me too", thread_id=started["thread_id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "thread-busy")
    assert answer.json()["stream_id"] == started["stream_id"]
    await server.playhead.cancel(started["stream_id"], principal=OWNER)


@pytest.mark.proves("C8")
async def test_of_racing_messages_one_is_answered_and_the_others_are_409(server: Server) -> None:
    await server.http.get("/health")
    thread_id = str(uuid.uuid4())
    answers = await asyncio.gather(*[say(server, f"{STUCK} {n}", thread_id=thread_id) for n in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] + 7 * [409]
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert {answer.json()["stream_id"] for answer in answers} == {winner["stream_id"]}
    assert len(await turns(server, thread_id)) == 1
    await server.playhead.cancel(winner["stream_id"], principal=OWNER)


@pytest.mark.proves("C1", "C8")
async def test_supersede_stops_the_running_answer_and_keeps_both_messages(server: Server) -> None:
    first = await said(server, STUCK)
    second = await said(server, "/pace 0 instead", thread_id=first["thread_id"], supersede=True)
    assert second["stream_id"] != first["stream_id"]
    await finished(server, second)
    old = await server.playhead.info(first["stream_id"], principal=OWNER)
    assert old.outcome
    assert (old.outcome.kind, old.outcome.reason) == ("cancelled", "superseded")
    shown = await turns(server, first["thread_id"])
    assert [turn["content"] for turn in shown if turn["type"] == "human"] == [STUCK, "/pace 0 instead"]
    assert shown[-1]["type"] == "ai"


@pytest.mark.parametrize("with_thread", [True, False])
@pytest.mark.proves("C1")
async def test_an_idempotency_key_makes_repeats_harmless(server: Server, with_thread: bool) -> None:
    thread = {"thread_id": str(uuid.uuid4())} if with_thread else {}
    headers = {"Idempotency-Key": "key-1"}
    both = await asyncio.gather(*[said(server, "/pace 0 hello", headers=headers, **thread) for _ in range(4)])
    assert all(one == both[0] for one in both)
    await finished(server, both[0])
    assert await said(server, "/pace 0 hello", headers=headers, **thread) == both[0]
    assert len(await turns(server, both[0]["thread_id"])) == 2
    other = await say(server, "/pace 0 something else", headers=headers, **thread)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-mismatch")
    next_one = await said(server, "/pace 0 hello", thread_id=both[0]["thread_id"])
    assert next_one["stream_id"] != both[0]["stream_id"]


@pytest.mark.proves("C4")
async def test_cancel_is_idempotent_and_keeps_what_was_written(server: Server) -> None:
    started = await said(server, "/pace 5 /long 5000")
    await eventually(lambda: _has_text(server, started["stream_id"]))
    params = {"thread_id": started["thread_id"]}
    first = await server.http.post("/v1/chat/cancel", params=params)
    assert first.json() == {"cancelled": True, **params, "stream_id": started["stream_id"]}
    await finished(server, started)
    again = await server.http.post("/v1/chat/cancel", params=params)
    assert again.json() == {"cancelled": False, **params, "stream_id": None}
    human, ai = await turns(server, started["thread_id"])
    assert ai["outcome"] == "cancelled"
    assert ai["content"] == await streamed(server, started["stream_id"]) != ""
    assert human["content"] == "/pace 5 /long 5000"


async def _has_text(server: Server, stream_id: str) -> bool:
    return (await server.playhead.info(stream_id, principal=OWNER)).tail > 3


async def test_an_answer_that_ended_before_its_first_word_is_shown_only_on_request(server: Server) -> None:
    started = await said(server, STUCK)
    await server.http.post("/v1/chat/cancel", params={"thread_id": started["thread_id"]})
    await finished(server, started)
    assert [turn["type"] for turn in await turns(server, started["thread_id"])] == ["human"]
    _, ai = await turns(server, started["thread_id"], all=True)
    assert ai == {"type": "ai", "content": "", "outcome": "cancelled", "stream_id": started["stream_id"]}


async def test_a_failed_answer_keeps_its_words_and_says_why(server: Server) -> None:
    started = await said(server, "/pace 0 /error hello")
    await finished(server, started)
    _, ai = await turns(server, started["thread_id"])
    assert (ai["outcome"], ai["stream_id"]) == ("failed", started["stream_id"])
    assert "/error" in ai["error"]
    assert ai["content"] == await streamed(server, started["stream_id"])


async def test_an_answer_that_cannot_be_settled_is_read_from_its_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("the history cannot be written")

    monkeypatch.setattr(server.chat.threads, "settle", broken)
    started = await said(server, "/pace 0 /error hello")
    await finished(server, started)
    human, ai = await turns(server, started["thread_id"])
    assert (human["type"], human["content"]) == ("human", "/pace 0 /error hello")
    assert (ai["outcome"], ai["content"]) == ("failed", await streamed(server, started["stream_id"]))
    monkeypatch.undo()
    assert await turns(server, started["thread_id"]) == [human, ai]
    info = await server.playhead.info(started["stream_id"], principal=OWNER)
    assert info.settled


@pytest.mark.proves("C4")
async def test_turns_follow_each_other_over_all_outcomes(server: Server) -> None:
    thread_id = (await said(server, "/pace 0 one"))["thread_id"]
    for message in ("/pace 0 /error two", "/pace 0 /tool three", "/pace 0 four"):
        await _idle(server, thread_id)
        await said(server, message, thread_id=thread_id)
    await _idle(server, thread_id)
    shown = await turns(server, thread_id)
    assert [(turn["type"], turn.get("outcome")) for turn in shown] == [
        *(("human", None), ("ai", None), ("human", None), ("ai", "failed")),
        *(("human", None), ("ai", None), ("human", None), ("ai", None)),
    ]


async def _idle(server: Server, thread_id: str) -> None:
    async def idle() -> bool:
        return not await server.playhead.live([thread_id], principal=OWNER)

    await eventually(idle)


@pytest.mark.proves("P12.1")
async def test_unknown_and_foreign_threads_are_empty_and_cannot_be_written(server: Server) -> None:
    for unknown in (str(uuid.uuid4()), "no-uuid", "\0", "ü" * 300):
        assert await turns(server, unknown) == []
    thread_id = str(uuid.uuid4())
    await server.chat.start("/pace 0 secret", owner="ann", thread_id=thread_id, idempotency_key=None, supersede=False)
    await eventually(lambda: _closed(server, thread_id))
    assert await turns(server, thread_id) == []
    assert (await server.http.post("/chat/cancel", params={"thread_id": thread_id})).json()["cancelled"] is False
    for supersede in (False, True):
        answer = await say(server, "mine now", thread_id=thread_id, supersede=supersede)
        assert (answer.status_code, answer.json()["code"]) == (404, "thread-not-found")
    assert len(await turns_of(server.chat, thread_id, principal="ann")) == 2


async def _closed(server: Server, thread_id: str) -> bool:
    latest = await server.playhead.latest(thread_id, principal="ann")
    return latest is not None and latest.status is Status.CLOSED


async def test_a_thread_id_means_the_same_however_it_is_written(server: Server) -> None:
    thread_id = str(uuid.uuid4())
    started = await said(server, "/pace 0 hello", thread_id=thread_id.upper())
    assert started["thread_id"] == thread_id
    await finished(server, started)
    assert len(await turns(server, thread_id.upper())) == 2


async def test_a_real_endpoint_answers_and_is_stopped_with_the_stream(tmp_path: Path) -> None:
    with OpenAIServer() as openai:
        openai.answer(Answer("One ", "two ", "three", hold_after_chunks=2))
        async with serving(tmp_path, openai_base_url=openai.url, openai_model="tiny") as server:
            assert server.chat.model_name == "tiny"
            started = await said(server, "count")
            await eventually(lambda: _has_all(server, started["stream_id"], "One two "))
            params = {"thread_id": started["thread_id"]}
            assert (await server.http.post("/chat/cancel", params=params)).json()["cancelled"]
            await finished(server, started)
            await openai.until(lambda: openai.requests[0].disconnected)
            assert [turn["content"] for turn in await turns(server, **params)] == ["count", "One two "]
            again = await said(server, "go on", **params)
            await finished(server, again)
            assert [message["role"] for message in openai.requests[1].messages] == ["user", "assistant", "user"]
            assert (await turns(server, **params))[-1]["content"] == "Hello world"


async def _has_all(server: Server, stream_id: str, text: str) -> bool:
    return await streamed(server, stream_id) == text
