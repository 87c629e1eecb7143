"""The tables of threads and their history. Changed by a migration only (``migrations/versions``).

threads                                              one row per conversation
  thread_id          text, primary key
  owner              text
  title              text or null                    null until somebody named it
  preview            text                            how the first message begins
  title_key, preview_key   text                      the same, folded for search
  created_at         bigint                          microseconds since the Unix epoch, as all times
  last_activity_at   bigint                          never moves back
  archived_at        bigint or null
  deleted_at         bigint or null                  a tombstone: nothing else is left but ids and times
  cleared_at         bigint or null                  streams and checkpoints are gone too
  index (owner, last_activity_at, thread_id)

entries                                              one row per message and per answer
  thread_id          text
  position           bigint                          creation time of its stream, + 1 for the answer: a late
  stream_id          text or null                      settle keeps its place
  role               text                            user, assistant
  entry_id           text
  content            text                            JSON: the parts, ASCII only, so that any text survives
  search_key         text                            its words, folded for search
  outcome, error     text or null                    of an answer
  created_at         bigint
  primary key (thread_id, position, role, entry_id); unique (thread_id, stream_id, role)
"""

from sqlalchemy import BigInteger, Column, Index, MetaData, PrimaryKeyConstraint, Table, Text, UniqueConstraint

HEAD = "0001"
"""The newest migration; a database that says so is ready as it is."""

metadata = MetaData()

threads = Table(
    "threads",
    metadata,
    Column("thread_id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("title", Text),
    Column("title_key", Text, nullable=False),
    Column("preview", Text, nullable=False),
    Column("preview_key", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_activity_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("cleared_at", BigInteger),
    Index("threads_by_activity", "owner", "last_activity_at", "thread_id"),
)

entries = Table(
    "entries",
    metadata,
    Column("thread_id", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("stream_id", Text),
    Column("role", Text, nullable=False),
    Column("entry_id", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("search_key", Text, nullable=False),
    Column("outcome", Text),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("thread_id", "position", "role", "entry_id", name="entries_key"),
    UniqueConstraint("thread_id", "stream_id", "role", name="entries_once"),
)
