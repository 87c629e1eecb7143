"""One reader of one stream: an async iterator of its chunks, from a character on."""

from typing import Any, Self

from playhead.model import BYTES, JSON, Event, Outcome, OutcomeKind
from playhead.reader import Tail

_QUIET = (OutcomeKind.COMPLETED, OutcomeKind.CANCELLED)


class ResumableStream:
    """The chunks of a stream as its source yields them, then the end.

        async for chunk in stream: ...

    Leaving the loop never stops the stream. It may be left and entered again; it is for one task at a time.

    Attributes:
        outcome: None until the end has been read; then how the stream ended.
    Raises (from iterating): SourceFailed when the source raised or its process died, with the recorded chunks given
        before; Draining when this process shuts down: come back elsewhere; StreamNotFound when the store has lost
        the stream; StoreError.
    Cancel: safe at any await; the next chunk is the one that would have come.
    """

    def __init__(self, tail: Tail, *, skip_characters: int = 0, skip_until: int = 0, is_resumed: bool = False) -> None:
        self._tail = tail
        self._skip_characters = skip_characters
        self._skip_until = skip_until
        self._is_resumed = is_resumed

    @property
    def stream_id(self) -> str:
        """Playhead's id of this very run, for ``Playhead.tail``, ``playhead tail`` and the like."""
        return self._tail.stream_id

    @property
    def outcome(self) -> Outcome | None:
        return self._tail.outcome

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while True:
            event = await anext(self._tail, None)
            if event is None:
                outcome = self._tail.outcome
                if outcome is not None and outcome.kind not in _QUIET:
                    outcome.raise_for_failure()
                raise StopAsyncIteration
            chunk = _chunk(event)
            if self._skip_characters and event.offset <= self._skip_until:
                if not isinstance(chunk, str | bytes):
                    continue  # it came before the last character that the reader has
                chunk = self._without_what_is_there(chunk)
            if chunk or not self._is_resumed or not isinstance(chunk, str | bytes):
                return chunk

    def _without_what_is_there(self, chunk: str | bytes) -> str | bytes:
        rest = chunk[self._skip_characters :]
        self._skip_characters -= len(chunk) - len(rest)
        return rest

    async def aclose(self) -> None:
        """Stop reading; the stream goes on. Idempotent."""
        await self._tail.aclose()


def _chunk(event: Event) -> Any:
    """What the source yielded; of an event with a type of its own the data, as text if it is text."""
    if event.type == JSON:
        return event.json()
    try:
        return event.data if event.type == BYTES else event.text
    except UnicodeDecodeError:
        return event.data
