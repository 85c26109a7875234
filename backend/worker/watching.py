"""The worker: it runs the jobs and watches which project needs one.

Once a second it reads the counters that webhooks move. Where one moved, and every minute in any
case, it asks Label Studio what is true, compares that with what is known here, and queues a job. So
an event that was lost, or that came while a job was running, leads to the same job a little later,
and a storm of events to no more than one job at a time.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from dbos import DBOS

from backend.label_studio import labeling
from backend.label_studio.predictions import LabelStudio, LabelStudioError, LabelStudioUnavailable
from backend.settings import Settings, SettingsError
from backend.store import learners
from backend.store.projects import Project, ProjectFolder, Projects
from backend.worker.heartbeat import Heartbeat
from backend.worker.queueing import ACTIVE, QUEUE, enqueue, project_of
from backend.worker.rounds import current_labels
from backend.worker.takeover import take_over
from backend.worker.workflows import APPLICATION_VERSION, JOBS_AT_ONCE, Jobs

log = logging.getLogger("after.worker")

LOST = 75  # exit status of a worker that was given up
TAKE_OVER_S = 5.0  # between looks at what other workers do
LOOK_SHARE = 0.2  # of the time may go into asking Label Studio, however large the project is


@dataclass(frozen=True)
class Known:
    """What is known here of a project, for needed()."""

    serving: str | None  # the release that serves
    learners: frozenset[str]  # of the controls in its snapshot
    tasks: frozenset[int]
    labels: dict[str, dict[str, list[list[str]]]]  # that the last round trained on
    rounds: int  # finished, since the bootstrap of this label space
    start: int
    round_size: int


@dataclass(frozen=True)
class Truth:
    """What Label Studio says; tasks is None where nothing hints at a change."""

    learners: frozenset[str]
    labels: dict[str, dict[str, list[list[str]]]]
    tasks: frozenset[int] | None
    train_pressed: bool


def needed(known: Known, truth: Truth) -> str | None:
    """The job that a project needs: "bootstrap", "extend", "round" or None."""
    if known.serving is None or truth.learners != known.learners:
        return "bootstrap"
    if truth.tasks is not None and truth.tasks != known.tasks:
        return "extend"
    labelled = {task for votes in truth.labels.values() for task in votes}
    if truth.train_pressed and labelled:
        return "round"
    enough = known.round_size if known.rounds else max(known.start, 1)
    return "round" if labelled and changed(known.labels, truth.labels) >= enough else None


def changed(
    before: dict[str, dict[str, list[list[str]]]], after: dict[str, dict[str, list[list[str]]]]
) -> int:
    """Tasks whose label is new, another, or gone."""
    tasks = set()
    for control in {*before, *after}:
        old, new = before.get(control, {}), after.get(control, {})
        tasks |= {task for task in {*old, *new} if old.get(task) != new.get(task)}
    return len(tasks)


@dataclass
class _Look:
    """When a project was last looked at, and how long the next look has to wait."""

    counters: tuple[int, int, int] = (-1, -1, -1)
    at: float = field(default_factory=lambda: -1e9)
    not_before: float = 0.0


class Watcher:
    """Looks at every project and queues what it needs."""

    def __init__(self, settings: Settings, projects: Projects, jobs: Jobs) -> None:
        self.settings = settings
        self.projects = projects
        self.jobs = jobs
        self._looks: dict[int, _Look] = {}

    def tick(self, now_s: float) -> None:
        """One look at everything; an error of one project disturbs no other."""
        busy = {
            project_of(job.workflow_id)
            for job in DBOS.list_workflows(
                status=ACTIVE, workflow_id_prefix="project-", load_input=False, load_output=False
            )
        }
        for project in self.projects.all():
            if project.id in busy or project.paused:
                continue
            folder = self.projects.folder(project.id)
            try:
                self._look(project, folder, now_s)
            except LabelStudioUnavailable as error:
                log.warning("project=%d label_studio=away reason=%s", project.id, error)
                self._looks[project.id].not_before = now_s + 10
            except (LabelStudioError, ValueError, OSError) as error:
                log.error("project=%d look failed: %s", project.id, error)
                folder.note_error("watching", str(error))
                self._looks[project.id].not_before = now_s + self.settings.reconcile_s

    def _look(self, project: Project, folder: ProjectFolder, now_s: float) -> None:
        look = self._looks.setdefault(project.id, _Look())
        counters = (project.events, project.task_events, project.train_requests)
        wanted = folder.read("rollback.json", None)
        if wanted is not None:
            if enqueue(self.jobs.serve, project.id, wanted["version"]):
                folder.delete(["rollback.json"])
            return
        moved = counters != look.counters
        due = now_s - look.at >= self.settings.reconcile_s
        if now_s < look.not_before or not (moved or due) or _holding(folder, project):
            return
        started = time.monotonic()
        job = self._needed(project, folder, moved)
        took = time.monotonic() - started
        look.at, look.not_before = now_s, now_s + took / LOOK_SHARE
        if job is None or enqueue(getattr(self.jobs, job), project.id):
            look.counters = counters
            self._note_seen(folder, train_requests=project.train_requests)
        if job is not None:
            log.info("project=%d queued=%s", project.id, job)

    def _needed(self, project: Project, folder: ProjectFolder, moved: bool) -> str | None:
        client = LabelStudio(project.url, project.api_key)
        info = client.project(project.id)
        if not info.task_number:
            return None
        controls = labeling.controls(info.label_config)
        serving = folder.releases.current()
        tasks = frozenset(folder.tasks())
        sizes = folder.read("plan.json", {})
        snapshot = folder.snapshot(serving) if serving else {"controls": []}
        described = frozenset(control["learner"] for control in snapshot["controls"])
        known = Known(
            serving=serving,
            learners=described,
            tasks=tasks,
            labels=folder.read("trained-on.json", {}),
            rounds=sum(learners.rounds_of(folder, learner) for learner in described),
            start=sizes.get("start", 1),
            round_size=self.settings.round_size or sizes.get("round_size", 1),
        )
        recounted = moved or info.task_number != len(tasks)
        truth = Truth(
            learners=frozenset(learners.describe(c)["learner"] for c in controls),
            labels=current_labels(client, project.id) if serving else {},
            tasks=frozenset(t.id for t in client.tasks(project.id)) if recounted else None,
            train_pressed=project.train_requests
            > folder.read("seen.json", {}).get("train_requests", 0),
        )
        if truth.labels:
            labelled = {task for votes in truth.labels.values() for task in votes}
            self._note_seen(folder, labelled=len(labelled))
        return needed(known, truth)

    def _note_seen(self, folder: ProjectFolder, **values: int) -> None:
        """What the last look found; the status page shows it."""
        before = folder.read("seen.json", {})
        if before | values != before:
            folder.write("seen.json", before | values)


def _holding(folder: ProjectFolder, project: Project) -> bool:
    """Whether the last job failed, or was cancelled, and it is too early to try again."""
    failed = folder.read("failed.json", None)
    if failed is None or project.train_requests != failed["train_requests"]:
        return False
    if failed["until"] is None:
        return project.events == failed["events"]
    return time.time() < failed["until"]


def run_worker(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Run jobs and watch projects until SIGINT or SIGTERM; what is unfinished goes on later."""
    settings.learner_config()  # an unknown name is found now, not in the first job
    projects = Projects(settings)
    name, _lock = _own_name(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    DBOS(
        config={
            "name": "after",
            "system_database_url": settings.jobs_url,
            "application_version": APPLICATION_VERSION,
            "executor_id": name,
            "log_level": "WARNING",
            "notification_listener_polling_interval_sec": 1.0,
        }
    )
    jobs: Jobs
    heartbeat = Heartbeat(projects, name, lost=lambda: _end(jobs, LOST))
    jobs = Jobs(settings, projects.fenced(heartbeat.fence), heartbeat.fence)
    DBOS.launch()
    DBOS.register_queue(
        QUEUE,
        worker_concurrency=JOBS_AT_ONCE,
        polling_interval_sec=min(1.0, settings.poll_s),
        on_conflict="always_update",
    )
    watcher = Watcher(settings, jobs.projects, jobs)
    log.info("worker=%s ready projects=%d", name, len(projects.all()))
    ready()
    looked = -1e9
    while not stop.wait(settings.poll_s):
        now_s = time.monotonic()
        try:
            if now_s - looked >= TAKE_OVER_S:
                take_over(projects, name)
                looked = now_s
            watcher.tick(now_s)
        except Exception:  # the database is away, say: the next look may find it
            log.exception("watching failed")
    log.info("worker=%s stopping: unfinished jobs go on at the next start", name)
    heartbeat.end()
    _end(jobs, 0)


def _end(jobs: Jobs, status: int) -> None:
    """End this process at once: threads of unfinished jobs must not record the end of their
    children as a failure."""
    if status == LOST:
        log.error("another worker has taken over this one's jobs: it ends, and can be started anew")
    jobs.stopping.set()
    for child in list(jobs.children):
        child.kill()
    logging.shutdown()
    os._exit(status)


def _own_name(settings: Settings) -> tuple[str, IO[Any]]:
    """A name for this worker that no other living one has, the same after a restart."""
    folder = settings.data / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    base = settings.worker_name or socket.gethostname()
    for number in range(1, 100):
        name = base if number == 1 else f"{base}-{number}"
        lock = (folder / f"{name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return name, lock
    raise SettingsError(f"{folder}: a hundred workers are running already")
