"""One stream as far as it was read: what to ask for next, what has come, how long to wait. Pure: no I/O, time is given.

    loop of a tail:   take() ── an event? hand it on
                        │ None
                        ├── failure? raise it, once        is_over? end
                        ├── connected? read: received(bytes), or lost(why)
                        └── else: wait until due_at, ask: opened(), finished(), refused(), or lost(why)

There are two places. ``_read`` is that of the last event that has come, ``_handed`` that of the last one that was
handed on; between them are the events of the last bytes, at most. A connection asks from the former, ``cursor`` tells
the latter. Each changes in one step. So whatever interrupts the loop, and be it a signal, nothing is lost or repeated:
what came is handed on, and what did not is asked for.
"""

import base64
import json
import random
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from playhead.client.calls import Call, stream_path
from playhead.client.state import Limits, State
from playhead.client.trouble import BadAnswer, ConnectionLost, is_passing, problem, refusal
from playhead.client.views import StreamState, outcome_of
from playhead.errors import BadRequest, CursorInvalid, EventTooLarge, PlayheadError
from playhead.model import CURSOR_MAX_BYTES, RESERVED, Cursor, Event, Outcome, check_seconds
from playhead.sse_parser import EventParser, ServerSentEvent

CLOSE, ERROR, RECONNECTING = f"{RESERVED}close", f"{RESERVED}error", f"{RESERVED}reconnecting"
FRUITLESS_MAX = 3  # connections in a row whose first event was not the next one
Place = tuple[int | None, str | None]
"""An offset (None: only the server can tell), and the cursor that stands for it."""


