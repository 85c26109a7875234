"""python -m backend cut PROJECT: long recordings of a project become utterances, each a task.

What lasts longer than AFTER_MAX_AUDIO_S is left out by the worker. Here it is fetched, whatever its
size, cut at pauses, and every segment is uploaded as a task that has the data of the recording's
and says which it is of and where. The recording's own task stays as it is. Run again, it goes on
where it ended: names of uploads say what is in them, tasks which segment they are, and what was cut
wholly is remembered.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from after_model.progress import Progress, bar, silent
from backend.cli.long_recordings import cut_config, lasts_longer
from backend.label_studio import audio as recordings
from backend.label_studio import labeling, segments, uploads
from backend.label_studio.addresses import FetchError
from backend.label_studio.predictions import LabelStudio
from backend.label_studio.reading import Task
from backend.settings import Settings
from backend.store import cuts
from backend.store.projects import ProjectFolder, Projects

MAX_BYTES = 8 * 2**30  # of one recording, fetched to be cut: four hours as WAV take 2.5 GB and more
MAX_FETCH_S = 4 * 3600.0


Made = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A segment: what its task's data say, and its file, called by its content."""

    fields: dict[str, Any]
    file: Path


@dataclass
class Report:
    """What was done: recordings that were cut now and before, tasks added, what went wrong."""

    limit_s: float
    cut: int
    before: int
    added: int
    wrong: list[str]

    def __str__(self) -> str:
        if not self.cut:
            before = f"{self.before} were cut before, and no other" if self.before else "no"
            return f"{before} recording lasts more than {self.limit_s:g} s"
        return (
            f"{self.cut} recordings of more than {self.limit_s:g} s were cut into {self.added} new "
            "tasks. Their own tasks stay as they are, without a place in the order; delete them in "
            "Label Studio where they are in the way"
        )


def run(settings: Settings, project_id: int) -> Report:
    """Cut what is too long, and wasn't cut, in a project that is connected.

    Raises UnknownProject, LabelingError, LabelStudioError, OSError; ValueError where tasks have
    several recordings, or another cuts this project's.
    """
    projects = Projects(settings)
    project, folder = projects.get(project_id), projects.folder(project_id)
    client = LabelStudio(project.url, project.api_key)
    key = _audio_key(client.project(project_id).label_config)
    with _alone(folder):
        try:
            return _Cutting(settings, client, folder, key).run()
        finally:
            projects.note_event(project_id, tasks_changed=True)


def _audio_key(label_config: str) -> str:
    keys = {control.audio_key for control in labeling.controls(label_config)}
    if len(keys) > 1:
        raise ValueError(
            f"every task has several recordings ({', '.join(sorted(keys))}), which can't be cut "
            "alike: cut them yourself (python -m after_model cut) and import the segments"
        )
    return keys.pop()


@contextmanager
def _alone(folder: ProjectFolder) -> Iterator[None]:
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / "cut.lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout:
        raise ValueError(f"the recordings of project {folder.id} are being cut already") from None


