"""``ls``, ``tail``, ``cancel``, ``info``, ``rm``: commands about streams of a running server."""

import base64
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from playhead.cli.asking import Id, Token, Uds, Url, asking, whole_id
from playhead.cli.codes import DONE, INTERRUPTED_BY_KEY, OF_OUTCOME, USAGE, fail
from playhead.cli.showing import (
    facts_of,
    harmless,
    one_line,
    print_facts,
    print_json,
    print_table,
    progress,
    state_of,
)
from playhead.model import TEXT, Event, Outcome
from playhead.sse import CLOSE_EVENT

if TYPE_CHECKING:
    from playhead.client import State, StreamState

PAGE_STREAMS = 500
Json = Annotated[bool, typer.Option("--json", help="JSON for scripts: an object, or a line for each.")]


def ls(
    live: Annotated[bool, typer.Option("--live", help="Only those that are being written.")] = False,
    thread: Annotated[str | None, typer.Option(help="Only those of this thread.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    every: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    json: Json = False,
    url: Url = None,
    uds: Uds = None,
    token: Token = None,
) -> None:
    """List streams, live and recent, newest first."""
    with asking(url, uds, token) as client:
        found: list[StreamState] = []
        status = "live" if live else None
        with progress("asking the server"):
            while True:
                size = PAGE_STREAMS if every else limit
                before = found[-1].stream_id if found else None
                page = client.find(status=status, thread_id=thread, before=before, limit=size)
                found += page
                if not every or len(page) < size:
                    break
        if json:
            for one in found:
                print_json(facts_of(one))
        elif found:
            print_table(found)
        else:
            print("no streams", file=sys.stderr)


def tail(
    stream_id: Id,
    after: Annotated[str | None, typer.Option(help="A cursor: begin strictly after it.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send control characters to the terminal as they are.")] = False,
    json: Json = False,
    url: Url = None,
    uds: Uds = None,
    token: Token = None,
) -> None:
    """Follow a stream to its close, through lost connections: text to standard output, the rest to standard error.

    Ends with 0 when the stream completed, 1 when it failed, 3 when it was cancelled, 4 when it was interrupted.
    """
    with asking(url, uds, token) as client:
        name = whole_id(client, stream_id)
        following = client.tail(name, after=after, coalesce=not json, on_state=None if json else _tell_state)
        shown = after  # not the tail's own cursor: that counts an event as soon as it is here, printed or not
        try:
            with following:
                for event in following:
                    _show(event, following.cursor, json=json, raw=raw)
                    shown = following.cursor
        except KeyboardInterrupt:
            if shown:
                again = f"playhead tail {one_line(name)} --after {shown}"
                print(f"\nplayhead: go on with: {again}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED_BY_KEY) from None
        outcome = following.outcome
        assert outcome is not None, "the loop ends at the close"
        _show_end(outcome, following.cursor, json=json)
    raise typer.Exit(OF_OUTCOME[outcome.kind])


def cancel(
    stream_id: Id,
    wait: Annotated[bool, typer.Option(help="Wait for its close.")] = True,
    json: Json = False,
    url: Url = None,
    uds: Uds = None,
    token: Token = None,
) -> None:
    """Stop a stream. What it said is kept; one that has ended already stays as it is."""
    with asking(url, uds, token) as client:
        name = whole_id(client, stream_id)
        state = client.cancel(name)
        if wait and state.outcome is None:
            with progress("waiting for the close"):
                for _ in client.tail(name, after=state.cursor, coalesce=True):
                    pass
            state = client.info(name)
        if json:
            print_json(facts_of(state))
        elif state.outcome is None:
            print("asked to stop")
        else:
            print(state_of(state))


def info(stream_id: Id, json: Json = False, url: Url = None, uds: Uds = None, token: Token = None) -> None:
    """Show what is known of a stream."""
    with asking(url, uds, token) as client:
        state = client.info(whole_id(client, stream_id))
        if json:
            print_json(facts_of(state))
        else:
            print_facts(state)


def rm(
    stream_id: Id,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    uds: Uds = None,
    token: Token = None,
) -> None:
    """Delete a stream and its events, for good."""
    with asking(url, uds, token) as client:
        name = whole_id(client, stream_id)
        if not yes:
            if not sys.stdin.isatty():
                fail("nobody is here to be asked; say --yes to delete it", USAGE)
            if not typer.confirm(f"Delete {one_line(name)} for good?", err=True):
                raise typer.Exit(DONE)
        client.delete(name)


def _tell_state(state: "State") -> None:
    if state == "reconnecting":
        begin = "\n" if sys.stdout.isatty() else ""  # the text so far may end in the middle of a line
        print(f"{begin}playhead: connection lost, reconnecting …", file=sys.stderr)


def _show(event: Event, cursor: str | None, *, json: bool, raw: bool) -> None:
    if json:
        print_json({"offset": event.offset, "type": event.type, **_data(event.data), "cursor": cursor})
    elif event.type == TEXT:
        if sys.stdout.isatty() and not raw:
            print(harmless(event.data.decode("utf-8", "replace")), end="", flush=True)
        else:
            sys.stdout.buffer.write(event.data)
            sys.stdout.buffer.flush()
    else:
        _aside(f"[{event.type}] {event.data.decode('utf-8', 'replace')}")


def _data(data: bytes) -> dict[str, Any]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(data).decode(), "encoding": "base64"}


def _show_end(outcome: Outcome, cursor: str | None, *, json: bool) -> None:
    facts = {name: value for name, value in outcome._asdict().items() if value is not None and name != "kind"}
    if json:
        print_json({"type": CLOSE_EVENT, "outcome": str(outcome.kind), **facts, "cursor": cursor})
        return
    if sys.stdout.isatty():
        print()
    if outcome.kind != "completed":
        _aside(": ".join([str(outcome.kind), *map(str, facts.values())]))


def _aside(text: str) -> None:
    """A line for the person, beside the text."""
    line = one_line(text)
    print(f"\x1b[2m{line}\x1b[0m" if _has_colour() else line, file=sys.stderr, flush=True)


def _has_colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
