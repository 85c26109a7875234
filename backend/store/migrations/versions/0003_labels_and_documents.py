"""Labels, documents, releases, history and errors; the files of every project become rows."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

from backend.store.migrations import files

revision = "0003"
down_revision = "0002"

DOCUMENTS = (
    "plan.json", "seen.json", "failed.json", "progress.json", "skipped.json", "trained-on.json",
    "tapt-pool.json", "rollback.json", "cancel", "failure.json", "rounds/*/snapshot.json",
    "rounds/*/trained.json",
)  # fmt: skip


def _project() -> sa.Column[int]:
    return sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False)


def upgrade() -> None:
    op.create_table(
        "after_annotations",
        _project(),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task", sa.BigInteger, nullable=False),
        sa.Column("completed_by", sa.Text),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("was_cancelled", sa.Boolean, nullable=False),
        sa.Column("ground_truth", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Text),
        sa.Column("updated_at", sa.Text),
    )
    op.create_index("after_annotations_of_task", "after_annotations", ["project_id", "task"])
    op.create_table(
        "after_labels",
        _project(),
        sa.Column("control", sa.Text, primary_key=True),
        sa.Column("task", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("votes", sa.Text, nullable=False),
    )
    op.create_index("after_labels_by_task", "after_labels", ["project_id", "task"])
    documents = op.create_table(
        "after_documents",
        _project(),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    releases = op.create_table(
        "after_releases",
        _project(),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("created", sa.Text, nullable=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("labelled", sa.Integer, nullable=False),
        sa.Column("serves", sa.Boolean, nullable=False),
    )
    history = op.create_table(
        "after_history",
        _project(),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
    errors = op.create_table(
        "after_errors",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("project_id", sa.Integer, nullable=False),
        sa.Column("time", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("times", sa.Integer, nullable=False),
    )
    op.create_index("after_errors_of_project", "after_errors", ["project_id"])
    for pattern in DOCUMENTS:
        files.insert(documents, pattern, _document)
    serving = {file.project: file.content for file in files.texts("releases/current")}
    files.insert(
        releases, "releases/versions/*/metadata.json", lambda file: [_release(file, serving)]
    )
    files.insert(history, "history.json", _rounds)
    files.insert(errors, "errors.json", _errors)


def _document(file: files.File) -> list[dict[str, Any]]:
    return [{"name": file.name, "content": json.dumps(file.content)}]


def _release(file: files.File, serving: Mapping[int, str]) -> dict[str, Any]:
    described = file.content
    return {
        "version": str(described["version"]),
        "sequence": int(described["sequence"]),
        "created": str(described["created"]),
        "models": json.dumps(described["models"]),
        "labelled": int(described.get("labelled", 0)),
        "serves": described["version"] == serving.get(file.project),
    }


def _rounds(file: files.File) -> list[dict[str, Any]]:
    rounds = {str(entry["version"]): entry for entry in file.content}
    return [
        {"version": version, "place": place, "content": json.dumps(entry)}
        for place, (version, entry) in enumerate(rounds.items(), start=1)
    ]


def _errors(file: files.File) -> list[dict[str, Any]]:
    return [
        {
            "time": str(entry["time"]),
            "place": str(entry["where"]),
            "message": str(entry["message"]),
            "times": 1,
        }
        for entry in reversed(file.content)  # the oldest first
    ]


def downgrade() -> None:
    for name in ("errors", "history", "releases", "documents", "labels", "annotations"):
        op.drop_table(f"after_{name}")
