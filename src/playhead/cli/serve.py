"""``playhead serve``."""

import errno
import sys
from typing import Annotated

import typer

from playhead.cli.codes import FAILED, INTERRUPTED_BY_KEY, USAGE, fail
from playhead.errors import InvalidSetting, PlayheadError


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
        raise typer.Exit(USAGE) from None
    try:
        listening = listen(settings)
    except InvalidSetting as error:
        fail(error, USAGE)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        taken = error.errno == errno.EADDRINUSE
        why = "is in use; choose another one with --port" if taken else f"cannot be listened on: {error.strerror}"
        fail(f"{where} {why}", FAILED)
    try:
        with listening:
            run(settings, listening, lambda line: print(line, flush=True))
    except InvalidSetting as error:
        fail(error, USAGE)
    except (PlayheadError, OSError) as error:
        fail(error, FAILED)
    except KeyboardInterrupt:  # before it served
        raise typer.Exit(INTERRUPTED_BY_KEY) from None
