"""The examples of the adapters for providers and LangGraph, run as a user runs them."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from openai_server import Answer, OpenAIServer
from provider_server import Cut, ProviderServer, chat_chunks, message_events, response_events
from streaming import PATIENCE_S

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ["anthropic_chat", "langgraph_agent", "openai_background", "openai_chat"]
WORDS = [f"word{number} " for number in range(20)]
START_S = 60.0


def environment(directory: Path, server: ProviderServer | OpenAIServer | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))}
    kept |= {"EXAMPLE_DIRECTORY": str(directory), "PLAYHEAD_STORE": f"sqlite:///{directory}/streams.db"}
    if server is not None:
        kept |= {"OPENAI_API_KEY": "any", "OPENAI_BASE_URL": server.url}
        kept |= {"ANTHROPIC_API_KEY": "any", "ANTHROPIC_BASE_URL": server.url.removesuffix("/v1")}
    return kept


def run(name: str, *words: str, **env: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@asynccontextmanager
async def running(name: str, *words: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An example under way; it is killed at the end at the latest."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", str(EXAMPLES / f"{name}.py"), *words), stdout=asyncio.subprocess.PIPE, env=env
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def printed(process: asyncio.subprocess.Process, text: str) -> str:
    """Wait until it has printed this; all until then."""
    assert process.stdout is not None
    out = ""
    async with asyncio.timeout(START_S):
        while text not in out:
            read = await process.stdout.read(4096)
            assert read, f"it ended after {out!r}"
            out += read.decode()
    return out


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 150


@pytest.mark.parametrize("name", ["anthropic_chat", "openai_background", "openai_chat"])
def test_without_a_key_an_example_says_which_one(name: str, tmp_path: Path) -> None:
    kept = {key: value for key, value in environment(tmp_path).items() if not key.endswith("_API_KEY")}
    with pytest.raises(AssertionError, match=f"^Set {name.split('_')[0].upper()}_API_KEY; for a local server"):
        run(name, **kept)


def test_a_chat_is_recorded_and_replayed(tmp_path: Path) -> None:
    with ProviderServer(chat_chunks([{"content": word} for word in WORDS])) as server:
        out = run("openai_chat", "Tell me", **environment(tmp_path, server))
        found = re.match(r"\[stream (\w+)\]\n", out)
        assert found is not None
        assert out[found.end() :] == "".join(WORDS) + "\n[8 tokens]\n[completed]\n"
        again = run("openai_chat", "--replay", found[1], **environment(tmp_path))
        assert again == out[found.end() :]
        assert [request.messages for request in server.requests] == [[{"role": "user", "content": "Tell me"}]]


def test_a_message_is_recorded_for_late_readers_too(tmp_path: Path) -> None:
    text = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in WORDS])
    with ProviderServer(message_events([text])) as server:
        out = run("anthropic_chat", "Tell me", **environment(tmp_path, server))
    count = len(WORDS) + 5
    assert out == (
        f"{''.join(WORDS)}\n[completed]\n[a late reader has {count} events, the first one had {count}]\n"
        "[end_turn, 9 tokens said]\n"
    )


async def test_a_background_response_survives_cuts_and_kill_9_and_is_cancelled_by_ctrl_c(tmp_path: Path) -> None:
    with ProviderServer(response_events(WORDS)) as server:
        env = environment(tmp_path, server)
        server.serve(Cut(6), Cut(4, how="hold"))
        async with running("openai_background", "Tell me", **env) as process:
            first = await printed(process, WORDS[7])
            process.kill()
        server.serve(Cut(3, how="hold"))
        async with running("openai_background", "Tell me", **env) as process:
            second = await printed(process, WORDS[10])
            process.kill()
        out = await asyncio.to_thread(run, "openai_background", "Tell me", **env)
        assert first == "".join(WORDS[:8])
        assert second == "".join(WORDS[:8]) + "[…]" + "".join(WORDS[8:11])
        assert out == "".join(WORDS[8:11]) + "[…]" + "".join(WORDS[11:]) + "\n[completed]\n"
        assert len([request for request in server.requests if request.path == "/v1/responses"]) == 1
        assert not server.asked("/cancel")
        server.serve(Cut(6, how="hold"))
        async with running("openai_background", "Tell me", **env) as process:
            await printed(process, WORDS[3])
            process.send_signal(signal.SIGINT)
            await printed(process, "[cancelled]")
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 130
        assert len(server.asked("/cancel")) == 1


def test_the_agent_answers_without_a_key(tmp_path: Path) -> None:
    out = run("langgraph_agent", "/pace 0 /tool What time is it?", **environment(tmp_path))
    assert re.search(r"Let me look at the clock\. \[clock…\] \[clock: 20\S+\] The clock says: 20", out), out
    assert out.endswith("\n[4 messages in the conversation]\n[completed]\n")


async def test_what_the_agent_said_before_ctrl_c_is_in_the_conversation(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        env = environment(tmp_path, server)
        server.answer(Answer("Once ", "upon ", "a time", hold_after_chunks=2))
        async with running("langgraph_agent", "Tell me", **env) as process:
            await printed(process, "upon ")
            process.send_signal(signal.SIGINT)
            await printed(process, "[2 messages in the conversation]")
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 130
        out = await asyncio.to_thread(run, "langgraph_agent", "Go on", **env)
        assert out == "Hello world\n[4 messages in the conversation]\n[completed]\n"
        assert [m["content"] for m in server.requests[1].messages] == ["Tell me", "Once upon ", "Go on"]


PAGE = (EXAMPLES.parent / "docs" / "writing-an-adapter.md").read_text()


async def told_by_the_page(tmp_path: Path, *chunks: dict[str, object], status: str = "200 OK") -> str:
    """What the page's adapter and app print when a server answers with these chunks."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        length = re.search(rb"content-length: (\d+)", asked[-1], re.IGNORECASE)
        assert length is not None
        await reader.readexactly(int(length[1]))  # who closes with something unread breaks the connection
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
        writer.writelines(json.dumps(chunk).encode() + b"\n" for chunk in chunks)
        await writer.drain()
        writer.close()

    for name, code in re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / f"{name}.py").write_text(code)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "use.py"), cwd=tmp_path, env={**os.environ, "OLLAMA_URL": url}, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(START_S):
            out, _ = await process.communicate()
    assert [request.split(b" HTTP")[0] for request in asked] == [b"POST /api/chat"]
    return out.decode()


async def test_the_adapter_of_the_page_works(tmp_path: Path) -> None:
    words = [{"message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 5}
    text = "".join(WORDS)
    assert await told_by_the_page(tmp_path, *words, end) == f"{text}\ncompleted \n"
    assert await told_by_the_page(tmp_path, *words) == f"{text}\nfailed Ollama ended the answer in the middle\n"
    refused = await told_by_the_page(tmp_path, {"error": "bad key sk-0123456789abcdef"}, status="401 Unauthorized")
    assert refused.strip() == 'failed Ollama refused with HTTP 401: {"error": "bad key ***"}'
