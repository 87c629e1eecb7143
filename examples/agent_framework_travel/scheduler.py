"""The Durable Task Scheduler that worker and client use, by two settings: ENDPOINT and TASKHUB.

    python scheduler.py          # stands in for it, on localhost:8080, with all its state in memory

Azure's scheduler is an https:// endpoint (sign in with `az login`); its emulator, and this one, http://localhost:8080.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
from agent_framework_durabletask import DurableAIAgentWorker
from durabletask.azuremanaged.client import DurableTaskSchedulerClient
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.internal.orchestrator_service_pb2_grpc import add_TaskHubSidecarServiceServicer_to_server
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

DEFAULT_ENDPOINT = "http://localhost:8080"


def connection(endpoint: str | None = None) -> dict[str, Any]:
    """How to connect to the scheduler; signed in where it is Azure's."""
    endpoint = endpoint or os.environ.get("ENDPOINT", DEFAULT_ENDPOINT)
    is_secure = urlsplit(endpoint).scheme == "https"
    credential = None
    if is_secure:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    return {
        "host_address": endpoint,
        "taskhub": os.environ.get("TASKHUB", "default"),
        "secure_channel": is_secure,
        "token_credential": credential,
        "logger": logging.getLogger("durabletask"),  # its own prints each step
    }


def task_hub_worker(endpoint: str | None = None) -> DurableTaskSchedulerWorker:
    return DurableTaskSchedulerWorker(**connection(endpoint))


def task_hub_client(endpoint: str | None = None) -> DurableTaskSchedulerClient:
    return DurableTaskSchedulerClient(**connection(endpoint))


def stop_worker(worker: DurableAIAgentWorker) -> None:
    """Returns when its agents have ended."""
    logging.getLogger("durabletask").setLevel(logging.CRITICAL)  # the end of its own connection is an error to it
    worker.stop()


@contextmanager
def in_memory_scheduler(address: str) -> Iterator[str]:
    """The framework's scheduler for tests, on an address (port 0: any that is free); gives its endpoint."""
    backend = InMemoryOrchestrationBackend()
    alone: Any = [("grpc.so_reuseport", 0)]  # a second one on this port is refused, not given half of the requests
    server = grpc.server(ThreadPoolExecutor(max_workers=20), options=alone)
    add_TaskHubSidecarServiceServicer_to_server(backend, server)
    host, _, _ = address.rpartition(":")
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise SystemExit(f"{address} is in use already; ENDPOINT=http://localhost:8081 names another place") from None
    server.start()
    try:
        yield f"http://{host}:{port}"
    finally:
        backend.stop()
        server.stop(None).wait()


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    address = urlsplit(os.environ.get("ENDPOINT", DEFAULT_ENDPOINT)).netloc
    with in_memory_scheduler(address) as endpoint:
        print(f"A scheduler for trying things out is at {endpoint}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
