"""What people did in a project, kept up to date by what changed since the last look.

Label Studio is the truth: everything is read once, after that only tasks that changed after the
newest change known (creating, changing, deleting and skipping annotations all move a task's
`updated_at`). Only deleted tasks don't show so; the number of tasks tells of them, and then all are
listed again. A worker that starts anew reads everything anew. What it takes in is kept in the
database, for rounds, which learn from it, and for backups (keep()).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from backend.label_studio import labeling
from backend.label_studio.labeling import Control
from backend.label_studio.predictions import LabelStudio
from backend.label_studio.reading import BEGINNING, ChangedTask
from backend.store.projects import ProjectFolder

# What is committed later may have an earlier time: a change is looked for this long again.
OVERLAP = timedelta(seconds=5)

Votes = dict[str, dict[str, list[list[str]]]]
"""Labels by control and task, one list an annotator."""


@dataclass
class Intake:
    """The labels of one project as Label Studio has them.

    wanted: annotations a task, as the project has it. votes: by control, of tasks that have any.
    finished: tasks that Label Studio wants no label for any more, and those that everybody who saw
    them skipped. tasks: all ids. since: the newest change seen.
    """

    controls: tuple[Control, ...]
    wanted: int = 1
    votes: Votes = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    tasks: set[int] = field(default_factory=set)
    since: str = BEGINNING
    _taken: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # and not kept
    _all_taken: bool = False  # so that what isn't there is gone
    _seen: dict[int, str] = field(default_factory=dict)  # changes of the last seconds, by task

    @classmethod
    def read(
        cls, client: LabelStudio, project_id: int, controls: Sequence[Control], wanted: int = 1
    ) -> Intake:
        """Everything, by listing all tasks and those that are annotated."""
        since = client.newest_change(project_id)
        tasks = client.tasks(project_id)
        intake = cls(
            controls=tuple(controls),
            wanted=wanted,
            finished={task.id for task in tasks if task.is_labeled},
            tasks={task.id for task in tasks},
            since=since,
        )
        for task in client.annotated(project_id):
            intake._note_votes(task["id"], task["annotations"])
            if _is_done(task["annotations"], wanted):
                intake.finished.add(task["id"])
        intake._all_taken = True
        return intake

    def keep(self, folder: ProjectFolder) -> None:
        """Write to the database what was taken in since the last time."""
        if self._all_taken:
            folder.save_controls(self.controls)
            folder.save_all_labels(self._taken)
        elif self._taken:
            folder.save_labels_of(self._taken)
        self._taken, self._all_taken = {}, False

    def refresh(self, client: LabelStudio, project_id: int) -> Changes:
        """Take in what changed since; what it was."""
        found = client.changed(project_id, _earlier(self.since, OVERLAP))
        fresh = [task for task in found if self._seen.get(task.id) != task.updated]
        changes = self.note(fresh)
        self.since = max([self.since, *(task.updated for task in found)])
        oldest = _earlier(self.since, OVERLAP)
        self._seen = {task.id: task.updated for task in found if task.updated >= oldest}
        return changes

    def note(self, changed: Iterable[ChangedTask]) -> Changes:
        """Take in the present state of some tasks."""
        new, relabelled = set(), set()
        for task in changed:
            if task.id not in self.tasks:
                new.add(task.id)
                self.tasks.add(task.id)
            done = task.is_labeled or _is_done(task.annotations, self.wanted)
            (self.finished.add if done else self.finished.discard)(task.id)
            if self._note_votes(task.id, task.annotations):
                relabelled.add(task.id)
        return Changes(frozenset(new), frozenset(relabelled))

    @property
    def labelled(self) -> set[str]:
        """Tasks with a label for any control."""
        return {task for votes in self.votes.values() for task in votes}

    def _note_votes(self, task: int, annotations: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the task's labels are others now."""
        self._taken[task] = annotations
        moved = False
        for control in self.controls:
            known = self.votes.setdefault(control.name, {})
            before = known.pop(str(task), [])
            given = labeling.votes(control, annotations)
            if given:
                known[str(task)] = given
            moved = moved or given != before
        return moved


@dataclass(frozen=True)
class Changes:
    """Tasks that came, and tasks whose labels are others than before."""

    new: frozenset[int]
    relabelled: frozenset[int]


def _is_done(annotations: Sequence[Mapping[str, Any]], wanted: int) -> bool:
    """Whether there are as many as a task wants at most, or everybody who saw it skipped it.

    Label Studio commits an annotation before it sets the task's `is_labeled`, and a look between
    the two would ask for the task once more.
    """
    given = sum(not a.get("was_cancelled") for a in annotations)
    return given >= wanted or (bool(annotations) and not given)


def _earlier(moment: str, by: timedelta) -> str:
    """A moment of Label Studio's clock, in its own form, made earlier."""
    if moment == BEGINNING:
        return moment
    return (datetime.fromisoformat(moment) - by).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
