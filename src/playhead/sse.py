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

JSON escapes CR, LF and NUL, so a frame can neither be torn nor injected. The keep-alive is a comment line without a
blank line behind it: it belongs to the frame that follows, and strict parsers never see an empty event.
"""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from playhead.errors import PlayheadError
from playhead.model import Batch, StreamInfo, cursor_prefix

CLOSE_EVENT = "playhead.close"
ERROR_EVENT = "playhead.error"
KEEP_ALIVE = b": keep-alive\n"
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


def close_frame(info: StreamInfo) -> bytes:
    """The last frame of a closed stream."""
    assert info.outcome is not None
    facts = {key: value for key, value in info.outcome._asdict().items() if value is not None and key != "kind"}
    data = _compact({"offset": info.tail + 1, "outcome": info.outcome.kind, **facts})
    return f"id: {info.cursor}\nevent: {CLOSE_EVENT}\ndata: {data}\n\n".encode()


def error_frame(error: PlayheadError) -> bytes:
    """The last frame of a response that cannot go on, though it had begun."""
    return f"event: {ERROR_EVENT}\ndata: {_compact(problem(error))}\n\n".encode()


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
    """

    name: str
    batch: Callable[[StreamInfo, Batch], bytes]
    close: Callable[[StreamInfo], bytes]
    error: Callable[[PlayheadError], bytes]

    def encode(self, info: StreamInfo, batches: Iterable[Batch]) -> bytes:
        """Batches as bytes; each is encoded once per process and door."""
        return b"".join([b.encoded(lambda batch: self.batch(info, batch), self.name) for b in batches])


NATIVE = Encoder("native", frames, close_frame, error_frame)
