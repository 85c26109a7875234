"""The projects that are connected: rows that web process and worker both change.

Who a project is, how to reach it, and counters of what happened. A webhook only adds to a counter;
the worker sees that and asks Label Studio what is true.
"""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from backend.settings import Settings
from backend.store import leases, migrations
from backend.store.engine import Database, Fence
from backend.store.folder import BESIDE, FOLLOWS, ORDER, POOL, SPEAKERS, ProjectFolder
from backend.store.history import MAX_ERRORS, RESERVE, now
from backend.store.schema import PROJECTS, WORKERS
from backend.store.tasks import TaskRecord

__all__ = [
    "BESIDE",
    "FOLLOWS",
    "MAX_ERRORS",
    "ORDER",
    "POOL",
    "RESERVE",
    "SPEAKERS",
    "Project",
    "ProjectFolder",
    "Projects",
    "TaskRecord",
    "UnknownProject",
    "now",
]


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
    annotations, imported or deleted tasks or another setting, the Train button. adopted: it was
    connected in Label Studio's own pages, and the worker has still to check and repair the
    connection. speaker_key, speaker_pattern: how tasks say who speaks (label_studio/speakers.py).
    show_guess: whether people see the model's choice before they have answered; None: as the
    settings say.
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


class Projects:
    """The table of projects; safe for several processes and threads at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.state_url)
        migrations.upgrade(self.database, settings.projects_folder)

    def get(self, project_id: int) -> Project:
        """The project; raises UnknownProject."""
        with self.database.read() as connection:
            row = connection.execute(
                sa.select(PROJECTS).where(PROJECTS.c.id == project_id)
            ).one_or_none()
        if row is None:
            raise UnknownProject(project_id)
        return Project(**row._mapping)

    def all(self) -> list[Project]:
        with self.database.read() as connection:
            rows = connection.execute(sa.select(PROJECTS).order_by(PROJECTS.c.id))
            return [Project(**row._mapping) for row in rows]

    def save(self, project: Project) -> Project:
        """Add the project, or change what identifies it; its counters go on."""
        values = asdict(project)
        counters = ("events", "task_events", "train_requests")
        with self.database.write() as connection:
            kept = {key: value for key, value in values.items() if key not in ("id", *counters)}
            changed = connection.execute(
                sa.update(PROJECTS).where(PROJECTS.c.id == project.id).values(**kept)
            )
            if not changed.rowcount:
                connection.execute(sa.insert(PROJECTS).values(**values))
        return self.get(project.id)

    def change(self, project_id: int, **values: Any) -> Project:
        """Change some fields of a project that is there."""
        return self.save(replace(self.get(project_id), **values))

    def remove(self, project_id: int) -> None:
        """Forget the connection; the project's folder stays."""
        with self.database.write() as connection:
            connection.execute(sa.delete(PROJECTS).where(PROJECTS.c.id == project_id))

    def note_event(self, project_id: int, tasks_changed: bool = False, times: int = 1) -> None:
        """Something happened in the project, so many times; raises UnknownProject."""
        self._count(project_id, "task_events" if tasks_changed else "events", times)

    def request_training(self, project_id: int) -> None:
        """Somebody pressed Train; raises UnknownProject."""
        self._count(project_id, "train_requests")

    def _count(self, project_id: int, name: str, times: int = 1) -> None:
        column = PROJECTS.c[name]
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(PROJECTS)
                .where(PROJECTS.c.id == project_id)
                .values({column: column + times})
            )
        if not changed.rowcount:
            raise UnknownProject(project_id)

    # --- workers ---------------------------------------------------------------------------------

    def lease(self, name: str, holder: str, seconds: float) -> int | None:
        """The right to do something alone: a token, None while another has it (leases.py)."""
        return leases.take(self.database, name, holder, seconds)

    def fenced(self, fence: Fence) -> Projects:
        """The same projects, and folders of theirs, written to only while a lease is held."""
        result = copy.copy(self)
        result.database = self.database.fenced(fence)
        return result

    def renew(self, name: str, token: int, seconds: float) -> bool:
        """Hold a lease for so long again; False where it was lost."""
        return leases.renew(self.database, name, token, seconds)

    def release(self, name: str, token: int) -> None:
        """Give a lease back."""
        leases.release(self.database, name, token)

    def note_worker(self, name: str, now: float | None = None) -> None:
        """A worker says that it is alive (now: by the database's clock); those silent for a day
        are not shown any more."""
        with self.database.write() as connection:
            if now is None:
                now = connection.execute(sa.select(self.database.now())).scalar_one()
            gone = (WORKERS.c.name == name) | (WORKERS.c.seen < now - 86_400)
            connection.execute(sa.delete(WORKERS).where(gone))
            connection.execute(sa.insert(WORKERS).values(name=name, seen=now))

    def workers(self) -> dict[str, float]:
        """When each worker was last alive, in seconds since 1970 by this machine's clock."""
        with self.database.read() as connection:
            ahead = 0.0
            if self.database.path is None:  # else its clock is this machine's
                ahead = connection.execute(sa.select(self.database.now())).scalar_one()
                ahead -= time.time()
            return {row.name: row.seen - ahead for row in connection.execute(sa.select(WORKERS))}

    def folder(self, project_id: int) -> ProjectFolder:
        return ProjectFolder(self.settings.projects_folder / str(project_id), self.database)

    def close(self) -> None:
        self.database.close()
