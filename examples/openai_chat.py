"""A chat completion that outlives the terminal it was asked from.

    export OPENAI_API_KEY=…                       # and OPENAI_BASE_URL, OPENAI_MODEL for another server
    python examples/openai_chat.py "Tell me about durable logs"
    python examples/openai_chat.py --replay <stream id>

Needs: pip install 'playhead[openai]'
"""

import argparse
import asyncio
import os

from openai import AsyncOpenAI

from playhead import Playhead
from playhead.adapters.openai import openai_chat, text_of, usage_of

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
STORE = os.environ.get("PLAYHEAD_STORE", "sqlite:///openai_chat.db")


async def show(playhead: Playhead, stream_id: str) -> None:
    """Print an answer as it comes, from its first word to its close."""
    tail = playhead.tail(stream_id)
    async for event in tail:
        print(text_of(event), end="", flush=True)
        if usage := usage_of(event):
            print(f"\n[{usage['total_tokens']} tokens]", end="")
    assert tail.outcome is not None
    print(f"\n[{tail.outcome.kind}{': ' + tail.outcome.error if tail.outcome.error else ''}]")


async def main(question: str, replay: str | None) -> None:
    async with Playhead.open(STORE) as playhead:
        if replay is not None:
            await show(playhead, replay)
            return
        if not os.environ.get("OPENAI_API_KEY"):
            raise SystemExit("Set OPENAI_API_KEY; for a local server (OPENAI_BASE_URL) any value will do.")
        async with AsyncOpenAI() as client:
            messages = [{"role": "user", "content": question}]
            info = await playhead.start(openai_chat(client, model=MODEL, messages=messages))
            print(f"[stream {info.stream_id}]")
            await show(playhead, info.stream_id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("question", nargs="?", default="Say hello in five languages.")
    parser.add_argument("--replay", metavar="STREAM_ID", help="show a recorded answer, without asking anybody")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.question, arguments.replay))
