"""The threads door: lists, search, names, deletion, and what a thread shows of its turns."""

import asyncio
import functools
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres_server import database, postgres  # noqa: F401 - fixtures
from running_server import Server, eventually, serving

from playhead.server.chat import agent_thread

OWNER = "local"


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest) -> str | None:
    """Where threads are kept; None: beside the streams."""
    return str(request.getfixturevalue("database")) if request.param == "postgres" else None


@pytest.fixture
async def server(tmp_path: Path, home: str | None) -> AsyncIterator[Server]:
    async with serving(tmp_path, store=None, database=home) as server:
        yield server


async def said(server: Server, message: str, thread_id: str | None = None) -> dict[str, str]:
    answer = await server.http.post("/v1/chat/message", json={"message": message, "thread_id": thread_id})
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


async def answered(server: Server, message: str, thread_id: str | None = None) -> str:
    """Say something and wait for the end of the answer, and for its part in the history; gives the thread."""
    started = await said(server, message, thread_id)
    info = await asyncio.wait_for(server.playhead.wait(started["stream_id"], principal=OWNER), 60)
    await server.playhead.settle(info.thread_id or "")
    return started["thread_id"]


async def listed(server: Server, **params: Any) -> list[dict[str, Any]]:
    answer = await server.http.get("/v1/threads", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def turns(server: Server, thread_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await server.http.get("/v1/thread", params={"thread_id": thread_id, "all": True})
    ).json()
    return found


@pytest.mark.proves("C5")
async def test_a_thread_is_listed_from_its_first_message_on(server: Server) -> None:
    assert await listed(server) == []
    started = await said(server, "/slow 600 what is love?")
    [thread] = await listed(server)
    assert thread.keys() == {"id", "chat_name", "preview", "created_at", "last_activity_time", "archived", "live"}
    assert (thread["id"], thread["chat_name"], thread["live"]) == (started["thread_id"], "New Chat", True)
    assert thread["preview"] == "/slow 600 what is love?"
    assert thread["created_at"] <= thread["last_activity_time"]
    assert (await server.http.get("/threads")).json() == [thread]
    assert (await server.http.get(f"/v1/threads/{thread['id']}")).json() == thread
    await server.http.post("/v1/chat/cancel", params={"thread_id": thread["id"]})

    async def ended() -> bool:
        return not (await listed(server))[0]["live"]

    await eventually(ended)


@pytest.mark.proves("C5")
async def test_the_list_is_by_last_activity_and_in_pages(server: Server) -> None:
    made = [await answered(server, f"/pace 0 number {n}") for n in range(5)]
    await answered(server, "/pace 0 again", made[1])
    expected = [made[1], *[thread for thread in reversed(made) if thread != made[1]]]
    assert [thread["id"] for thread in await listed(server)] == expected
    found, path = [], "/v1/threads?limit=2"
    while path:
        page = await server.http.get(path)
        found += [thread["id"] for thread in page.json()]
        link = re.fullmatch(r'<(.*)>; rel="next"', page.headers.get("link", ""))
        path = link[1] if link else ""
    assert found == expected


@pytest.mark.proves("C5")
async def test_search_looks_in_names_and_in_what_was_said_whatever_the_case(server: Server) -> None:
    first = await answered(server, "/pace 0 Größe und 100% _ehrlich_")
    second = await answered(server, "/pace 0 hello")
    await server.http.patch("/v1/thread", params={"thread_id": second}, json={"chat_name": "Über Schiffe"})
    for search, expected in [("GRÖSSE", [first]), ("größe", [first]), ("ÜBER", [second]), ("%", [first])]:
        assert [thread["id"] for thread in await listed(server, search=search)] == expected, search
    assert {thread["id"] for thread in await listed(server, search="DEMO model")} == {first, second}
    assert await listed(server, search="nowhere") == []


@pytest.mark.proves("C6")
async def test_a_thread_gets_a_name_and_keeps_its_place(server: Server) -> None:
    thread = await answered(server, "/pace 0 hello")
    newer = await answered(server, "/pace 0 hello")
    before = (await server.http.get(f"/v1/threads/{thread}")).json()
    answer = await server.http.patch("/thread", params={"thread_id": thread}, json={"chat_name": " A name 🐳 "})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await server.http.get(f"/v1/threads/{thread}")).json() == {**before, "chat_name": "A name 🐳"}
    assert [one["id"] for one in await listed(server)] == [newer, thread]
    archived = await server.http.patch(f"/v1/threads/{thread}", json={"archived": True})
    assert archived.json()["archived"]
    assert [one["id"] for one in await listed(server)] == [newer]
    assert [one["id"] for one in await listed(server, archived=True)] == [thread]
    await server.http.patch(f"/v1/threads/{thread}", json={"archived": False})
    assert len(await listed(server)) == 2


