"""A server is killed between every two steps of a turn, and of a deletion; the next one makes the thread whole (P7)."""

import asyncio
import sqlite3
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import WAIT_S, ServerProcess, eventually

pytestmark = pytest.mark.crash

MESSAGE = "/pace 1 /long 40 tell me"

TURN = {
    "before the thread is made": ("playhead.conversations:Threads.touch:before", None),
    "after the thread is made": ("playhead.conversations:Threads.touch:after", None),
    "before the stream is made": ("playhead.stores.sqlite:SQLiteStore.apply:before", "Create"),
    "after the stream is made": ("playhead.stores.sqlite:SQLiteStore.apply:after", "Create"),
    "after the first events": ("playhead.stores.sqlite:SQLiteStore.append:after", None),
    "after a checkpoint": ("playhead.agents.checkpoints:FencedSqliteSaver._store:after", None),
    "before the close": ("playhead.stores.sqlite:SQLiteStore.apply:before", "Close"),
    "after the close": ("playhead.stores.sqlite:SQLiteStore.apply:after", "Close"),
    "before the history": ("playhead.conversations:Threads.settle:before", None),
    "after the history": ("playhead.conversations:Threads.settle:after", None),
    "before the agent's memory": ("playhead.agents:ChatAgent.settle:before", None),
    "after the agent's memory": ("playhead.agents:ChatAgent.settle:after", None),
    "before the mark": ("playhead.stores.sqlite:SQLiteStore.apply:before", "Settle"),
    "after the mark": ("playhead.stores.sqlite:SQLiteStore.apply:after", "Settle"),
}

DELETION = {
    "before the tombstone": ("playhead.conversations:Threads.begin_delete:before", None),
    "after the tombstone": ("playhead.conversations:Threads.begin_delete:after", None),
    "after the cancel": ("playhead.stores.sqlite:SQLiteStore.apply:after", "RequestCancel"),
    "before the streams": ("playhead.stores.sqlite:SQLiteStore.apply:before", "Delete"),
    "after the streams": ("playhead.stores.sqlite:SQLiteStore.apply:after", "Delete"),
    "after the agent's memory": ("playhead.agents:ChatAgent.delete:after", None),
    "after the end": ("playhead.conversations:Threads.end_delete:after", None),
}


def dying(directory: Path, steps: dict[str, tuple[str, str | None]], step: str) -> ServerProcess:
    place, argument = steps[step]
    return ServerProcess(directory, kill_at=place, **({"KILL_ARGUMENT": argument} if argument else {}))


async def say(http: httpx.AsyncClient, thread_id: str, message: str, key: str) -> dict[str, str]:
    body = {"message": message, "thread_id": thread_id}
    answer = await http.post("/v1/chat/message", json=body, headers={"idempotency-key": key})
    assert answer.status_code == 200, answer.text
    started: dict[str, str] = answer.json()
    return started


async def turns(http: httpx.AsyncClient, thread_id: str) -> list[dict[str, Any]]:
    answer = await http.get("/v1/thread", params={"thread_id": thread_id, "all": True})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


async def ended(http: httpx.AsyncClient, thread_id: str) -> list[dict[str, Any]]:
    async def there() -> list[dict[str, Any]]:
        found = await turns(http, thread_id)
        return [] if any(turn.get("live") for turn in found) else found

    found: list[dict[str, Any]] = await eventually(there, "the end of the answer")
    return found


async def streamed(http: httpx.AsyncClient, stream_id: str) -> tuple[str, str]:
    """All that a stream's readers are shown, and its outcome."""
    text, outcome = "", ""
    async with http.stream("GET", f"/v1/streams/{stream_id}") as answer:
        kind = ""
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "text":
                text += httpx.Response(200, text=value).json()["data"]
            elif name == "data" and kind == "playhead.close":
                outcome = httpx.Response(200, text=value).json()["outcome"]
    return text, outcome


def entries(directory: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(directory / "var" / "threads.db")) as database:
        return list(database.execute("SELECT stream_id, role FROM entries"))


@pytest.mark.proves("P7.2", "P7.5", "P7.6")
@pytest.mark.parametrize("step", TURN)
async def test_a_turn_is_whole_after_a_kill(tmp_path: Path, step: str) -> None:
    thread_id, key = str(uuid.uuid4()), "first"
    acknowledged = None
    with dying(tmp_path, TURN, step) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            with suppress(httpx.TransportError):
                acknowledged = await say(http, thread_id, MESSAGE, key)
        await asyncio.to_thread(server.ended)
    with ServerProcess(tmp_path) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            if acknowledged is not None:  # then nothing of it may be lost, without anybody asking again
                assert (await ended(http, thread_id))[0]["content"] == MESSAGE
            started = await say(http, thread_id, MESSAGE, key)
            assert acknowledged in (None, started)
            found = await ended(http, thread_id)
            text, outcome = await streamed(http, started["stream_id"])
            assert [turn["type"] for turn in found] == ["human", "ai"]
            assert [turn["content"] for turn in found] == [MESSAGE, text]
            assert found[1].get("outcome", "completed") == outcome
            assert sorted(await eventually(lambda: entries(tmp_path), "the entries")) == [
                (started["stream_id"], "assistant"),
                (started["stream_id"], "user"),
            ]
            second = await say(http, thread_id, "/pace 0 and now?", "second")
            found = await ended(http, thread_id)
            assert [turn["stream_id"] for turn in found] == 2 * [started["stream_id"]] + 2 * [second["stream_id"]]
            assert "outcome" not in found[3]
            listed = (await http.get("/v1/threads")).json()
            assert [(one["id"], one["live"]) for one in listed] == [(thread_id, False)]


@pytest.mark.parametrize("step", DELETION)
async def test_a_deletion_is_whole_after_a_kill(tmp_path: Path, step: str) -> None:
    thread_id = str(uuid.uuid4())
    with dying(tmp_path, DELETION, step) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            await say(http, thread_id, "/pace 0 hello", "first")
            await ended(http, thread_id)
            await say(http, thread_id, "/pace 20 /long 10000", "second")
            with suppress(httpx.TransportError):
                await http.delete(f"/v1/threads/{thread_id}")
        await asyncio.to_thread(server.ended)
    with ServerProcess(tmp_path) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as http:
            if step == "before the tombstone":
                assert (await http.delete(f"/v1/threads/{thread_id}")).status_code == 204

            async def gone() -> bool:
                found = (await http.get("/v1/streams", params={"thread_id": thread_id})).json()
                return not found["streams"]

            await eventually(gone, "the end of the streams")
            assert (await http.get("/v1/threads")).json() == []
            assert await turns(http, thread_id) == []
            assert entries(tmp_path) == []

            def forgotten() -> bool:
                with closing(sqlite3.connect(tmp_path / "var" / "checkpoints.db")) as database:
                    return not database.execute("SELECT 1 FROM checkpoints").fetchall()

            await eventually(forgotten, "the end of the agent's memory")
