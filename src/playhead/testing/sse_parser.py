"""The parser of server-sent events, strict: it also tells what is unhealthy.

parser = ServerSentEvents()
for chunk in response:
    for event in parser.feed(chunk):
        ...
"""

from playhead.sse_parser import EventParser, ServerSentEvent

__all__ = ["ServerSentEvent", "ServerSentEvents"]


class ServerSentEvents(EventParser):
    """Bytes in, events out, wherever the bytes are cut.

    Attributes:
        comments: the comments, in order.
        empty_dispatches: blank lines with no data before them; some clients take each for an event.
        unknown_fields: names of fields that the specification does not know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.comments: list[str] = []
        self.empty_dispatches = 0
        self.unknown_fields: list[str] = []

    def _dispatch(self) -> ServerSentEvent | None:
        event = super()._dispatch()
        if event is None:
            self.empty_dispatches += 1
        return event

    def _ignore(self, name: str, value: str) -> None:
        if name:
            self.unknown_fields.append(name)
        else:
            self.comments.append(value)
