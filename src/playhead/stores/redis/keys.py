"""The names of everything that is stored, and the words that name a stream's data.

Everything of one stream has one hash tag, so a cluster keeps it in one slot and a script may touch all of it.
"""

import base64
import hashlib
import re
from functools import lru_cache

FORMAT = 1
"""Of keys and values; part of every name. Newer versions must be able to read older ones."""

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
NOBODY = "~"
EVENTS, BEGUN = b":events", b":begun"


def encoded(text: str) -> bytes:
    """Any text as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


@lru_cache(maxsize=16_384)
def tag(text: str | None) -> str:
    """Short, and fit to be part of a name: the text itself when it is, else a digest of it."""
    if text is None:
        return NOBODY
    if _PLAIN.fullmatch(text):
        return text
    return "#" + base64.urlsafe_b64encode(hashlib.sha256(encoded(text)).digest()[:16]).rstrip(b"=").decode()


def _channel(name: str, database: int) -> bytes:
    """Keys are each database's own, channels are not."""
    return (f"{name}:{database}" if database else name).encode()


class StreamKeys:
    """What one stream's data is called.

    Attributes:
        state: a hash: v, no, live, epoch, tail, size, info (see ``playhead.state``).
        log: a stream of entries: id ``<last offset>-0``, p = epoch, b = the entry (see ``playhead.entry``).
        gone: what the log is called once the stream is forgotten, until it is purged (a number follows).
        news, events: channels: commits, and appends.
    """

    __slots__ = ("events", "gone", "log", "news", "state")

    def __init__(self, base: str, stream_id: str, database: int = 0) -> None:
        name = f"{base}{{s:{tag(stream_id)}}}"
        self.state = f"{name}:state".encode()
        self.log = f"{name}:log".encode()
        self.gone = f"{name}:gone:"
        channel = _channel(name, database)
        self.news = channel + b":news"
        self.events = channel + EVENTS


class Keys:
    """All names that begin with one prefix."""

    def __init__(self, prefix: str, database: int = 0) -> None:
        self.base = base = f"{prefix}:{FORMAT}:"
        self._database = database
        self.format = f"{prefix}:format".encode()
        self.count = f"{base}count".encode()
        self.streams = f"{base}streams".encode()
        self.live = f"{base}live".encode()
        self.unsettled = f"{base}unsettled".encode()
        self.due = f"{base}due".encode()
        self.garbage = f"{base}garbage".encode()
        self.instances = f"{base}instances".encode()
        self.stream = lru_cache(maxsize=16_384)(lambda stream_id: StreamKeys(base, stream_id, database))

    def thread(self, thread_id: str) -> bytes:
        return f"{self.base}thread:{tag(thread_id)}".encode()

    def begun(self, thread_id: str) -> bytes:
        """The channel of a thread: a stream has been made on it."""
        return _channel(f"{self.base}{{t:{tag(thread_id)}}}", self._database) + BEGUN

    def owner(self, owner: str | None) -> bytes:
        return f"{self.base}owner:{tag(owner)}".encode()

    def owner_live(self, owner: str | None) -> bytes:
        return f"{self.base}owner-live:{tag(owner)}".encode()

    def written_by(self, instance_id: str) -> bytes:
        return f"{self.base}written-by:{instance_id}".encode()

    def cancels(self, instance_id: str) -> bytes:
        """In the slot of ``instances``, so that a heartbeat talks to one server only."""
        return f"{self.base}cancels:{{{self.base}instances}}:{instance_id}".encode()

    def request(self, owner: str | None, key: str) -> bytes:
        """The claim of an idempotency key."""
        return f"{self.base}request:{tag(owner)}:{tag('=' + key)}".encode()

    def live_on(self, thread_id: str) -> bytes:
        """The claim of a thread."""
        return f"{self.base}live-on:{tag(thread_id)}".encode()
