"""Connections and workers: what 0.1 kept in the database, without a version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    there = sa.inspect(op.get_bind()).get_table_names()
    if "after_projects" not in there:
        op.create_table(
            "after_projects",
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("url", sa.Text, nullable=False),
            sa.Column("api_key", sa.Text, nullable=False),
            sa.Column("secret", sa.Text, nullable=False),
            sa.Column("title", sa.Text, nullable=False),
            sa.Column("backend_url", sa.Text, nullable=False),
            sa.Column("adopted", sa.Boolean, nullable=False),
            sa.Column("paused", sa.Boolean, nullable=False),
            sa.Column("events", sa.Integer, nullable=False),
            sa.Column("task_events", sa.Integer, nullable=False),
            sa.Column("train_requests", sa.Integer, nullable=False),
        )
    if "after_workers" not in there:
        op.create_table(
            "after_workers",
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("seen", sa.Float, nullable=False),
        )


def downgrade() -> None:
    op.drop_table("after_workers")
    op.drop_table("after_projects")
