"""The tables. A change here needs a migration that makes it (see migrations/)."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()

PROJECTS = sa.Table(
    "after_projects",
    METADATA,
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
WORKERS = sa.Table(  # who is alive, for doctor and the status page
    "after_workers",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seen", sa.Float, nullable=False),
)
LEASES = sa.Table(  # who alone may do something; a row stays, so that its token only grows
    "after_leases",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),  # database time
)
CHANGES = sa.Table(  # what events named and no step has read yet
    "after_changes",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("project_id", sa.Integer, nullable=False),
    sa.Column("task", sa.BigInteger),
    sa.Column("annotation", sa.BigInteger),
    sa.Index("after_changes_of_project", "project_id", "id"),
    sqlite_autoincrement=True,  # a number is not given again
)
TASKS = sa.Table(
    "after_tasks",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("audio", sa.JSON, nullable=False),
    sa.Column("path", sa.JSON, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("labelled", sa.Boolean, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
)
