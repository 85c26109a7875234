"""Tasks and leases; tasks.json of every project becomes rows."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from backend.store.migrations import files

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "after_leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    tasks = op.create_table(
        "after_tasks",
        sa.Column("project_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("audio", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("labelled", sa.Boolean, nullable=False),
        sa.Column("speaker", sa.Text, nullable=False),
    )
    files.insert(tasks, "tasks.json", _tasks)


def _tasks(file: files.File) -> list[dict[str, Any]]:
    return [
        {
            "id": int(key),
            "audio": json.dumps(task["audio"]),
            "path": json.dumps(task["path"]),
            "error": task.get("error"),
            "labelled": bool(task.get("labelled")),
            "speaker": "",
        }
        for key, task in file.content.items()
    ]


def downgrade() -> None:
    op.drop_table("after_tasks")
    op.drop_table("after_leases")
