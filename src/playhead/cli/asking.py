"""Talking to a running server: where it is, and what to say when it is not there or refuses."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from playhead.cli.codes import DONE, FAILED, INTERRUPTED_BY_KEY, NOT_FOUND, UNREACHABLE, USAGE, fail
from playhead.errors import BadRequest, CursorAhead, PlayheadError, StreamExpired, StreamNotFound

if TYPE_CHECKING:
    from playhead.client import Client

SHORT_ID_CHARACTERS = 6
RECENT_STREAMS = 1_000
COMPLETION_MAX_S = 0.3

Url = Annotated[
    str | None, typer.Option(envvar="PLAYHEAD_URL", help="Where the server is.", show_default="http://127.0.0.1:8082")
]
Uds = Annotated[str | None, typer.Option(envvar="PLAYHEAD_UDS", help="Unix socket that the server listens on.")]
Token = Annotated[
    str | None, typer.Option(envvar="PLAYHEAD_TOKEN", show_envvar=True, help="Bearer token, when the server wants one.")
]


@contextmanager
def asking(url: str | None, uds: str | None, token: str | None) -> Iterator["Client"]:
    """A client; every error that comes out of the block ends the command with one line and a code of its own."""
    from playhead.client import Client, ConnectionLost

    try:
        with Client(url or _default_url(), uds=uds, token=token) as client:
            try:
                yield client
            except ConnectionLost as error:
                hint = "start one with `playhead serve`, or name another with --url"
                fail(f"{error}; {hint}", UNREACHABLE)
    except (StreamNotFound, StreamExpired) as error:
        fail(error, NOT_FOUND)
    except (BadRequest, CursorAhead) as error:
        fail(error, USAGE)
    except PlayheadError as error:
        fail(error, FAILED)
    except BrokenPipeError:
        # Whoever read this has seen enough. Nothing may be flushed into the closed pipe at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(DONE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_BY_KEY) from None


def _default_url() -> str | None:
    host, port = os.environ.get("PLAYHEAD_HOST"), os.environ.get("PLAYHEAD_PORT")
    if not (host or port):
        return None
    host = host or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port or 8082}"


def whole_id(client: "Client", given: str) -> str:
    """The id that is meant: the given one, or the one recent stream whose id begins like that.

    Raises: StreamNotFound.
    """
    try:
        client.info(given)
    except StreamNotFound:
        if len(given) < SHORT_ID_CHARACTERS:
            raise
        fits = [one.stream_id for one in client.find(limit=RECENT_STREAMS) if one.stream_id.startswith(given)]
        if len(fits) > 1:
            fail(f"{len(fits)} recent streams begin with {given}; give more of the id", USAGE)
        if not fits:
            raise
        return fits[0]
    return given


def complete_id(incomplete: str) -> list[tuple[str, str]]:
    """Recent ids for the shell, quickly or not at all."""
    import httpx

    from playhead.client import Client, Limits

    url, uds, token = (os.environ.get(f"PLAYHEAD_{name}") for name in ("URL", "UDS", "TOKEN"))
    transport = httpx.HTTPTransport(uds=uds) if uds else None
    limits = Limits(connect_s=COMPLETION_MAX_S, call_s=COMPLETION_MAX_S)
    try:
        with httpx.Client(transport=transport) as http:
            found = Client(url or _default_url(), token=token, http=http, limits=limits).find(limit=50)
    except PlayheadError:
        return []
    return [(one.stream_id, str(one.status)) for one in found if one.stream_id.startswith(incomplete)]


Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", autocompletion=complete_id, help="Of the stream; its first characters will do, if no other fits."
    ),
]
