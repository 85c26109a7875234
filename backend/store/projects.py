"""What is known of each project: a row in a database, and a folder of files.

The row is what web process and worker both change: who the project is, how to reach it, and
counters of what happened. A webhook only adds to a counter; the worker sees that it moved and asks
Label Studio what is true. Everything large is in files, each written beside, forced to disk and
renamed, so that a reader finds the old or the new and a killed writer leaves the old.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from after_model.model_store import ModelStore
from backend.settings import Settings

MAX_ERRORS = 20
MAX_MESSAGE = 2000  # characters
RESERVE = "errors-reserve.json"
RESERVED = 16_384  # bytes


class UnknownProject(LookupError):
    """A project that is not connected; the message says how to connect it."""

    def __init__(self, project_id: int) -> None:
        super().__init__(
            f"project {project_id} is not connected; run: "
            f"python -m backend connect --project {project_id}"
        )
        self.project_id = project_id


@dataclass(frozen=True)
class Project:
    """A connected project.

    events, task_events, train_requests count what Label Studio said since connecting: changed
    annotations, imported or deleted tasks, the Train button. adopted: it was connected in Label
    Studio's own pages, and the worker has still to check and repair the connection. speaker_key,
    speaker_pattern: how tasks say who speaks (label_studio/speakers.py). show_guess: whether people
    see the model's choice before they have answered; None: as the settings say.
    """

    id: int
    url: str
    api_key: str
    secret: str
    title: str = ""
    backend_url: str = ""
    adopted: bool = False
    paused: bool = False
    events: int = 0
    task_events: int = 0
    train_requests: int = 0
    speaker_key: str = ""
    speaker_pattern: str = ""
    show_guess: bool | None = None

    def __repr__(self) -> str:  # keys stay out of logs and tracebacks
        return f"Project(id={self.id}, url={self.url!r}, title={self.title!r})"

    def shows_guess(self, settings: Settings) -> bool:
        """Whether people are to see the model's choice before they have answered."""
        return settings.show_guess if self.show_guess is None else self.show_guess


_METADATA = sa.MetaData()
_PROJECTS = sa.Table(
    "after_projects",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("api_key", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False, default=""),
    sa.Column("backend_url", sa.Text, nullable=False, default=""),
    sa.Column("adopted", sa.Boolean, nullable=False, default=False),
    sa.Column("paused", sa.Boolean, nullable=False, default=False),
    sa.Column("events", sa.Integer, nullable=False, default=0),
    sa.Column("task_events", sa.Integer, nullable=False, default=0),
    sa.Column("train_requests", sa.Integer, nullable=False, default=0),
    sa.Column("speaker_key", sa.Text, nullable=False, server_default=""),
    sa.Column("speaker_pattern", sa.Text, nullable=False, server_default=""),
    sa.Column("show_guess", sa.Boolean, nullable=True),
)
_WORKERS = sa.Table(  # who is alive, for doctor and the status page
    "after_workers",
    _METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seen", sa.Float, nullable=False),
)