@pytest.mark.parametrize("body", [{}, {"chat_name": ""}, {"chat_name": "x" * 201}, {"chat_name": "  "}, [], "x"])
async def test_no_name_is_refused(server: Server, body: Any) -> None:
    thread = await answered(server, "/pace 0 hello")
    answer = await server.http.patch("/v1/thread", params={"thread_id": thread}, json=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await listed(server))[0]["chat_name"] == "New Chat"


@pytest.mark.proves("C7")
async def test_deleting_a_thread_deletes_all_of_it_while_it_is_answered(server: Server) -> None:
    thread = await answered(server, "/pace 0 hello")
    other = await answered(server, "/pace 0 hello")
    live = await said(server, "/pace 5 /long 10000", thread)
    await eventually(lambda: _tail(server, live["stream_id"]))
    reading = asyncio.create_task(server.http.get(f"/v1/streams/{live['stream_id']}"))
    assert (await server.http.delete(f"/v1/threads/{thread}")).status_code == 204
    await asyncio.wait_for(reading, 60)
    assert [one["id"] for one in await listed(server)] == [other]
    assert await turns(server, thread) == []
    assert (await server.http.get("/v1/streams", params={"thread_id": thread})).json()["streams"] == []
    assert (await server.http.get(f"/v1/streams/{live['stream_id']}")).status_code == 404
    assert not await server.chat.threads.deleting()
    again = await server.http.post("/v1/chat/message", json={"message": "still there?", "thread_id": thread})
    assert (again.status_code, again.json()["code"]) == (404, "thread-not-found")
    assert (await server.http.delete(f"/v1/threads/{thread}")).status_code == 404
    forgotten = await server.http.delete("/thread", params={"thread_id": thread})
    assert (forgotten.status_code, forgotten.json()) == (200, [])
    assert await turns(server, other) != []


async def _tail(server: Server, stream_id: str) -> bool:
    return (await server.playhead.info(stream_id, principal=OWNER)).tail > 3


@pytest.mark.proves("C7")
async def test_what_is_settled_late_does_not_bring_a_thread_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    settle = server.chat.threads.settle

    async def held(settled: Any) -> bool:
        reached.set()
        await go_on.wait()
        return await settle(settled)

    monkeypatch.setattr(server.chat.threads, "settle", held)
    started = await said(server, "/pace 0 hello")
    await asyncio.wait_for(reached.wait(), 60)
    assert (await server.http.delete(f"/v1/threads/{started['thread_id']}")).status_code == 204
    go_on.set()
    await asyncio.sleep(0)
    await eventually(lambda: not server.playhead._settling.under_way)
    assert await listed(server) == []
    assert await turns(server, started["thread_id"]) == []


