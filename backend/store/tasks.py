"""The tasks of a project as they were last read from Label Studio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from backend.store.engine import parts
from backend.store.labels import Labels
from backend.store.schema import TASKS


@dataclass(frozen=True)
class TaskRecord:
    """A task as it was last read: where its audio is, by data key; error: why it can't be used.

    labelled: Label Studio counts it as finished. speaker: who speaks, "" where that isn't known.
    """

    audio: dict[str, str]
    path: dict[str, str]
    error: str | None = None
    labelled: bool = False
    speaker: str = ""


_COLUMNS = [TASKS.c[name] for name in ("id", "audio", "path", "error", "labelled", "speaker")]


class Tasks(Labels):
    """A row a task."""

    def tasks(self, ids: Iterable[int] | None = None) -> dict[int, TaskRecord]:
        """The tasks by id, in its order; of ids those that there are, else all (a linear cost)."""
        with self.database.read() as connection:
            return self._read_tasks(connection, ids)

    def task_ids(self) -> frozenset[int]:
        """Which tasks there are."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(TASKS.c.id).where(TASKS.c.project_id == self.id))
            return frozenset(rows.scalars())

    def task_count(self, labelled: bool | None = None) -> int:
        """How many tasks there are; labelled: only those that are, or aren't."""
        statement = sa.select(sa.func.count()).where(TASKS.c.project_id == self.id)
        if labelled is not None:
            statement = statement.where(TASKS.c.labelled == labelled)
        with self.database.read() as connection:
            return connection.execute(statement).scalar_one()

    def speakers(self) -> dict[str, int]:
        """Who speaks, and in how many tasks; those of whom that isn't known are left out."""
        statement = (
            sa.select(TASKS.c.speaker, sa.func.count())
            .where(TASKS.c.project_id == self.id, TASKS.c.speaker != "")
            .group_by(TASKS.c.speaker)
        )
        with self.database.read() as connection:
            return {name: count for name, count in connection.execute(statement)}

    def unusable(self) -> dict[int, str]:
        """Why tasks can't be used, of those that can't."""
        statement = sa.select(TASKS.c.id, TASKS.c.error).where(
            TASKS.c.project_id == self.id, TASKS.c.error.is_not(None)
        )
        with self.database.read() as connection:
            return {key: error for key, error in connection.execute(statement.order_by(TASKS.c.id))}

    def save_tasks(self, tasks: Mapping[int, TaskRecord]) -> None:
        """The tasks are these, and no others; only what differs is written. The labels of those
        that are gone go with them."""
        with self.database.write() as connection:
            before = self._read_tasks(connection)
            self._delete_tasks(connection, before.keys() - tasks.keys())
            self._write_tasks(
                connection, {key: task for key, task in tasks.items() if before.get(key) != task}
            )

    def update_tasks(self, tasks: Mapping[int, TaskRecord]) -> None:
        """Add these tasks, or replace them; others stay."""
        with self.database.write() as connection:
            self._write_tasks(connection, tasks)

    def remove_tasks(self, ids: Iterable[int]) -> None:
        """These tasks are gone from Label Studio, and their labels with them."""
        with self.database.write() as connection:
            self._delete_tasks(connection, ids)

    def _read_tasks(
        self, connection: sa.Connection, ids: Iterable[int] | None = None
    ) -> dict[int, TaskRecord]:
        statement = sa.select(*_COLUMNS).where(TASKS.c.project_id == self.id).order_by(TASKS.c.id)
        statements = (
            [statement]
            if ids is None
            else [statement.where(TASKS.c.id.in_(some)) for some in parts(sorted(set(ids)))]
        )
        return {
            key: TaskRecord(*values)
            for some in statements
            for key, *values in connection.execute(some)
        }

    def _write_tasks(self, connection: sa.Connection, tasks: Mapping[int, TaskRecord]) -> None:
        rows: list[dict[str, Any]] = [
            {"project_id": self.id, "id": key, **vars(task)} for key, task in tasks.items()
        ]
        self.database.upsert(connection, TASKS, rows)

    def _delete_tasks(self, connection: sa.Connection, ids: Iterable[int]) -> None:
        gone = list(ids)
        if gone:
            self._forget_labels(connection, gone)
        for some in parts(gone):
            connection.execute(
                sa.delete(TASKS).where(TASKS.c.project_id == self.id, TASKS.c.id.in_(some))
            )
