"""The ``playhead`` command: ``serve`` runs a server, the others talk to one that runs.

What a command needs is imported when it runs: ``--help`` and ``--version`` answer at once.
"""

from typing import Annotated

import typer

from playhead import __version__
from playhead.cli import serve, streams

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(serve.serve)
for command in (streams.ls, streams.tail, streams.cancel, streams.info, streams.rm):
    app.command()(command)


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


def main() -> None:
    app()
