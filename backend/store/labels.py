"""The labels of a project: the annotations that people gave, and the votes that follow from them.

Both are rows, an annotation and a task's votes on a question each, so that what a label costs does
not grow with their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from backend.label_studio import labeling
from backend.label_studio.labeling import Control
from backend.store.documents import Documents
from backend.store.engine import parts
from backend.store.schema import ANNOTATIONS, LABELS

CONTROLS = "controls"  # the document that says what is asked

Votes = list[list[str]]  # what each annotator chose
Annotation = Mapping[str, Any]  # as Label Studio gives it
Row = dict[str, Any]


class Labels(Documents):
    """A project's annotations and votes."""

    # --- reading ---------------------------------------------------------------------------------

    def labels(self) -> dict[str, dict[str, Votes]]:
        """{control: {task: votes}}, every control of save_controls() included."""
        found: dict[str, dict[str, Votes]] = {control.name: {} for control in self.controls()}
        with self.database.read() as connection:
            for (name, task), votes in self._read_votes(connection, None).items():
                found.setdefault(name, {})[str(task)] = votes
        return found

    def controls(self) -> tuple[Control, ...]:
        """The questions that votes answer."""
        return _controls(self.read(CONTROLS, []))

    def labelled_at(self, count: int) -> list[str]:
        """When the last `count` annotations were created, newest first, as Label Studio said."""
        statement = (
            sa.select(ANNOTATIONS.c.created_at)
            .where(ANNOTATIONS.c.project_id == self.id)
            .order_by(ANNOTATIONS.c.id.desc())
            .limit(count)
        )
        with self.database.read() as connection:
            return [text for (text,) in connection.execute(statement) if text]

    # --- writing ---------------------------------------------------------------------------------

    def save_controls(self, controls: Sequence[Control]) -> bool:
        """The questions as the labeling config has them now; whether that is news. Other questions
        or other labels make other votes of the annotations that are known."""
        if tuple(controls) == self.controls():
            return False
        described = [{**asdict(control), "labels": list(control.labels)} for control in controls]
        with self.database.write() as connection:
            self._write_document(connection, CONTROLS, described)
            self._derive(connection, self._read_annotations(connection), complete=True)
        return True

    def save_labels_of(self, annotations: Mapping[int, Sequence[Annotation]]) -> frozenset[int]:
        """These tasks' annotations are these; the tasks whose votes that changes."""
        with self.database.write() as connection:
            return self._derive(connection, self._write_annotations(connection, annotations))

    def save_all_labels(self, annotations: Mapping[int, Sequence[Annotation]]) -> frozenset[int]:
        """All annotations of the project are these; the tasks whose votes that changes."""
        with self.database.write() as connection:
            before = self._read_annotations(connection)
            gone: dict[int, list[Annotation]] = {
                key: [] for key in before.keys() - annotations.keys()
            }
            kept = self._write_annotations(connection, {**annotations, **gone})
            return self._derive(connection, kept, complete=True)

    # --- rows ------------------------------------------------------------------------------------

    def _forget_labels(self, connection: sa.Connection, tasks: Iterable[int]) -> None:
        """The tasks are gone, and their annotations with them."""
        none: dict[int, list[Annotation]] = {task: [] for task in tasks}
        self._derive(connection, self._write_annotations(connection, none))

    def _read_annotations(
        self, connection: sa.Connection, tasks: Iterable[int] | None = None
    ) -> dict[int, list[Row]]:
        columns = [column for column in ANNOTATIONS.c if column.name != "project_id"]
        every = sa.select(*columns).where(ANNOTATIONS.c.project_id == self.id)
        statements = (
            [every]
            if tasks is None
            else [every.where(ANNOTATIONS.c.task.in_(some)) for some in parts(sorted(set(tasks)))]
        )
        found: dict[int, list[Row]] = defaultdict(list)
        for statement in statements:
            for row in connection.execute(statement):
                values = dict(row._mapping)
                found[values.pop("task")].append(values)
        # Sorted here: asked for that order, SQLite would read all of the project's by their ids.
        return {task: sorted(found[task], key=lambda a: a["id"]) for task in sorted(found)}

    def _write_annotations(
        self, connection: sa.Connection, annotations: Mapping[int, Sequence[Annotation]]
    ) -> dict[int, list[Row]]:
        """Write what differs; the annotations as they are kept."""
        before = self._read_annotations(connection, annotations)
        after = {task: [_kept(a) for a in given] for task, given in annotations.items()}
        rows: list[Row] = []
        gone: list[int] = []
        for task, given in after.items():
            new = {a["id"]: a for a in given}
            old = {a["id"]: a for a in before.get(task, [])}
            rows += [
                {"project_id": self.id, "task": task, **kept}
                for key, kept in new.items()
                if old.get(key) != kept
            ]
            gone += old.keys() - new.keys()
        for some in parts(gone):
            connection.execute(
                sa.delete(ANNOTATIONS).where(
                    ANNOTATIONS.c.project_id == self.id, ANNOTATIONS.c.id.in_(some)
                )
            )
        self.database.upsert(connection, ANNOTATIONS, rows)
        return after

    def _derive(
        self,
        connection: sa.Connection,
        annotations: Mapping[int, Sequence[Annotation]],
        complete: bool = False,
    ) -> frozenset[int]:
        """Bring the votes of these tasks up to date; complete: no other task has any."""
        before = self._read_votes(connection, None if complete else annotations)
        after: dict[tuple[str, int], Votes] = {}
        for control in _controls(self._read_document(connection, CONTROLS, [])):
            for task, given in annotations.items():
                if votes := labeling.votes(control, given):
                    after[control.name, task] = votes
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        rows: list[Row] = [
            {"project_id": self.id, "control": key[0], "task": key[1], "votes": after[key]}
            for key in sorted(changed & after.keys())
        ]
        self.database.upsert(connection, LABELS, rows)
        gone = changed - after.keys()
        for question in {name for name, _ in gone}:
            for some in parts(task for name, task in gone if name == question):
                connection.execute(
                    sa.delete(LABELS).where(
                        LABELS.c.project_id == self.id,
                        LABELS.c.control == question,
                        LABELS.c.task.in_(some),
                    )
                )
        return frozenset(task for _, task in changed)

    def _read_votes(
        self, connection: sa.Connection, tasks: Iterable[int] | None
    ) -> dict[tuple[str, int], Votes]:
        every = sa.select(LABELS.c.control, LABELS.c.task, LABELS.c.votes).where(
            LABELS.c.project_id == self.id
        )
        statements = (
            [every]
            if tasks is None
            else [every.where(LABELS.c.task.in_(some)) for some in parts(tasks)]
        )
        return {
            (control, task): votes
            for statement in statements
            for control, task, votes in connection.execute(statement)
        }


def _controls(described: Iterable[Mapping[str, Any]]) -> tuple[Control, ...]:
    return tuple(Control(**{**values, "labels": tuple(values["labels"])}) for values in described)


def _kept(annotation: Annotation) -> Row:
    """What votes follow from: regions and transcripts may be large, and nobody here reads them."""
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        who = who.get("id", who.get("email"))
    return {
        "id": annotation["id"],
        "completed_by": None if who is None else str(who),
        "result": [
            {"from_name": entry.get("from_name"), "value": {"choices": value["choices"]}}
            for entry in annotation.get("result") or ()
            if isinstance(entry, Mapping)
            and isinstance(value := entry.get("value"), Mapping)
            and "choices" in value
        ],
        "was_cancelled": bool(annotation.get("was_cancelled")),
        "ground_truth": annotation.get("ground_truth") is True,
        "created_at": _text(annotation.get("created_at")),
        "updated_at": _text(annotation.get("updated_at")),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
