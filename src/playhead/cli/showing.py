"""What commands show: tables for people, JSON for scripts. Nothing from a stream reaches a terminal as it is."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from playhead.client import StreamState

_COLOURS = {
    "live": "green",
    "completed": "default",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "expired": "dim",
}
WIDE_COLUMNS = 110
_SHORT = 12
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def harmless(text: str) -> str:
    """Text that cannot command a terminal: control characters, but for line ends and tabs, are shown, not sent."""
    return "".join(
        one if one in "\n\t" or not _commands(one) else f"\\x{ord(one):02x}" for one in text.replace("\r\n", "\n")
    )


def _commands(one: str) -> bool:
    # C0, DEL and C1; and what turns the direction of text around.
    return ord(one) < 32 or 127 <= ord(one) < 160 or one in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def one_line(text: str) -> str:
    return " ".join(harmless(text).split())


def facts_of(stream: "StreamState") -> dict[str, Any]:
    """A stream as JSON: the same keys as over HTTP."""
    facts = asdict(stream)
    facts["outcome"] = None if stream.outcome is None else stream.outcome._asdict()
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in facts.items()}


def print_json(facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def state_of(stream: "StreamState") -> str:
    """In one word: how it ended, or that it has not."""
    if stream.outcome is not None and stream.status != "expired":
        return str(stream.outcome.kind)
    return "cancelling" if stream.cancel_requested and stream.status == "live" else str(stream.status)


def ago(then: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "now"


def size_of(size_bytes: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes = size_bytes / 1024  # type: ignore[assignment]
    return f"{size_bytes:.1f} GiB"


def print_table(streams: list["StreamState"]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = console()
    wide = shown.width >= WIDE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", no_wrap=True, overflow="ellipsis")
    table.add_column("STATE", no_wrap=True)
    table.add_column("AGE", justify="right", no_wrap=True)
    table.add_column("EVENTS", justify="right", no_wrap=True)
    table.add_column("SIZE", justify="right", no_wrap=True)
    if wide:
        table.add_column("THREAD", no_wrap=True, overflow="ellipsis")
    for stream in streams:
        name, state = one_line(stream.stream_id), state_of(stream)
        cells = [
            Text(name if wide or len(name) <= _SHORT else name[:_SHORT] + "…"),
            Text(state, style=_COLOURS.get(state, "default")),
            Text(ago(stream.created_at)),
            Text(f"{stream.tail:,}"),
            Text(size_of(stream.size_bytes)),
        ]
        table.add_row(*cells, *([Text(one_line(stream.thread_id or ""))] if wide else []))
    shown.print(table)


def print_facts(stream: "StreamState") -> None:
    """Everything of one stream, a line each."""
    from rich.table import Table
    from rich.text import Text

    outcome = stream.outcome
    rows = {
        "stream": stream.stream_id,
        "thread": stream.thread_id,
        "state": state_of(stream),
        "error": outcome and outcome.error,
        "by": outcome and outcome.by,
        "reason": outcome and outcome.reason,
        "created": f"{stream.created_at:%Y-%m-%d %H:%M:%S} UTC ({ago(stream.created_at)} ago)",
        "closed": stream.closed_at and f"{stream.closed_at:%Y-%m-%d %H:%M:%S} UTC",
        "events": f"{stream.tail:,}",
        "size": size_of(stream.size_bytes),
        "epoch": str(stream.epoch),
        "cursor": stream.cursor,
        "metadata": json.dumps(dict(stream.metadata), ensure_ascii=False) if stream.metadata else None,
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(one_line(value)))
    console().print(table)


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Something that moves while a person waits; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(doing):
        yield
