"""Server-sent events, native form. Pure: batches in, bytes out. Source: WHATWG HTML, section 9.2.

    id: 1.<mark>.<epoch>.<offset>              the cursor; EventSource hands it back as Last-Event-ID
    event: <type>
    data: {"offset":7,"data":"text"}           text as it is; other bytes as base64 with "encoding":"base64"
    <blank line>

    id: <cursor of the close>
    event: playhead.close                      last frame of every stream, for all outcomes
    data: {"offset":8,"outcome":"completed"}   and "error", "by", "reason" where they say something

    event: playhead.error                      the stream cannot be read on; a problem document (RFC 9457)
    data: {"type":…,"title":…,"status":…}

    event: playhead.reconnecting               the store is away; the response stays open and goes on where it is
    data: {"code":"store-unavailable","detail":…}

With ``?coalesce=text`` neighbouring text events that are ready together become one frame:

    id: <cursor of the last>
    event: text
    data: {"first":3,"offset":41,"data":"what the events 3 to 41 say, joined"}

JSON escapes CR, LF and NUL, so a frame can neither be torn nor injected. The keep-alive is a comment line without a
blank line behind it: it belongs to the frame that follows, and strict parsers never see an empty event.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from playhead.errors import PlayheadError
from playhead.model import TEXT, Batch, StreamInfo, cursor_prefix

CLOSE_EVENT = "playhead.close"
ERROR_EVENT = "playhead.error"
RECONNECTING_EVENT = "playhead.reconnecting"
KEEP_ALIVE = b": keep-alive\n"
JOINED_MAX_CHARACTERS = 65_536
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)


def opening(retry_ms: int) -> bytes:
    """The first bytes of every response: how soon to come back. No blank line: it belongs to the first frame."""
    return b"retry: %d\n" % retry_ms


def frames(info: StreamInfo, batch: Batch) -> bytes:
    """A batch of a stream as native frames."""
    prefix = cursor_prefix(info.mark, batch.epoch)
    types = repeat(batch.types) if isinstance(batch.types, str) else batch.types
    rows = zip(range(batch.first, batch.last + 1), types, _values(batch.datas), strict=False)
    return "".join(
        [
            f'id: {prefix}{offset}\nevent: {kind}\ndata: {{"offset":{offset},"data":{value}}}\n\n'
            for offset, kind, value in rows
        ]
    ).encode()


def _values(datas: Sequence[bytes]) -> list[str]:
    """Each event's data as what stands behind ``"data":``."""
    try:
        texts = list(map(bytes.decode, datas))
    except UnicodeDecodeError:
        return list(map(_value, datas))
    # One call for all: JSON strings hold no raw line feed, so it can part them.
    return json.dumps(texts, ensure_ascii=False, separators=("\n", ":"))[1:-1].split("\n")


def _value(data: bytes) -> str:
    try:
        return json.dumps(data.decode(), ensure_ascii=False)
    except UnicodeDecodeError:
        return f'"{base64.b64encode(data).decode()}","encoding":"base64"'


@dataclass(frozen=True, slots=True)
class Joined:
    """One event, or neighbouring text events as one. ``value`` is what stands behind ``"data":`` in JSON."""

    epoch: int
    first: int
    offset: int
    type: str
    value: str

    @property
    def place(self) -> str:
        return (
            f'"first":{self.first},"offset":{self.offset}' if self.first != self.offset else f'"offset":{self.offset}'
        )


def joined(batches: Iterable[Batch]) -> Iterator[Joined]:
    """The events of neighbouring batches, with text that follows text joined, up to 64 Ki characters at a time.

    Only text that is UTF-8 is joined, and only within one epoch: the cursor of the last says what a reader has.
    """
    run: list[str] = []
    epoch = first = offset = size = 0

    def end_run() -> Iterator[Joined]:
        if run:
            yield Joined(epoch, first, offset, TEXT, json.dumps("".join(run), ensure_ascii=False))
            run.clear()

    for batch in batches:
        types = repeat(batch.types) if isinstance(batch.types, str) else batch.types
        for at, kind, data in zip(range(batch.first, batch.last + 1), types, batch.datas, strict=False):
            text = _joinable(data) if kind == TEXT else None
            if run and (text is None or batch.epoch != epoch or size + len(text) > JOINED_MAX_CHARACTERS):
                yield from end_run()
            if text is None:
                yield Joined(batch.epoch, at, at, kind, _value(data))
                continue
            if not run:
                epoch, first, size = batch.epoch, at, 0
            run.append(text)
            offset, size = at, size + len(text)
    yield from end_run()


