"""Alembic's way in: migrations run on the connection that ``database`` hands over."""

from alembic import context

from playhead.conversations.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="playhead_threads_version",
)
context.run_migrations()