class Following:
    """What ``AsyncTail`` and ``Tail`` have in common: everything but the waiting.

    Attributes:
        cursor: what was handed on; None: nothing yet.
        tail: offset of the newest event known to be stored.
        outcome: once everything was handed on and the close was read.
        trouble: why the last connection ended, could not be made, or has nothing to say because the store is away;
            None once that is over.
        failure: why the stream cannot be read, for good.
        due_at: not to connect before this moment.
    """

    def __init__(
        self,
        stream_id: str,
        after: str | None,
        limits: Limits,
        *,
        coalesce: bool = False,
        give_up_after_s: float | None = None,
        can_refresh: bool = False,
        now: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        check_seconds("give_up_after_s", give_up_after_s)
        self.path = stream_path(stream_id)
        self.stream_id = stream_id
        after = _checked(after)
        self._handed: Place = (_offset_of(after), after)
        self.tail = self._handed[0] or 0
        self.outcome: Outcome | None = None
        self.trouble: PlayheadError | None = None
        self.failure: PlayheadError | None = None
        self.due_at = now
        self._limits = limits
        self._coalesce = coalesce
        self._give_up_after_s = give_up_after_s
        self._can_refresh = can_refresh
        self._chance = chance
        self._ready: deque[tuple[Event, str]] = deque()
        self._end: tuple[Outcome, Place] | PlayheadError | None = None
        self._parser = EventParser()
        self._is_connected = False
        self._target = 0  # catching up is over when this offset was handed on
        self._lost_at: float | None = None  # since when there is no connection
        self._was_lost = False
        self._attempts = 0
        self._fruitless = 0
        self._refreshed = False
        self._retry_s = 0.0
        self._opened_at = now

    @property
    def cursor(self) -> str | None:
        return self._handed[1]

    @property
    def _read(self) -> Place:
        if not self._ready:
            return self._handed
        event, cursor = self._ready[-1]
        return event.offset, cursor

    @property
    def state(self) -> State:
        if self.failure is not None:
            return State.FAILED
        if self.outcome is not None:
            return State.CLOSED
        has_read_it_all = isinstance(self._end, tuple) or (self._end is not None and bool(self._ready))
        if not ((self._is_connected and self.trouble is None) or has_read_it_all):
            return State.RECONNECTING if self._was_lost or self.trouble is not None else State.CONNECTING
        return State.LIVE if (self._handed[0] or 0) >= self._target else State.CATCHING_UP

    @property
    def is_over(self) -> bool:
        """Nothing will come any more."""
        return self.outcome is not None or self.failure is not None

    # ------------------------------------------------------------------------ what is handed on

    def take(self) -> Event | None:
        """The next event, which now counts as handed on."""
        if self._ready:
            event, cursor = self._ready[0]
            self._handed = (event.offset, cursor)
            del self._ready[0]  # not a call: after one, a signal may come in before the next line
            return event
        if isinstance(self._end, tuple):
            self.outcome, self._handed = self._end
        elif isinstance(self._end, PlayheadError):
            self.failure = self._end
        return None

    # ------------------------------------------------------------------------- what is asked for

    def call(self, now: float) -> Call:
        """The request for everything after what has come."""
        if self._lost_at is None:
            self._lost_at = now
        headers = {"accept": "text/event-stream", "accept-encoding": "identity", "cache-control": "no-store"}
        cursor = self._read[1]
        if cursor is not None:
            headers["last-event-id"] = cursor
        return Call("GET", self.path, {"coalesce": "text"} if self._coalesce else {}, headers)

    def connect_s(self, now: float) -> float:
        """What is left for making a connection."""
        return max(0.01, min(self._limits.connect_s, self._left_s(now)))

    def opened(self, headers: Mapping[str, str], now: float) -> bool:
        """The answer is 200; whether its body is to be read."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            self._end = BadAnswer(
                f"the answer is {kind or 'nothing'}, not a stream of events; is it a Playhead server?"
            )
            return False
        tail = headers.get("playhead-tail", "")
        self._target = int(tail) if tail.isascii() and tail.isdigit() and len(tail) <= 18 else 0
        self.tail = max(self.tail, self._target)
        self._parser = EventParser(self._limits.frame_max_bytes)
        self._is_connected, self._opened_at, self._lost_at = True, now, None
        self._refreshed, self.trouble = False, None
        return True

    def finished(self, state: StreamState, now: float) -> None:
        """The answer is 204, the cursor is at the close: what the stream's state tells of it."""
        if state.outcome is None:
            self.lost(BadAnswer("the server says that there is nothing to follow, but the stream is live"), now)
        else:
            self._close(state.outcome, state.cursor, state.tail + 1)

    def refused(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> None:
        """The answer is any other status."""
        error = refusal(status, body)
        if status == 401 and self._can_refresh and not self._refreshed:
            self._refreshed, self._was_lost, self.trouble = True, True, error
            self.due_at = now
        elif is_passing(status, error):
            self.lost(error, now, least_s=_retry_after_s(headers))
        else:
            self._end = error

    def failed(self, error: PlayheadError, now: float) -> None:
        """Asking for more than the stream (its state, after 204) went wrong."""
        if error.retryable or is_passing(error.http_status, error):
            self.lost(error, now)
        else:
            self._end = error

    # ---------------------------------------------------------------------------- what has come

    def received(self, chunk: bytes, now: float) -> bool:
        """Bytes of the answer's body; whether more of it is to be read."""
        try:
            frames = self._parser.feed(chunk)
            self._retry_s = (self._parser.retry_ms or 0) / 1_000
            for frame in frames:
                if not self._take_frame(frame, now):
                    self._is_connected = False
                    return False
        except EventTooLarge as error:
            self._end = error
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            self._end = BadAnswer(f"an event of stream {self.stream_id} cannot be understood: {error}")
        self._is_connected = self._end is None
        return self._is_connected

    def _take_frame(self, frame: ServerSentEvent, now: float) -> bool:
        said = json.loads(frame.data)
        if not isinstance(said, dict):
            raise TypeError("its data is no JSON object")
        if frame.type == ERROR:
            error = problem(said)
            if error.retryable or said.get("retryable") is True:
                self.lost(error, now)
            else:
                self._end = error
            return False
        if frame.type.startswith(RESERVED) and frame.type != CLOSE:  # it has no place in the log
            if frame.type == RECONNECTING:
                self.trouble = problem(said)  # the server's with its store; this connection is as good as before
            return True
        offset = _integer(said["offset"])
        first = _integer(said.get("first", offset))
        self.trouble = None
        last = self._read[0]
        if last is not None and first != last + 1:
            return offset <= last or self._missed(first, last, now)  # it came already, or something did not
        if not _is_cursor(frame.id) or frame.id == self._read[1]:
            raise ValueError("it has no cursor of its own")
        self._fruitless = self._attempts = 0
        if frame.type == CLOSE:
            self._close(outcome_of(said["outcome"], said), frame.id, offset)
            return False
        self._ready.append((Event(offset, frame.type, _data(said)), frame.id))
        self.tail = max(self.tail, offset)
        return True

    def _missed(self, first: int, last: int, now: float) -> bool:
        """What comes does not continue what has come: never hand it on, ask again."""
        self._fruitless += 1
        error = BadAnswer(f"event {first} of stream {self.stream_id} came after event {last}")
        if self._fruitless > FRUITLESS_MAX:
            self._end = error
        else:
            self.lost(error, now)
        return False

    def _close(self, outcome: Outcome, cursor: str, offset: int) -> None:
        self._end = (outcome, (offset, cursor))
        self.tail = max(self.tail, offset - 1)

    # ------------------------------------------------------------------------- what was lost

    def left(self, now: float) -> None:
        """The reader itself has let go of the connection, if there was one; the next one is made at once."""
        if self._is_connected:
            self._is_connected, self._was_lost, self.due_at = False, True, now

    def lost(self, why: PlayheadError, now: float, least_s: float = 0.0) -> None:
        """There is no connection, or no longer; ``due_at`` tells when to try again."""
        limits = self._limits
        if self._is_connected and now - self._opened_at >= limits.backoff_max_s:
            self._attempts = 0  # it was a good one, though it had nothing to say
        if self._lost_at is None:
            self._lost_at = now
        self._is_connected, self._was_lost, self._refreshed, self.trouble = False, True, False, why
        if self._left_s(now) <= 0:
            self._end = ConnectionLost(f"no connection for {self._give_up_after_s:g} s: {why}")
            return
        least_s = min(max(least_s, self._retry_s), limits.asked_max_s)
        self.due_at = now + min(wait_s(self._attempts, least_s, limits, self._chance()), self._left_s(now))
        self._attempts += 1

    def _left_s(self, now: float) -> float:
        """Until it is given up."""
        if self._give_up_after_s is None or self._lost_at is None:
            return float("inf")
        return self._lost_at + self._give_up_after_s - now


def wait_s(attempts: int, least_s: float, limits: Limits, chance: float) -> float:
    """Before the next connection, when so many in a row were in vain; ``chance`` (0 to 1) keeps readers apart."""
    longest = min(2 * limits.backoff_min_s * 2.0 ** min(attempts, 60), limits.backoff_max_s)
    return max(longest / 2, least_s) + chance * longest / 2


def _checked(cursor: str | None) -> str | None:
    """Only what a header can carry is sent; whether it is a cursor of this stream, the server decides."""
    if cursor and not _is_cursor(cursor):
        raise CursorInvalid("this is not a cursor that Playhead gave out; read without one to start over")
    return cursor or None


def _is_cursor(text: object) -> bool:
    if not isinstance(text, str) or not 0 < len(text) <= CURSOR_MAX_BYTES:
        return False
    return text.isascii() and text.isprintable() and " " not in text


def _offset_of(cursor: str | None) -> int | None:
    if cursor is None:
        return 0
    try:
        return Cursor.parse(cursor).offset
    except BadRequest:
        return None  # the server will say what is wrong with it, or knows better


def _data(said: dict[str, Any]) -> bytes:
    data = said["data"]
    encoding = said.get("encoding")
    if encoding is None:
        return bytes(data.encode("utf-8", "surrogatepass")) if isinstance(data, str) else _not_understood(data)
    return base64.b64decode(data, validate=True) if encoding == "base64" else _not_understood(encoding)


def _not_understood(value: object) -> bytes:
    raise ValueError(f"{str(value)[:50]!r} is neither text nor base64")


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:50]!r} is no offset")
    return value


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """``Retry-After``: seconds, or a date, which is told by the server's own clock (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return float(value)
    try:
        return (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
    except (TypeError, ValueError):
        return 0.0
