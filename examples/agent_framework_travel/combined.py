"""All of it in one process: a scheduler in memory (unless ENDPOINT names another), the worker, and a console.

    python combined.py "Plan a trip to Paris" "Make it cheap"
    python combined.py                                          # asks on the console

Ctrl-C while an answer is printed stops the agent; what it had said stays in the conversation.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from client import Place, ask, follow
from scheduler import agent_client, in_memory_scheduler, task_hub_worker
from travel_agent import travel_agent

from playhead.adapters.agent_framework import AgentStreamReader, PlayheadAgentWorker, PlayheadResponseCallback


@contextmanager
def working() -> Iterator[str]:
    """A worker at work; gives the scheduler's endpoint."""
    with ExitStack() as stack:
        endpoint = os.environ.get("ENDPOINT") or stack.enter_context(in_memory_scheduler("localhost:0"))
        callback = stack.enter_context(PlayheadResponseCallback())
        worker = PlayheadAgentWorker(task_hub_worker(endpoint), callback)
        worker.add_agent(travel_agent())
        worker.start()
        try:
            yield endpoint
        finally:
            callback.close()
            worker.stop()


async def answer(reader: AgentStreamReader, place: Place) -> None:
    """Print an answer; Ctrl-C cancels it."""
    loop = asyncio.get_running_loop()
    cancels: list[asyncio.Task[bool]] = []

    def cancel() -> None:
        cancels.append(loop.create_task(reader.cancel(place.session, correlation_id=place.request)))

    loop.add_signal_handler(signal.SIGINT, cancel)
    try:
        await follow(reader, place)
        await asyncio.gather(*cancels)
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def main(endpoint: str, messages: list[str]) -> None:
    place = Place(None)
    agents = agent_client(endpoint)
    async with AgentStreamReader() as reader:
        for message in messages or iter(lambda: input("\nWhere to? (nothing: the end) "), ""):
            print(f"> {message}")
            await asyncio.to_thread(ask, agents, place, message)
            await answer(reader, place)


if __name__ == "__main__":
    with working() as at:
        asyncio.run(main(at, sys.argv[1:]))
