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
from contextlib import ExitStack, closing, contextmanager, suppress

from client import Place, ask, follow
from scheduler import in_memory_scheduler, stop_worker, task_hub_client, task_hub_worker
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
            stop_worker(worker)


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


def main(messages: list[str]) -> None:
    place, reader = Place(None), AgentStreamReader()
    with working() as endpoint, closing(task_hub_client(endpoint)) as hub, asyncio.Runner() as runner:
        try:
            for message in messages or iter(lambda: input("\nWhere to? (nothing: the end) "), ""):
                print(f"> {message}")
                ask(hub, place, message)
                runner.run(answer(reader, place))
        finally:
            runner.run(reader.close())


if __name__ == "__main__":
    with suppress(EOFError, KeyboardInterrupt):  # Ctrl-D, Ctrl-C at the prompt
        main(sys.argv[1:])