class Projects:
    """The table of projects; safe for several processes and threads at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._engine = _engine(settings.state_url)
        _METADATA.create_all(self._engine)
        _add_columns(self._engine)
        if settings.state_url.startswith("sqlite:///"):  # it holds keys
            os.chmod(settings.state_url.removeprefix("sqlite:///"), 0o600)

    def get(self, project_id: int) -> Project:
        """The project; raises UnknownProject."""
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(_PROJECTS).where(_PROJECTS.c.id == project_id)
            ).one_or_none()
        if row is None:
            raise UnknownProject(project_id)
        return Project(**row._mapping)

    def all(self) -> list[Project]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_PROJECTS).order_by(_PROJECTS.c.id))
            return [Project(**row._mapping) for row in rows]

    def save(self, project: Project) -> Project:
        """Add the project, or change what identifies it; its counters go on."""
        values = asdict(project)
        counters = ("events", "task_events", "train_requests")
        with self._engine.begin() as connection:
            kept = {key: value for key, value in values.items() if key not in ("id", *counters)}
            changed = connection.execute(
                sa.update(_PROJECTS).where(_PROJECTS.c.id == project.id).values(**kept)
            )
            if not changed.rowcount:
                connection.execute(sa.insert(_PROJECTS).values(**values))
        return self.get(project.id)

    def change(self, project_id: int, **values: Any) -> Project:
        """Change some fields of a project that is there."""
        return self.save(replace(self.get(project_id), **values))

    def remove(self, project_id: int) -> None:
        """Forget the connection; the project's folder stays."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(_PROJECTS).where(_PROJECTS.c.id == project_id))

    def note_event(self, project_id: int, tasks_changed: bool = False, times: int = 1) -> None:
        """Something happened in the project, so many times; raises UnknownProject."""
        self._count(project_id, "task_events" if tasks_changed else "events", times)

    def request_training(self, project_id: int) -> None:
        """Somebody pressed Train; raises UnknownProject."""
        self._count(project_id, "train_requests")

    def _count(self, project_id: int, name: str, times: int = 1) -> None:
        column = _PROJECTS.c[name]
        with self._engine.begin() as connection:
            changed = connection.execute(
                sa.update(_PROJECTS)
                .where(_PROJECTS.c.id == project_id)
                .values({column: column + times})
            )
        if not changed.rowcount:
            raise UnknownProject(project_id)

    def note_worker(self, name: str, now: float) -> None:
        """A worker says that it is alive; those silent for a day are forgotten."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.delete(_WORKERS).where(
                    (_WORKERS.c.name == name) | (_WORKERS.c.seen < now - 86_400)
                )
            )
            connection.execute(sa.insert(_WORKERS).values(name=name, seen=now))

    def workers(self) -> dict[str, float]:
        """When each worker was last alive, in seconds since 1970."""
        with self._engine.connect() as connection:
            return {row.name: row.seen for row in connection.execute(sa.select(_WORKERS))}

    def folder(self, project_id: int) -> ProjectFolder:
        return ProjectFolder(self.settings.projects_folder / str(project_id))

    def close(self) -> None:
        self._engine.dispose()


def _add_columns(engine: sa.Engine) -> None:
    """Those that a table made by an older release doesn't have."""
    there = {column["name"] for column in sa.inspect(engine).get_columns(_PROJECTS.name)}
    for column in _PROJECTS.columns:
        if column.name in there:
            continue
        made = sa.schema.CreateColumn(column).compile(engine)
        with contextlib.suppress(sa.exc.DBAPIError), engine.begin() as connection:
            # Refused where another process was faster.
            connection.execute(sa.DDL(f"ALTER TABLE {_PROJECTS.name} ADD COLUMN {made}"))


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # Readers don't wait for writers, and a commit doesn't wait for the disk: a counter lost
        # in a power cut is made up for by the next look at Label Studio.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


