"""The ``playhead`` command."""

import errno
import sys
from typing import Annotated, NoReturn

import typer

from playhead import __version__
from playhead.errors import InvalidSetting, PlayheadError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        print(f"playhead {__version__}")
        raise typer.Exit


@app.callback()
def playhead(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Durable, resumable, cancellable streams for LLM responses."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port (8082); 0 takes a free one.")] = None,
    store: Annotated[str | None, typer.Option(help="sqlite:///path/to/file.db or memory://")] = None,
) -> None:
    """Serve streams and a chat over HTTP. Options win over PLAYHEAD_* variables, these over .env."""
    # Imported here: the other commands need no server.
    from pydantic import ValidationError

    from playhead.server.serve import listen
    from playhead.server.serve import serve as run
    from playhead.server.settings import Settings

    given = {"host": host, "port": port, "store": store}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        for one in error.errors():
            name = str(one["loc"][0])
            name = name if name.isupper() else f"PLAYHEAD_{name.upper()}"
            print(f"playhead: setting {name}: {one['msg']}", file=sys.stderr)
        raise typer.Exit(EXIT_USAGE) from None
    try:
        listening = listen(settings)
    except InvalidSetting as error:
        _fail(error, EXIT_USAGE)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        taken = error.errno == errno.EADDRINUSE
        why = "is in use; choose another one with --port" if taken else f"cannot be listened on: {error.strerror}"
        _fail(f"{where} {why}", EXIT_FAILED)
    try:
        with listening:
            run(settings, listening, lambda line: print(line, flush=True))
    except InvalidSetting as error:
        _fail(error, EXIT_USAGE)
    except (PlayheadError, OSError) as error:
        _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:  # before it served
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _fail(why: object, code: int) -> NoReturn:
    print(f"playhead: {why}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    app()
