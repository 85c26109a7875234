"""A project's recordings as they are now: which tasks there are, and the audio of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from backend.label_studio import audio as recordings
from backend.label_studio.departed import DOCUMENT as DEPARTED
from backend.label_studio.departed import sweep
from backend.label_studio.failures import DOCUMENT as FAILURES
from backend.label_studio.failures import Failures
from backend.label_studio.predictions import LabelStudio
from backend.label_studio.reading import Task
from backend.label_studio.speakers import Rule, address_in
from backend.settings import Settings
from backend.store.projects import SPEAKERS, ProjectFolder, TaskRecord

FETCH_STAGE = "reading audio"

Records = dict[int, TaskRecord]


class Pool:
    """read() the tasks, then fetch() the audio that isn't here; either may be done again.

    rule: how a task says who speaks.
    """

    def __init__(
        self, client: LabelStudio, folder: ProjectFolder, rule: Rule, settings: Settings
    ) -> None:
        self.client = client
        self.folder = folder
        self.rule = rule
        self.settings = settings

    def read(self, version: str) -> None:
        """The tasks under this version's controls, those that came and those that are gone."""
        project = self.folder.id
        keys = {control["audio_key"] for control in self.folder.snapshot(version)["controls"]}
        known = self.folder.tasks()
        tasks: Records = {}
        listed = self.client.tasks_after(project, max(known, default=0))
        count = self.client.project(project).task_number
        if len(known) + len(listed) == count and self.folder.read(SPEAKERS, "") == str(self.rule):
            tasks = dict(known)  # all that happened is that some came
        else:
            listed = self.client.tasks(project)
        for task in listed:
            tasks[task.id] = _record(task, keys, known.get(task.id), self.rule)
        for task_id, record in tasks.items():
            nothing = None if record.audio else f"no audio under {', '.join(sorted(keys))}"
            tasks[task_id] = replace(record, error=nothing)
        self.folder.save_tasks(tasks)

    def fetch(self, version: str, check: Callable[[], None]) -> None:
        """The audio that has no file here yet, each address once. check: called all the while."""
        folder = self.folder
        tasks = {key: replace(r, path=dict(r.path)) for key, r in folder.tasks().items()}
        wanted = _wanted(tasks)
        started = time.time()

        def progress(stage: str, done: float, total: float) -> None:
            check()
            folder.note_progress(version, FETCH_STAGE, done, total, started)

        items = {f"{users[0][0]}-{users[0][1]}": uri for uri, users in wanted.items()}
        failures = Failures(folder.read(FAILURES, {}))
        try:
            fetched = recordings.fetch(
                self.client, folder.audio, items, self.settings, progress, failures
            )
        finally:
            with contextlib.suppress(OSError):  # a full disk: what was remembered is asked again
                folder.write(FAILURES, failures.content())
        for name, result in fetched.items():
            for task_id, key in wanted[items[name]]:
                record = tasks[task_id]
                if result.path is None:
                    tasks[task_id] = replace(record, error=result.error)
                else:
                    record.path[key] = result.path.relative_to(folder.path).as_posix()
        folder.save_tasks(tasks)
        folder.write(SPEAKERS, str(self.rule))
        missing = folder.read(DEPARTED, {})
        used = {Path(path).name for task in tasks.values() for path in task.path.values()}
        folder.write(DEPARTED, sweep(folder.audio, tasks, used, missing, time.time()))


def _record(task: Task, keys: set[str], before: TaskRecord | None, rule: Rule) -> TaskRecord:
    """A task as it is now, with the files that it still has by rights."""
    audio = {key: task.data[key] for key in sorted(keys) if task.data.get(key)}
    same = before is not None and before.audio == audio and before.error is None
    path = dict(before.path) if before is not None and same else {}
    speaker = rule.speaker(task.data, address_in(task.data, sorted(keys)))
    return TaskRecord(audio, path, None, task.is_labeled, speaker)


def _wanted(tasks: Records) -> dict[str, list[tuple[int, str]]]:
    """Who wants each address that has no file: several tasks may, each by a data key. Tasks whose
    address another has fetched are given its file."""
    there = {r.audio[key]: path for r in tasks.values() for key, path in r.path.items()}
    wanted: dict[str, list[tuple[int, str]]] = {}
    for task_id, record in tasks.items():
        for key, uri in record.audio.items():
            if uri in there:
                record.path[key] = there[uri]
            elif key not in record.path:
                wanted.setdefault(str(uri), []).append((task_id, key))
    return wanted
