"""What a context is told when it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from playhead.adapters.resumable_stream.pubsub import Publisher, Subscriber
from playhead.streams import Playhead


@dataclass
class CreateResumableStreamContextOptions:
    """Options of a context. The first four are the original's; the others are given by name.

    Attributes:
        key_prefix: contexts with different ones never see each other's streams.
        wait_until: called with an awaitable for each stream that a call here has begun; it is done when the stream is
            closed. For whoever must keep the process alive that long.
        subscriber, publisher: a pair, or one of them, that stands for a Redis: a RedisPublisher, a redis-py client, an
            object around one. A pair of your own that stands for none: streams live in this process's memory.
        redis_url: where streams are stored. Without any of these, and without a pair: ``REDIS_URL``, else ``KV_URL``.
        store_url: the same for any store: ``sqlite:///streams.db``, ``memory://``, ``redis://…`` (``open_store``).
        playhead: a Playhead of your own, connected by you and closed by you.
        replay_finished: resuming a stream that is finished replays it, instead of returning None.
        retention_s: how long a finished stream is remembered.
    """

    key_prefix: str = "resumable-stream"
    wait_until: Callable[[Any], object] | None = None
    subscriber: Subscriber | Any | None = None
    publisher: Publisher | Any | None = None
    redis_url: str | None = field(default=None, kw_only=True)
    store_url: str | None = field(default=None, kw_only=True)
    playhead: Playhead | None = field(default=None, kw_only=True)
    replay_finished: bool = field(default=False, kw_only=True)
    retention_s: float = field(default=86_400.0, kw_only=True)


class Settings(TypedDict, total=False):
    """The same as keywords."""

    key_prefix: str
    wait_until: Callable[[Any], object] | None
    subscriber: Subscriber | Any | None
    publisher: Publisher | Any | None
    redis_url: str | None
    store_url: str | None
    playhead: Playhead | None
    replay_finished: bool
    retention_s: float
