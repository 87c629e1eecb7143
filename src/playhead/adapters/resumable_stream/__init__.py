"""The API of the package ``resumable-stream`` 0.2.0 on Playhead: change the import, keep the code.

    from playhead.adapters.resumable_stream import create_resumable_stream_context

    ctx = create_resumable_stream_context(redis_url="redis://localhost:6379")     # or store_url="sqlite:///streams.db"
    stream = await ctx.resumable_stream(stream_id, make_stream, skip_characters=resume_at)

Names, signatures and results are that package's; what is stored is Playhead's, so the two cannot follow each other's
streams. ``docs/resumable-stream.md`` says what is the same, and what there is besides.
"""

from playhead.adapters.resumable_stream.context import ResumableStreamContext, create_resumable_stream_context
from playhead.adapters.resumable_stream.following import ResumableStream
from playhead.adapters.resumable_stream.options import CreateResumableStreamContextOptions
from playhead.adapters.resumable_stream.pubsub import Publisher, RedisPublisher, RedisSubscriber, Subscriber

__all__ = [
    "CreateResumableStreamContextOptions",
    "Publisher",
    "RedisPublisher",
    "RedisSubscriber",
    "ResumableStream",
    "ResumableStreamContext",
    "Subscriber",
    "create_resumable_stream_context",
]