class ProjectFolder:
    """The files of one project."""

    def __init__(self, path: Path) -> None:
        self.path = path

        self.audio = path / "audio"
        self.features = path / "features"
        self.tapt = path / "tapt"
        self.learners = path / "learners"
        self.rounds = path / "rounds"

    @property
    def releases(self) -> ModelStore:
        """Releases: which learner's model serves each control; `current` is what serves."""
        return ModelStore(self.path / "releases")

    # --- tasks -----------------------------------------------------------------------------------

    def tasks(self) -> dict[int, TaskRecord]:
        """The tasks as they were last read, by id, in the order of Label Studio."""
        stored = self.read("tasks.json", {})
        return {int(key): TaskRecord(**value) for key, value in stored.items()}

    def save_tasks(self, tasks: dict[int, TaskRecord]) -> None:
        self.write("tasks.json", {str(key): asdict(task) for key, task in tasks.items()})

    # --- rounds ----------------------------------------------------------------------------------

    def round(self, version: str) -> Path:
        if not re.fullmatch(r"after-r\d{2,}-n\d{4,}", version):
            raise ValueError(f"version {version!r}: expected a name such as after-r03-n0060")
        return self.rounds / version

    def history(self) -> list[dict[str, Any]]:
        """Every round, oldest first."""
        return self.read("history.json", [])

    def add_history(self, entry: dict[str, Any]) -> None:
        """Add a round, or replace the one with the same version."""
        kept = [e for e in self.history() if e["version"] != entry["version"]]
        self.write("history.json", [*kept, entry])

    def predictions(self, version: str) -> dict[str, Any] | None:
        """What was pushed under a version."""
        return self.read(f"rounds/{version}/predictions.json", None)

    def release_models(self, version: str) -> dict[str, tuple[str, str]]:
        """(learner, its version) by control, of a release; empty before the first round."""
        models = self.releases.metadata(version)["models"]
        return {name: (learner, model) for name, (learner, model) in models.items()}

    def serving_models(self) -> dict[str, tuple[str, str]]:
        """(learner, its version) by control, of the release that serves."""
        current = self.releases.current()
        return {} if current is None else self.release_models(current)

    def round_models(self, version: str) -> dict[str, tuple[str, str]]:
        """What a round would serve: its own models where promoted, else those that serve now."""
        learners = {c["name"]: c["learner"] for c in self.snapshot(version)["controls"]}
        kept = {
            name: (learner, model)
            for name, (learner, model) in self.serving_models().items()
            if learners.get(name) == learner
        }
        trained = self.read(f"rounds/{version}/trained.json", {})
        return kept | {
            name: (result["learner"], result["version"])
            for name, result in trained.items()
            if result["promoted"]
        }

    def snapshot(self, version: str) -> dict[str, Any]:
        """What a round trains on: {"controls", "labels", "trained"}, as Label Studio had it."""
        content = self.read(f"rounds/{version}/snapshot.json", None)
        if content is None:
            raise ValueError(
                f"{self.rounds / version}: the snapshot is gone; press Train for another"
            )
        return content

    # --- what happens now ------------------------------------------------------------------------

    def note_progress(
        self, version: str, stage: str, done: float, total: float, started: float
    ) -> None:
        """Say what is being done now; a full disk stops nothing here."""
        content = {
            "job": "bootstrap" if version.endswith("-n0000") else "round",
            "version": version,
            "stage": stage,
            "done": float(done),
            "total": float(total),
            "started": started,
            "updated": time.time(),
        }
        with contextlib.suppress(OSError):
            self.write("progress.json", content)

    def note_error(self, where: str, message: str) -> None:
        """Keep an error for the status page, also when the disk is full."""
        entry = {"time": now(), "where": where, "message": message[:MAX_MESSAGE]}
        try:
            self.write("errors.json", [entry, *self.errors()][:MAX_ERRORS])
        except OSError:
            # No room for a new file: write over blocks that were reserved while there was.
            with contextlib.suppress(OSError), (self.path / RESERVE).open("r+b") as file:
                file.write(json.dumps([entry]).encode()[:RESERVED].ljust(RESERVED))
                file.flush()
                os.fsync(file.fileno())

    def reserve(self) -> None:
        """Set room aside for telling that there is no more."""
        if not (self.path / RESERVE).exists():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RESERVE).write_bytes(b"[]".ljust(RESERVED))

    def errors(self) -> list[dict[str, str]]:
        """The last errors, newest first."""
        found = self.read(RESERVE, []) + self.read("errors.json", [])
        return sorted(found, key=lambda entry: entry["time"], reverse=True)[:MAX_ERRORS]

    # --- files -----------------------------------------------------------------------------------

    def read(self, name: str, default: Any) -> Any:
        """A JSON file's content, the default where there is none."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON file: a reader sees the old one or the new one, whatever dies."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class TaskRecord:
    """A task as it was last read: where its audio is, by data key; error: why it can't be used.

    labelled: Label Studio counts it as finished. speaker: who speaks, "" unknown.
    """

    audio: dict[str, str]
    path: dict[str, str]
    error: str | None = None
    labelled: bool = False
    speaker: str = ""


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
