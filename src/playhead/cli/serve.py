"""``playhead serve``."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from playhead.cli.codes import FAILED, INTERRUPTED_BY_KEY, USAGE, fail
from playhead.errors import InvalidSetting, PlayheadError

if TYPE_CHECKING:
    from playhead.server.settings import Settings

# What is used below is imported there: the other commands need no server, and a parent of workers does not serve.


def serve(
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port (8082); 0 takes a free one.")] = None,
    uds: Annotated[Path | None, typer.Option(help="Listen on a Unix socket at this path instead.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite:///path/to/file.db, redis://host:6379 or memory://")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve, on one store (1).")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="For development: restart when a file changes.")] = False,
) -> None:
    """Serve streams and a chat over HTTP. Options win over PLAYHEAD_* variables, these over .env."""
    from playhead.server.listening import listening_at, wanted_place
    from playhead.server.logs import log_to_stderr

    options = {"host": host, "port": port, "uds": uds, "store": store, "workers": workers}
    given = {name: value for name, value in options.items() if value is not None}
    settings = _settings(given)
    log_to_stderr(settings)
    is_listening = False
    try:
        with listening_at(settings) as listening:
            is_listening = True
            _run(settings, listening, given if reload else None)
    except InvalidSetting as error:
        fail(error, USAGE)
    except PlayheadError as error:
        fail(error, FAILED)
    except OSError as error:
        fail(error if is_listening else f"{wanted_place(settings)} {_why_not(error)}", FAILED)
    except KeyboardInterrupt:  # before it served
        raise typer.Exit(INTERRUPTED_BY_KEY) from None


def _settings(given: Mapping[str, Any]) -> "Settings":
    from pydantic import ValidationError

    from playhead.server.settings import Settings, complaints

    try:
        return Settings(**given)
    except ValidationError as error:
        for line in complaints(error):
            print(f"playhead: {line}", file=sys.stderr)
        raise typer.Exit(USAGE) from None


def _run(settings: "Settings", listening: socket.socket, reload_with: Mapping[str, Any] | None) -> None:
    greet = _greeter(settings, listening)
    if reload_with is not None:
        from playhead.server.workers import serve_and_reload

        serve_and_reload(reload_with, settings, listening, greet)
    elif settings.workers > 1:
        from playhead.server.workers import serve_with_workers

        serve_with_workers(settings, listening, greet)
    else:
        from playhead.server.serve import serve as serve_here

        serve_here(settings, listening, greet)


def _greeter(settings: "Settings", listening: socket.socket) -> Callable[[str], None]:
    from playhead.server.greeting import greeting

    def greet(model: str) -> None:
        for line in greeting(settings, listening, model):
            print(line, flush=True)

    return greet


def _why_not(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is in use; choose another one with --port or --uds"
    return f"cannot be listened on: {os.strerror(error.errno) if error.errno else error}"