class _Cutting:
    """One pass over a project; a recording at a time is on disk beside its tasks' audio."""

    def __init__(
        self, settings: Settings, client: LabelStudio, folder: ProjectFolder, key: str
    ) -> None:
        self.settings, self.client, self.folder, self.key = settings, client, folder, key
        self.limit_s = settings.max_audio_s
        self.progress: Progress = bar() if sys.stderr.isatty() else silent
        self.work = folder.path / "cut"

    def run(self) -> Report:
        shutil.rmtree(self.work, ignore_errors=True)  # of a run that was killed
        tasks = self.client.tasks(self.folder.id)
        made = {
            _made(task.data, task.data.get(segments.SOURCE_TASK))
            for task in tasks
            if segments.source_of(task.data) is not None
        }
        done = cuts.cuts(self.folder)
        of: dict[str, list[Task]] = {}  # tasks by the address of their recording
        before = 0
        for task in tasks:
            uri = task.data.get(self.key)
            if not isinstance(uri, str) or not uri or self._is_short(task.data):
                continue
            if done.get(str(task.id), {}).get("audio") == uri:
                before += 1
            else:
                of.setdefault(uri, []).append(task)
        files = self._files(of)
        report = Report(self.limit_s, 0, before, 0, [])
        there = uploads.uploaded(self.client, self.folder.id) if files else {}
        for number, (uri, file) in enumerate(files.items(), start=1):
            parts = self._cut(uri, file, of[uri], report)
            for task in of[uri] if parts else ():
                report.added += self._add(task, parts, made, there)
                cuts.note(self.folder, task.id, uri, len(parts))
                report.cut += 1
            shutil.rmtree(self.work, ignore_errors=True)
            self.progress("cutting", number, len(files))
        return report

    def _is_short(self, data: Mapping[str, Any]) -> bool:
        """Whether it is a segment of no more than the limit, so that it needn't be fetched."""
        if segments.source_of(data) is None:
            return False
        return bool(data[segments.END] - data[segments.START] <= self.limit_s)

    def _files(self, of: Mapping[str, Sequence[Task]]) -> dict[str, Path | None]:
        """Addresses of recordings that last too long, and their files: None where it has too many
        bytes to be fetched as others are. What can't be fetched is the worker's to report."""
        local = {
            record.audio[self.key]: self.folder.path / path
            for record in self.folder.tasks().values()
            if (path := record.path.get(self.key)) is not None
        }
        files: dict[str, Path | None] = {
            uri: path for uri, path in local.items() if uri in of and path.is_file()
        }
        items = {f"{users[0].id}-{self.key}": uri for uri, users in of.items() if uri not in files}
        fetched = recordings.fetch(
            self.client, self.folder.audio, items, self.settings, self.progress
        )
        for name, result in fetched.items():
            if result.path is not None or result.too_large:
                files[items[name]] = result.path
        return {
            uri: path
            for uri, path in files.items()
            if path is None or lasts_longer(path, self.limit_s)
        }

    def _cut(
        self, uri: str, file: Path | None, tasks: Sequence[Task], report: Report
    ) -> list[Part]:
        """Its segments; [] where there is none, and why is in the report."""
        from after_model.audio import AudioError, TooLong
        from after_model.segments import LIMITS, cut_recording

        named = f"task {', '.join(str(task.id) for task in tasks)}"
        try:
            file = file or self._fetch(uri, tasks[0])
            found = cut_recording(file, self.work / "segments", cut_config(self.limit_s))
        except FetchError as error:
            report.wrong.append(f"{named}: {error}")
        except TooLong as error:
            parts = f"cut it into parts of at most {LIMITS.max_duration_s / 3600:g} hours first"
            report.wrong.append(f"{named}: {error.reason}; {parts}")
        except AudioError as error:
            report.wrong.append(f"{named}: {error.reason}. {error.fix}".removesuffix(". "))
        else:
            return [
                Part(segments.fields(uri, each.start_s, each.end_s), _with_digest(path))
                for each, path in found
            ]
        return []

    def _fetch(self, uri: str, task: Task) -> Path:
        """A recording that has too many bytes to be fetched as others are; raises FetchError."""
        more = {"max_audio_bytes": MAX_BYTES, "fetch_total_s": MAX_FETCH_S}
        settings, name = self.settings.model_copy(update=more), f"{task.id}-{self.key}"
        result = recordings.fetch(self.client, self.work, {name: uri}, settings)[name]
        if result.path is None:
            raise FetchError(result.error)
        if not lasts_longer(result.path, self.limit_s):
            raise FetchError(
                f"lasts no more than {self.limit_s:g} s but has {result.path.stat().st_size} "
                "bytes; raise AFTER_MAX_AUDIO_BYTES"
            )
        return result.path

    def _add(
        self, task: Task, parts: Sequence[Part], made: Set[Made], there: dict[str, str]
    ) -> int:
        """The parts that are no tasks yet, as tasks; how many."""
        new = [part for part in parts if _made(part.fields, task.id) not in made]
        absent = [part.file for part in new if part.file.name not in there]
        there |= uploads.upload(self.client, self.folder.id, absent)
        data = [
            {
                **task.data,
                self.key: there[part.file.name],
                **part.fields,
                segments.SOURCE_TASK: task.id,
            }
            for part in new
        ]
        uploads.import_tasks(self.client, self.folder.id, data)
        return len(new)


def _made(data: Mapping[str, Any], source_task: Any) -> Made:
    """What a segment is known by: the task and the recording that it is of, and where in it."""
    return tuple(
        str(value)
        for value in (source_task, data[segments.SOURCE], data[segments.START], data[segments.END])
    )


def _with_digest(path: Path) -> Path:
    """The file under a name that says what is in it, so that it isn't uploaded twice."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return path.rename(path.with_name(f"{digest}-{path.name}"))
