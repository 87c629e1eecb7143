"""A console client: asks, prints what comes as it comes, and may be left and come back to at any time.

    python client.py "Plan a trip to Tokyo"     # Ctrl-C leaves; the agent goes on
    python client.py                            # goes on where it was left
    python client.py "Make it cheap"            # the next turn of the same conversation
    python client.py --cancel                   # stop the agent
    python client.py --new "Plan a trip to Oslo"

Where it is, is kept in the file travel-client.json (setting: TRAVEL_STATE).
"""

import argparse
import asyncio
import json
import os
import uuid
from contextlib import aclosing, closing, suppress
from pathlib import Path

import grpc
from agent_framework_durabletask import AgentSessionId, DurableAgentSession, DurableAIAgentClient
from durabletask.client import TaskHubGrpcClient
from scheduler import task_hub_client
from travel_agent import NAME

from playhead import OutcomeKind
from playhead.adapters.agent_framework import AgentStreamReader, correlation_id_of


class Place:
    """Where this client is: its session, the request that is answered, the last chunk that was printed.

    Kept in a file, unless there is none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
        self.session: str = kept.get("session") or f"trip-{uuid.uuid4().hex[:8]}"
        self.request: str | None = kept.get("request")
        self.cursor: str | None = kept.get("cursor")
        self.is_done: bool = kept.get("is_done", True)

    def keep(self) -> None:
        if self._path is not None:
            kept = {"session": self.session, "request": self.request, "cursor": self.cursor, "is_done": self.is_done}
            written = self._path.with_suffix(".new")
            written.write_text(json.dumps(kept))
            written.replace(self._path)


def ask(hub: TaskHubGrpcClient, place: Place, message: str) -> None:
    """Fire and forget: the request is with the scheduler when this returns, and nothing waits for the answer."""
    session = DurableAgentSession.from_session_id(AgentSessionId(NAME, place.session))
    try:
        agent = DurableAIAgentClient(hub).get_agent(NAME)
        accepted = agent.run(message, session=session, options={"wait_for_response": False})
    except grpc.RpcError as error:
        raise SystemExit(f"The scheduler does not answer (is `python scheduler.py` running?): {error.code()}") from None
    place.request, place.cursor, place.is_done = correlation_id_of(accepted), None, False
    place.keep()


async def follow(reader: AgentStreamReader, place: Place) -> None:
    """Print the rest of the answer. Left half-way, in whatever manner, the place tells where."""
    chunks = reader.read_stream(place.session, place.cursor, correlation_id=place.request)
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.type == "function_call" and chunk.event and (name := chunk.event.json().get("name")):
                print(f"[asks {name}]", flush=True)
            elif chunk.type == "agent.replaced":
                print("\n[the model was asked again]", flush=True)
            print(chunk.text, end="", flush=True)
            place.cursor = chunk.cursor
            # What was interrupted may be delivered again, to another worker: that is waited for the next time.
            place.is_done = chunk.outcome is not None and chunk.outcome.kind is not OutcomeKind.INTERRUPTED
            place.keep()
            if chunk.is_done:
                print(f"\n[{chunk.error}]" if chunk.error else "", flush=True)


async def main(arguments: argparse.Namespace, place: Place) -> None:
    async with AgentStreamReader() as reader:
        if arguments.cancel:
            stopped = await reader.cancel(place.session, correlation_id=place.request)
            print("[stopped]" if stopped else "[there is nothing to stop]")
            return
        if arguments.message:
            with closing(task_hub_client()) as hub:
                await asyncio.to_thread(ask, hub, place, arguments.message)
        elif place.is_done:
            print(f"[session {place.session}: nothing is left to print]")
            return
        await follow(reader, place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Plan a trip.")
    parser.add_argument("message", nargs="?", help="what to ask; go on printing when absent")
    parser.add_argument("--new", action="store_true", help="in a new conversation")
    parser.add_argument("--cancel", action="store_true", help="stop the agent")
    given = parser.parse_args()
    state = Path(os.environ.get("TRAVEL_STATE", "travel-client.json"))
    if given.new:
        state.unlink(missing_ok=True)
    here = Place(state)
    with suppress(KeyboardInterrupt):
        asyncio.run(main(given, here))
        raise SystemExit
    print("\n[left; the agent goes on, and so does: python client.py]")
