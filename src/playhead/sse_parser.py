"""A parser of server-sent events. Pure: bytes in, events out, wherever they are cut. Source: WHATWG HTML, 9.2.6.

    parser = EventParser()
    for chunk in response:
        for event in parser.feed(chunk):
            ...

A frame that is unfinished when the bytes end is dropped with its parser: no event is made of half a frame.
"""

import re
from dataclasses import dataclass

from playhead.errors import EventTooLarge

FRAME_MAX_BYTES = 64 * 1024 * 1024
LINE_MAX_BYTES = 64 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\r|\n")
_RETRY_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event; ``id`` is the last event id at that moment."""

    type: str
    data: str
    id: str


class EventParser:
    """Memory: the unfinished frame, at most ``frame_max_bytes`` and one chunk.

    Attributes:
        last_event_id: what a browser would send when it reconnects now.
        retry_ms: the last ``retry`` that was valid, None before the first.
    """

    def __init__(self, frame_max_bytes: int = FRAME_MAX_BYTES) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._frame_max_bytes = frame_max_bytes
        self._rest = bytearray()  # the unfinished line
        self._after_cr = False
        self._at_start = True
        self._type = ""
        self._data: list[str] = []
        self._data_bytes = 0

    @property
    def is_between_frames(self) -> bool:
        """Nothing of an unfinished frame is pending."""
        return not (self._rest or self._data or self._type)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that these bytes complete.

        Raises: UnicodeDecodeError for bytes that are not UTF-8; EventTooLarge. The parser is of no use after that.
        """
        if self._after_cr and chunk:  # a LF that follows a CR belongs to it
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        events = []
        start = 0
        for end in _LINE_END.finditer(chunk):
            line = chunk[start : end.start()]
            if self._rest:
                line = bytes(self._rest + line)
                self._rest.clear()
            start = end.end()
            self._after_cr = end[0] == b"\r" and start == len(chunk)
            event = self._take(line)
            if event is not None:
                events.append(event)
        self._rest += chunk[start:]
        self._bound(len(self._rest))
        return events

    def _take(self, raw: bytes) -> ServerSentEvent | None:
        line = raw.decode()
        if self._at_start:
            line = line.removeprefix("\ufeff")
            self._at_start = False
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data_bytes += len(raw)
            self._bound(0)
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id":
            if "\0" not in value:
                self.last_event_id = value
        elif name == "retry":
            if value.isascii() and value.isdigit() and len(value) <= _RETRY_MAX_DIGITS:
                self.retry_ms = int(value)
        else:
            self._ignore(name, value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        type_, data = self._type, self._data
        self._type, self._data, self._data_bytes = "", [], 0
        return ServerSentEvent(type_ or "message", "\n".join(data), self.last_event_id) if data else None

    def _bound(self, more_bytes: int) -> None:
        if self._data_bytes + more_bytes > self._frame_max_bytes:
            limit = self._frame_max_bytes
            raise EventTooLarge(f"a frame of more than {limit} bytes", limit=limit)

    def _ignore(self, name: str, value: str) -> None:
        """A comment (no name), or a field that the specification does not know."""
