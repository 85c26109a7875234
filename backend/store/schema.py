"""The tables. A change here needs a migration that makes it (see migrations/)."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa


class Json(sa.TypeDecorator[Any]):
    """JSON as text: PostgreSQL's own type refuses NaN and "\\0", which measures and file names
    may hold. None is NULL."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: sa.Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, _dialect: sa.Dialect) -> Any:
        return None if value is None else json.loads(value)


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
    sa.Column("speaker_key", sa.Text, nullable=False, server_default=""),
    sa.Column("speaker_pattern", sa.Text, nullable=False, server_default=""),
    sa.Column("show_guess", sa.Boolean, nullable=True),
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
TASKS = sa.Table(
    "after_tasks",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("audio", Json, nullable=False),
    sa.Column("path", Json, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("labelled", sa.Boolean, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
)
ANNOTATIONS = sa.Table(  # with Label Studio's names
    "after_annotations",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("task", sa.BigInteger, nullable=False),
    sa.Column("completed_by", sa.Text),
    sa.Column("result", Json, nullable=False),
    sa.Column("was_cancelled", sa.Boolean, nullable=False),
    sa.Column("ground_truth", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Text),
    sa.Column("updated_at", sa.Text),
    sa.Index("after_annotations_of_task", "project_id", "task"),
)
LABELS = sa.Table(  # what annotations say on a question
    "after_labels",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("control", sa.Text, primary_key=True),
    sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("votes", Json, nullable=False),
    sa.Index("after_labels_by_task", "project_id", "task"),
)
DOCUMENTS = sa.Table(  # small JSON of a project, by name
    "after_documents",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("content", Json, nullable=False),
)
RELEASES = sa.Table(  # which learner's model serves each control
    "after_releases",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),  # in the order of publishing
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("models", Json, nullable=False),
    sa.Column("labelled", sa.Integer, nullable=False),
    sa.Column("serves", sa.Boolean, nullable=False),
)
HISTORY = sa.Table(  # every round
    "after_history",
    METADATA,
    sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),  # in the order of their ends
    sa.Column("content", Json, nullable=False),
)
ERRORS = sa.Table(  # for the status page; the same error again counts
    "after_errors",
    METADATA,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("project_id", sa.Integer, nullable=False),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.Index("after_errors_of_project", "project_id"),
)
