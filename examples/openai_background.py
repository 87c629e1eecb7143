"""A response in background mode survives its connection, and the process that asked for it.

    export OPENAI_API_KEY=…                       # and OPENAI_BASE_URL, OPENAI_MODEL
    python examples/openai_background.py "Write a long story"

Pull the network plug while it writes: it goes on when the network is back. Kill the process (kill -9) and run it
again: what that run had written is shown at once, and the rest follows, as the provider went on meanwhile. Ctrl-C
cancels the response, here and at the provider.

Needs: pip install 'playhead[openai]'
"""

import asyncio
import os
import sys

from openai import AsyncOpenAI

from playhead import OutcomeKind, Playhead, StreamInfo
from playhead.adapters.openai import openai_responses, resume_response, text_of

MODEL = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
STORE = os.environ.get("PLAYHEAD_STORE", "sqlite:///openai_background.db")
THREAD = "background-demo"


async def begin(playhead: Playhead, client: AsyncOpenAI, question: str) -> StreamInfo:
    """A new response; or the one that a dead process left, in a stream that begins where its own ended."""
    left = await playhead.latest(THREAD)
    if left is not None and left.outcome is not None and left.outcome.kind is OutcomeKind.INTERRUPTED:
        response_id, newest = left.metadata.get("response_id"), left.metadata.get("starting_after")
        async for event in playhead.events(left.stream_id):
            print(text_of(event), end="")
            facts = event.json()
            response_id = response_id or facts.get("response", {}).get("id")
            newest = facts["sequence_number"]
        if response_id is not None:
            print("[…]", end="", flush=True)
            again = resume_response(client, response_id, starting_after=newest)
            where = {"response_id": response_id, "starting_after": newest}
            return await playhead.start(again, thread_id=THREAD, metadata=where)
    asked = openai_responses(client, model=MODEL, input=question, background=True)
    return await playhead.start(asked, thread_id=THREAD)


async def main(question: str) -> None:
    async with Playhead.open(STORE) as playhead, AsyncOpenAI() as client:
        info = await begin(playhead, client, question)
        tail = playhead.tail(info.stream_id)
        try:
            async for event in tail:
                print(text_of(event), end="", flush=True)
        except asyncio.CancelledError:
            await playhead.cancel(info.stream_id)
            await playhead.wait(info.stream_id)
            print("\n[cancelled]")
            raise
        assert tail.outcome is not None
        print(f"\n[{tail.outcome.kind}{': ' + tail.outcome.error if tail.outcome.error else ''}]")


if __name__ == "__main__":
    if not os.environ.get("OPENAI_API_KEY"):
        raise SystemExit("Set OPENAI_API_KEY; for a local server (OPENAI_BASE_URL) any value will do.")
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "Write a long story about a log."))
    except KeyboardInterrupt:
        sys.exit(130)
