"""A client of a Playhead server over HTTP, for asyncio (``AsyncClient``) and without it (``Client``).

A tail follows a stream to its close. It connects again by itself, with its last cursor, and hands on each event once.
Needs ``pip install 'playhead[client]'``.
"""

from importlib.util import find_spec

if find_spec("httpx") is None:
    raise ImportError("playhead.client needs httpx: pip install 'playhead[client]'", name="httpx")

from playhead.client.asynchronous import AsyncClient, AsyncTail
from playhead.client.state import Limits, State
from playhead.client.synchronous import Client, Tail
from playhead.client.trouble import BadAnswer, ConnectionLost, Refused, Unauthorized
from playhead.client.views import Started, StreamState

__all__ = [
    "AsyncClient",
    "AsyncTail",
    "BadAnswer",
    "Client",
    "ConnectionLost",
    "Limits",
    "Refused",
    "Started",
    "State",
    "StreamState",
    "Tail",
    "Unauthorized",
]
