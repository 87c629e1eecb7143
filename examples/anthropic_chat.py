"""A message of Anthropic's, recorded with its thinking; a second reader comes late and misses nothing.

    export ANTHROPIC_API_KEY=…                    # and ANTHROPIC_BASE_URL, ANTHROPIC_MODEL
    python examples/anthropic_chat.py "Why is the sky blue?"

Needs: pip install 'playhead[anthropic]'
"""

import asyncio
import os
import sys

from anthropic import AsyncAnthropic

from playhead import Event, Playhead
from playhead.adapters.anthropic import anthropic_messages, message_of, text_of

MODEL = os.environ.get("ANTHROPIC_MODEL", "claude-sonnet-4-5")
STORE = os.environ.get("PLAYHEAD_STORE", "sqlite:///anthropic_chat.db")


async def main(question: str) -> None:
    async with Playhead.open(STORE) as playhead, AsyncAnthropic() as client:
        asked = {"role": "user", "content": question}
        info = await playhead.start(anthropic_messages(client, model=MODEL, max_tokens=1024, messages=[asked]))

        events: list[Event] = []
        tail = playhead.tail(info.stream_id)
        async for event in tail:
            events.append(event)
            print(text_of(event), end="", flush=True)
        assert tail.outcome is not None
        print(f"\n[{tail.outcome.kind}{': ' + tail.outcome.error if tail.outcome.error else ''}]")

        late = [event async for event in playhead.tail(info.stream_id)]
        print(f"[a late reader has {len(late)} events, the first one had {len(events)}]")
        if events:
            message = message_of(late)
            print(f"[{message.stop_reason}, {message.usage.output_tokens} tokens said]")


if __name__ == "__main__":
    if not os.environ.get("ANTHROPIC_API_KEY"):
        raise SystemExit("Set ANTHROPIC_API_KEY; for a local server (ANTHROPIC_BASE_URL) any value will do.")
    asyncio.run(main(" ".join(sys.argv[1:]) or "Say hello in five languages."))
