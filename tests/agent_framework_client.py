"""A client of agents in a process of its own: ``python agent_framework_client.py <address> <session> …``

    --ask MESSAGE     send this first
    --cursor CURSOR   go on after this chunk
    --chunks N        leave after so many chunks

It tells each chunk as a line of JSON: [cursor, type, text, is_done, error]. Which store: by the settings.
"""

import argparse
import asyncio
import json
from contextlib import aclosing

from agent_framework_hosting import AGENT, Asker

from playhead.adapters.agent_framework import AgentStreamReader


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("session")
    parser.add_argument("--ask")
    parser.add_argument("--agent", default=AGENT)
    parser.add_argument("--cursor")
    parser.add_argument("--chunks", type=int)
    given = parser.parse_args()
    correlation_id = None
    if given.ask:
        with Asker(given.address) as asker:
            correlation_id = await asyncio.to_thread(asker.ask, given.ask, given.session, given.agent)
    async with AgentStreamReader() as reader:
        chunks = reader.read_stream(given.session, given.cursor, correlation_id=correlation_id)
        count = 0
        async with aclosing(chunks):
            async for chunk in chunks:
                line = [chunk.cursor, chunk.type, chunk.text, chunk.is_done, chunk.error]
                print(json.dumps(line), flush=True)
                count += 1
                if count == given.chunks:
                    return


if __name__ == "__main__":
    asyncio.run(main())
