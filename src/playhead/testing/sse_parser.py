"""A strict parser of server-sent events, as WHATWG HTML section 9.2.6 tells it, that also tells what is unhealthy.

parser = ServerSentEvents()
for chunk in response:
    for event in parser.feed(chunk):
        ...
"""

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One dispatched event; ``id`` is the last event id at that moment."""

    type: str
    data: str
    id: str


class ServerSentEvents:
    """Bytes in, events out, wherever the bytes are cut.

    Attributes:
        last_event_id: what a browser would send when it reconnects now.
        retry_ms: the last ``retry`` that was valid, None before the first.
        comments: the comments, in order.
        empty_dispatches: blank lines with no data before them; some clients take each for an event.
        unknown_fields: names of fields that the specification does not know.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.comments: list[str] = []
        self.empty_dispatches = 0
        self.unknown_fields: list[str] = []
        self._rest = b""
        self._at_start = True
        self._type = ""
        self._data: list[str] = []

    @property
    def is_between_frames(self) -> bool:
        """Nothing of an unfinished frame is pending."""
        return not (self._rest or self._data or self._type)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Raises: UnicodeDecodeError for bytes that are not UTF-8."""
        buffer = self._rest + chunk
        events = []
        start = 0
        for end in _LINE_END.finditer(buffer):
            if end[0] == b"\r" and end.end() == len(buffer):
                break  # a LF may follow, and would belong to it
            text = buffer[start : end.start()].decode()
            start = end.end()
            if self._at_start:
                text = text.removeprefix("\ufeff")
                self._at_start = False
            event = self._take(text)
            if event is not None:
                events.append(event)
        self._rest = buffer[start:]
        return events

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            if "\0" not in value:
                self.last_event_id = value
        elif name == "retry":
            if value.isascii() and value.isdigit():
                self.retry_ms = int(value)
        else:
            self.unknown_fields.append(name)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        type_, data = self._type, self._data
        self._type, self._data = "", []
        if not data:
            self.empty_dispatches += 1
            return None
        return ServerSentEvent(type_ or "message", "\n".join(data), self.last_event_id)
