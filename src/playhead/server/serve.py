"""``playhead serve``: one process, from the listening socket to a clean end.

Shutdown (P11), since uvicorn would wait for open responses before anything else is told of it:

    SIGTERM or SIGINT
      1  stop listening
      2  drain: readers' responses end at once, cursor in hand; running answers get ``shutdown_grace_s``,
         what remains is closed ``interrupted`` (reason ``shutdown``) and settled
      3  uvicorn ends what requests are left
      4  close the store, exit 0
    a second signal, or the deadline: exit at once; the next start closes what was left, as after a crash
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from playhead.errors import InvalidSetting
from playhead.server.app import create_app
from playhead.server.local_guard import is_loopback
from playhead.server.opening import open_chat
from playhead.server.settings import Settings
from playhead.streams import Playhead

REQUESTS_END_WITHIN_S = 2
"""What ordinary requests get once the readers have gone."""

SLACK_S = 1.0
BACKLOG = 2_048
EXIT_FORCED = 70


class DrainingServer(uvicorn.Server):
    """uvicorn with the order of steps above. In a thread that is not the main one it hears no signals."""

    def __init__(self, config: uvicorn.Config, playhead: Playhead, settings: Settings) -> None:
        super().__init__(config)
        self._playhead = playhead
        self._grace_s = settings.shutdown_grace_s
        self._deadline_s = settings.shutdown_grace_s + settings.cancel_grace_s + REQUESTS_END_WITHIN_S + SLACK_S

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # As uvicorn's, but a process that ended as it was told to has succeeded: the signal is not raised again.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit:
            _exit_now("told twice")
        self.should_exit = True
        # Nothing that hangs, the store's disk included, may keep the process.
        watchdog = threading.Timer(self._deadline_s, _exit_now, ["deadline passed"])
        watchdog.daemon = True
        watchdog.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        await self._playhead.drain(self._grace_s)
        await super().shutdown(sockets)


def _exit_now(why: str) -> None:
    os.write(sys.stderr.fileno(), f"playhead: {why}; exit at once, answers are closed at the next start\n".encode())
    os._exit(EXIT_FORCED)


def listen(settings: Settings) -> socket.socket:
    """The listening socket; port 0 takes a free one. Raises: InvalidSetting (not a loopback address), OSError."""
    host = settings.host.strip("[]")
    if not is_loopback(host):
        raise InvalidSetting(
            f"{settings.host} is not a loopback address: without authentication only this machine may come in"
            " (127.0.0.1, ::1 or localhost)",
            setting="host",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Not ``socket.create_server``: it leaves the protocol unnamed, and asyncio then leaves Nagle's algorithm on, which
    # with delayed acknowledgements costs every small answer 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, settings.port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def make_server(settings: Settings, app: object, playhead: Playhead) -> DrainingServer:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=REQUESTS_END_WITHIN_S,
    )
    return DrainingServer(config, playhead, settings)


def serve(settings: Settings, listening: socket.socket, say: Callable[[str], None]) -> None:
    """Serve until told to stop; ``say`` gets the lines for the person at the terminal.

    Raises: PlayheadError, OSError: it could not begin.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("playhead").setLevel(settings.log_level.upper())

    async def main() -> None:
        async with open_chat(settings) as chat:
            server = make_server(settings, create_app(settings, chat), chat.playhead)
            _greet(settings, listening, chat.model_name, say)
            await server.serve([listening])

    with asyncio.Runner(loop_factory=uvicorn.Config(main, log_config=None).get_loop_factory()) as runner:
        runner.run(main())


def _greet(settings: Settings, listening: socket.socket, model: str, say: Callable[[str], None]) -> None:
    host, port = listening.getsockname()[:2]
    if model == "demo":
        model = "the built-in demo model (set OPENAI_API_KEY or OPENAI_BASE_URL for a real one)"
    say(f"Playhead is at http://{f'[{host}]' if ':' in host else host}:{port}")
    say(f"  store   {settings.store_url}")
    say(f"  model   {model}")
    say("  access  no authentication: reachable from this machine only, and everybody on it acts as one local user")