@pytest.mark.proves("C7")
@pytest.mark.parametrize("place", ["settle", "_graph.aupdate_state"], ids=["before its read", "before its write"])
async def test_the_agent_keeps_nothing_of_a_thread_that_another_server_deletes_meanwhile(
    tmp_path: Path, home: str | None, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """One server has made an answer part of the history, and writes to the agent's memory after it was deleted."""
    async with (
        serving(tmp_path, store=None, database=home) as one,
        serving(tmp_path, store=None, database=home) as other,
    ):
        started = await said(one, "/pace 5 /long 10000")
        await eventually(lambda: _tail(one, started["stream_id"]))
        reached, go_on = asyncio.Event(), asyncio.Event()
        *parents, name = place.split(".")
        owner: Any = functools.reduce(getattr, parents, one.chat.agent)
        step = getattr(owner, name)

        async def held(*args: Any, **options: Any) -> Any:
            reached.set()
            await go_on.wait()
            return await step(*args, **options)

        monkeypatch.setattr(owner, name, held)
        await one.http.post("/v1/chat/cancel", params={"thread_id": started["thread_id"]})
        await asyncio.wait_for(reached.wait(), 60)
        assert (await other.http.delete(f"/v1/threads/{started['thread_id']}")).status_code == 204
        assert not await other.chat.threads.deleting()  # nobody will look after this thread again
        go_on.set()
        await eventually(lambda: not one.playhead._settling.under_way)
        assert await other.chat.agent.history(agent_thread(OWNER, started["thread_id"])) == []


async def test_deleting_a_stream_leaves_what_the_user_said(server: Server) -> None:
    live = await said(server, "/pace 5 /long 10000")
    await eventually(lambda: _tail(server, live["stream_id"]))
    assert (await server.http.delete(f"/v1/streams/{live['stream_id']}")).status_code == 204
    human, ai = await turns(server, live["thread_id"])
    assert (human["content"], ai["content"], ai["outcome"]) == ("/pace 5 /long 10000", "", "cancelled")
    await answered(server, "/pace 0 and now?", live["thread_id"])
    assert [turn["type"] for turn in await turns(server, live["thread_id"])] == ["human", "ai", "human", "ai"]


@pytest.mark.proves("P12.1")
async def test_strangers_threads_do_not_exist(server: Server) -> None:
    thread = str(uuid.uuid4())
    await server.chat.start("/pace 0 secret", owner="ann", thread_id=thread, idempotency_key=None, supersede=False)
    await eventually(lambda: _has_entries(server, thread))
    assert await listed(server) == []
    assert await listed(server, search="secret") == []
    for answer in (
        await server.http.get(f"/v1/threads/{thread}"),
        await server.http.patch(f"/v1/threads/{thread}", json={"chat_name": "mine"}),
        await server.http.patch("/v1/thread", params={"thread_id": thread}, json={"chat_name": "mine"}),
        await server.http.delete(f"/v1/threads/{thread}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "thread-not-found")
    await server.http.delete("/v1/thread", params={"thread_id": thread})
    assert len(await server.chat.threads.entries(thread, owner="ann")) == 2


async def _has_entries(server: Server, thread_id: str) -> bool:
    return bool(await server.chat.threads.entries(thread_id, owner="ann"))


@pytest.mark.proves("C4")
async def test_tool_calls_stay_in_the_thread(server: Server) -> None:
    thread = await answered(server, "/pace 0 /tool what time is it?")
    human, ai = await turns(server, thread)
    assert "parts" not in human
    [call] = [part for part in ai["parts"] if part["type"] == "tool_call"]
    assert (call["name"], call["args"]) == ("clock", {"timezone": "UTC"})
    assert call["result"]
    assert "".join(part["text"] for part in ai["parts"] if part["type"] == "text") == ai["content"]


@pytest.mark.proves("P7.6")
async def test_what_others_record_on_a_thread_becomes_a_turn_of_it(server: Server) -> None:
    go_on = asyncio.Event()

    async def recorded() -> AsyncIterator[str]:
        yield "said elsewhere\r\n\0 🐳"
        await go_on.wait()

    thread = str(uuid.uuid4())
    info = await server.playhead.start(recorded, thread_id=thread, owner=OWNER)
    [speaking] = await turns(server, thread)
    assert (speaking["type"], speaking["live"], speaking["stream_id"]) == ("ai", True, info.stream_id)
    assert (await server.http.get("/v1/thread", params={"thread_id": thread})).json() == []
    go_on.set()
    await asyncio.wait_for(server.playhead.wait(info.stream_id, principal=OWNER), 60)
    [turn] = await turns(server, thread)
    assert (turn["type"], turn["content"]) == ("ai", "said elsewhere\r\n\0 🐳")
    assert [one["id"] for one in await listed(server)] == [thread]
    answer = await server.http.delete(f"/v1/threads/{thread}")
    assert answer.status_code == 204
    assert await turns(server, thread) == []


async def test_a_live_recording_of_others_can_be_deleted_with_its_thread(server: Server) -> None:
    async def recorded() -> AsyncIterator[str]:
        yield "said"
        await asyncio.sleep(600)

    thread = str(uuid.uuid4())
    info = await server.playhead.start(recorded, thread_id=thread, owner=OWNER)
    assert (await server.http.delete("/v1/thread", params={"thread_id": thread})).json() == []
    assert (await server.http.get(f"/v1/streams/{info.stream_id}")).status_code == 404
    assert await turns(server, thread) == []


@pytest.mark.parametrize(
    "path",
    ["/v1/threads?limit=0", "/v1/threads?limit=1001", "/v1/threads?after=nonsense", "/v1/threads?search=" + 201 * "x"],
)
async def test_bad_questions_get_a_problem_document(server: Server, path: str) -> None:
    answer: httpx.Response = await server.http.get(path)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("thread_id", ["no-uuid", "%00", "%ED%A0%80", "a/b", "%F0%9F%90%B3"])
async def test_odd_thread_ids_are_unknown_threads(server: Server, thread_id: str) -> None:
    assert (await server.http.get(f"/v1/threads/{thread_id}")).status_code == 404
    assert (await server.http.get(f"/v1/thread?thread_id={thread_id}")).json() == []
    assert (await server.http.delete(f"/v1/thread?thread_id={thread_id}")).json() == []