def _joinable(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def coalesced(info: StreamInfo, batches: Iterable[Batch]) -> bytes:
    """Batches of a stream as native frames, text joined."""
    return "".join(
        [
            f"id: {cursor_prefix(info.mark, one.epoch)}{one.offset}\nevent: {one.type}\n"
            f'data: {{{one.place},"data":{one.value}}}\n\n'
            for one in joined(batches)
        ]
    ).encode()


def close_facts(info: StreamInfo) -> dict[str, Any]:
    """What a close says: its offset, the outcome, and whatever of ``error``, ``by``, ``reason`` there is."""
    assert info.outcome is not None
    facts = {key: value for key, value in info.outcome._asdict().items() if value is not None and key != "kind"}
    return {"offset": info.tail + 1, "outcome": info.outcome.kind, **facts}


def close_frame(info: StreamInfo) -> bytes:
    """The last frame of a closed stream."""
    return f"id: {info.cursor}\nevent: {CLOSE_EVENT}\ndata: {_compact(close_facts(info))}\n\n".encode()


def error_frame(error: PlayheadError) -> bytes:
    """The last frame of a response that cannot go on, though it had begun."""
    return f"event: {ERROR_EVENT}\ndata: {_compact(problem(error))}\n\n".encode()


def reconnecting_frame(error: PlayheadError) -> bytes:
    """The store does not answer; no place in the stream, so without ``id:``."""
    return f"event: {RECONNECTING_EVENT}\ndata: {_compact(reconnecting_facts(error))}\n\n".encode()


def reconnecting_facts(error: PlayheadError) -> dict[str, Any]:
    return {"code": error.code, "detail": str(error)}


def reconnecting_comment(error: PlayheadError) -> bytes:
    """For doors that have no frame for it. As with keep-alives, no blank line."""
    return f": reconnecting, {error.code}\n".encode()


def problem(error: PlayheadError) -> dict[str, Any]:
    """An error as a problem document (RFC 9457). Facts of the error are extension members."""
    facts = {key: value for key, value in error.facts.items() if value is not None}
    title = type(error).code.replace("-", " ").capitalize()
    base = {"type": f"urn:playhead:{error.code}", "title": title, "status": error.http_status, "detail": str(error)}
    return {**facts, **base, "code": error.code, "retryable": error.retryable}


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def data_lines(text: str) -> str:
    """Text as ``data:`` lines, one for each line of it: CRLF, CR and LF all end a line for an SSE parser."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Encoder:
    """How one door writes a stream: every door but the native one has a wire format of its own.

    Attributes:
        name: key under which a batch's encoded bytes are shared.
        batch: events to bytes; where one event becomes several frames only the last carries the ``id:``.
        close: the end of the stream; must always say that it is the end.
        error: why the response cannot go on.
        reconnecting: the store is away, and the response waits for it.
    """

    name: str
    batch: Callable[[StreamInfo, Batch], bytes]
    close: Callable[[StreamInfo], bytes]
    error: Callable[[PlayheadError], bytes]
    reconnecting: Callable[[PlayheadError], bytes] = reconnecting_comment

    def encode(self, info: StreamInfo, batches: Iterable[Batch]) -> bytes:
        """Batches as bytes; each is encoded once per process and door."""
        return b"".join([b.encoded(lambda batch: self.batch(info, batch), self.name) for b in batches])


class Coalescing(Encoder):
    """The native form with text joined: few large frames while a reader catches up."""

    __slots__ = ()

    def encode(self, info: StreamInfo, batches: Iterable[Batch]) -> bytes:
        """Batches as bytes; a single one, as live readers get them, is encoded once for all of them."""
        batches = list(batches)
        return coalesced(info, batches) if len(batches) > 1 else Encoder.encode(self, info, batches)


NATIVE = Encoder("native", frames, close_frame, error_frame, reconnecting_frame)
COALESCED = Coalescing(
    "coalesced", lambda info, batch: coalesced(info, [batch]), close_frame, error_frame, reconnecting_frame
)
