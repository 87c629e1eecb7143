"""Threads and their entries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "threads",
        sa.Column("thread_id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("title_key", sa.Text, nullable=False),
        sa.Column("preview", sa.Text, nullable=False),
        sa.Column("preview_key", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_activity_at", sa.BigInteger, nullable=False),
        sa.Column("archived_at", sa.BigInteger),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("cleared_at", sa.BigInteger),
    )
    op.create_index("threads_by_activity", "threads", ["owner", "last_activity_at", "thread_id"])
    op.create_table(
        "entries",
        sa.Column("thread_id", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stream_id", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("entry_id", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("search_key", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("thread_id", "position", "role", "entry_id", name="entries_key"),
        sa.UniqueConstraint("thread_id", "stream_id", "role", name="entries_once"),
    )
