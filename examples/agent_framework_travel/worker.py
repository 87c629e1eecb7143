"""The worker: hosts TravelPlanner, and records its runs.

    python worker.py

Settings: ENDPOINT and TASKHUB of the scheduler, PLAYHEAD_STORE (or REDIS_CONNECTION_STRING) of the runs.
"""

import signal
import threading

from scheduler import stop_worker, task_hub_worker
from travel_agent import NAME, travel_agent

from playhead import PlayheadError
from playhead.adapters.agent_framework import PlayheadAgentWorker, PlayheadResponseCallback


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with PlayheadResponseCallback() as callback:
        try:
            callback.connect()  # better now than with the first request
        except PlayheadError as error:
            raise SystemExit(f"Runs cannot be recorded: {error}") from None
        worker = PlayheadAgentWorker(task_hub_worker(), callback)
        worker.add_agent(travel_agent())
        worker.start()
        print(f"{NAME} is at work; Ctrl-C ends it.", flush=True)
        stop.wait()
        callback.close(grace_s=5.0)  # readers first: the worker's stop waits for agents
        stop_worker(worker)


if __name__ == "__main__":
    main()
