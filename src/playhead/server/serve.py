"""``playhead serve``: one process, from the listening socket to a clean end.

Shutdown (P11), since uvicorn would wait for open responses before anything else is told of it:

    SIGTERM or SIGINT
      1  stop listening
      2  drain: readers' responses end at once, cursor in hand; running answers get ``shutdown_grace_s``,
         what remains is closed ``interrupted`` (reason ``shutdown``) and settled
      3  uvicorn ends what requests are left
      4  close the store, exit 0
    a second signal, or the deadline: exit at once; the next start closes what was left, as after a crash

A worker does the same, but hears its parent only (``workers``): once, and by SIGTERM.
"""

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from playhead.server.app import create_app
from playhead.server.listening import listen
from playhead.server.opening import open_chat
from playhead.server.settings import Settings
from playhead.server.stopping import EXIT_FORCED, REQUESTS_END_WITHIN_S, deadline_s, exit_now
from playhead.streams import Playhead

__all__ = ["EXIT_FORCED", "DrainingServer", "listen", "make_server", "serve"]


class DrainingServer(uvicorn.Server):
    """uvicorn with the order of steps above. In a thread that is not the main one it hears no signals.

    ``ready`` is called when requests are taken and signals are heard.
    """

    def __init__(
        self, config: uvicorn.Config, playhead: Playhead, settings: Settings, *, is_worker: bool = False
    ) -> None:
        super().__init__(config)
        self._playhead = playhead
        self._grace_s = settings.shutdown_grace_s
        self._deadline_s = deadline_s(settings)
        self._is_worker = is_worker
        self.ready: Callable[[], None] = lambda: None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # As uvicorn's, but a process that ended as it was told to has succeeded: the signal is not raised again.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM,) if self._is_worker else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.should_exit and self._is_worker:
            return  # a service manager tells the parent, and each process of the group as well
        if self.should_exit:
            exit_now("told twice")
        self.should_exit = True
        # Nothing that hangs, the store's disk included, may keep the process.
        watchdog = threading.Timer(self._deadline_s, exit_now, ["deadline passed"])
        watchdog.daemon = True
        watchdog.start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        await self._playhead.drain(self._grace_s)
        await super().shutdown(sockets)


def make_server(settings: Settings, app: object, playhead: Playhead, *, is_worker: bool = False) -> DrainingServer:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=settings.access_log,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=REQUESTS_END_WITHIN_S,
    )
    return DrainingServer(config, playhead, settings, is_worker=is_worker)


def serve(
    settings: Settings, listening: socket.socket, ready: Callable[[str], None], *, is_worker: bool = False
) -> None:
    """Serve until told to stop; ``ready`` is called with the model's name once requests are taken.

    Raises: PlayheadError, OSError: it could not begin.
    """

    async def main() -> None:
        async with open_chat(settings) as chat:
            server = make_server(settings, create_app(settings, chat), chat.playhead, is_worker=is_worker)
            server.ready = lambda: ready(chat.model_name)
            # What has been imported stays: looking through it now and then would stop every stream for 60 ms.
            gc.collect()
            gc.freeze()
            await server.serve([listening])

    with asyncio.Runner(loop_factory=uvicorn.Config(main, log_config=None).get_loop_factory()) as runner:
        runner.run(main())
