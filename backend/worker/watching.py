"""The worker: it watches the projects, keeps their order up to date and runs the jobs they need.

A few times a second it reads the counters that webhooks move. Where one moved, and every minute in
any case, it asks Label Studio what changed (intake.py), pushes the next window (ordering.py), and
queues the job that is needed. So an event that was lost leads to the same a little later, and a
storm of events to no more than one job at a time. Jobs run beside and hold no window up.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from backend.label_studio import labeling, speaking
from backend.label_studio.predictions import (
    LabelStudio,
    LabelStudioFailing,
    LabelStudioUnavailable,
    ProjectInfo,
)
from backend.settings import Settings
from backend.store import learners
from backend.store.history import said
from backend.store.projects import POOL, SPEAKERS, Project, ProjectFolder, Projects
from backend.worker.deciding import Known, Truth, different, fair, needed
from backend.worker.intake import Changes, Intake
from backend.worker.ordering import Order, Orderer, step_size
from backend.worker.queueing import enqueue
from backend.worker.warm import WarmProcess
from backend.worker.workflows import Jobs

log = logging.getLogger("after.worker")

LOOKS_AT_ONCE = 4  # projects
LEASE_S = 30.0  # after which another worker watches the projects of one that is silent
LONGEST_PAUSE_S = 60.0  # after a look that failed
DECIDE_S = 1.0  # between decisions on a job
SETTLED_S = 3.0  # without another new task: the import is over
FULL_LOOK_S, FULL_LOOK_SHARE = 3600.0, 0.01  # listing everything: so rarely, and so little time


@dataclass
class _State:
    """What the worker knows of a project from look to look."""

    counters: tuple[int, int, int] = (-1, -1, -1)  # as they were when Label Studio was last asked
    moved_at: float | None = None  # when they first moved since
    at: float = -1e9  # of the last look that was due
    not_before: float = 0.0
    failures: int = 0
    full_at: float = -1e9
    full_took: float = 0.0
    intake: Intake | None = None
    order: Order = field(default_factory=Order)
    known: frozenset[int] = frozenset()  # tasks of the last bootstrap or extension
    pool: str = ""  # the mark of that
    undecided: bool = True  # something may need a job
    decide_at: float = -1e9
    imported_at: float | None = None  # when a task was last seen that isn't known
    last_job: str | None = None
    info: ProjectInfo | None = None
    lease: int | None = None  # the token of the right to watch it
    leased_at: float = -1e9


class Watcher:
    """Looks at every project, queues the jobs it needs and keeps its order up to date."""

    def __init__(self, settings: Settings, projects: Projects, jobs: Jobs, name: str) -> None:
        self.settings = settings
        self.name = name
        self.projects = projects
        self.jobs = jobs
        self.warm = WarmProcess(settings)
        self._orderer = Orderer(settings, self.warm)
        self._states: dict[int, _State] = {}
        self._looking: dict[int, Future[None]] = {}
        self._threads = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look")

    def tick(self, now_s: float) -> None:
        """Begin a look at every project that isn't looked at already; disturbs no other."""
        projects = self.projects.all()
        for project in projects:
            running = self._looking.get(project.id)
            if project.paused or (running is not None and not running.done()):
                continue
            self._looking[project.id] = self._threads.submit(self.look, project, now_s)
        for gone in set(self._states) - {project.id for project in projects}:
            self._states.pop(gone)

    def look(self, project: Project, now_s: float) -> None:
        """One look; whatever goes wrong is told to the project's people, and tried again later."""
        state = self._states.setdefault(project.id, _State())
        if now_s < state.not_before or not self._is_ours(project, state, now_s):
            return
        folder = self.projects.folder(project.id)
        try:
            self._look(project, folder, state, now_s)
            state.failures = 0
        except Exception as error:
            state.failures += 1
            state.not_before = now_s + min(LONGEST_PAUSE_S, 2.0**state.failures)
            away = isinstance(error, LabelStudioUnavailable)
            if away:
                log.warning("project=%d label_studio=away reason=%s", project.id, error)
            else:
                state.intake = None  # whatever was half taken in is read anew
                log.exception("project=%d look failed", project.id)
            if not away or isinstance(error, LabelStudioFailing):
                _tell(project, folder, said(error))

    def warm_up(self) -> None:
        """Have the first step find its process ready, where steps are what orders come from."""
        if self._orderer.steps:
            self.warm.warm_up()

    def close(self) -> None:
        self.warm.close()

    def _is_ours(self, project: Project, state: _State, now_s: float) -> bool:
        """Whether this worker watches the project; of several, one does, the others stand by."""
        if state.lease is not None and now_s - state.leased_at < LEASE_S / 3:
            return True
        name = f"project-{project.id}"
        if state.lease is not None and not self.projects.renew(name, state.lease, LEASE_S):
            state.lease, state.intake, state.order = None, None, Order()  # another has gone on
        if state.lease is None:
            state.lease = self.projects.lease(name, self.name, LEASE_S)
        state.leased_at = now_s
        if state.lease is None:
            state.not_before = now_s + LEASE_S / 6
        return state.lease is not None

    def _look(self, project: Project, folder: ProjectFolder, state: _State, now_s: float) -> None:
        wanted = folder.read("rollback.json", None)
        if wanted is not None:
            if enqueue(self.jobs.serve, project.id, wanted["version"]):
                folder.delete(["rollback.json"])
            return
        counters = (project.events, project.task_events, project.train_requests)
        due = now_s - state.at >= self.settings.reconcile_s
        client = LabelStudio(project.url, project.api_key)
        if counters != state.counters and state.moved_at is None:
            state.moved_at = now_s
        if due or state.intake is None:
            self._check(client, project, folder, state, now_s)
            state.counters, state.moved_at = counters, None
        elif self._worth_reading(state, counters, now_s):
            self._take_in(state, state.intake.refresh(client, project.id), now_s)
            state.counters, state.moved_at, state.undecided = counters, None, True
        if state.intake is None:  # no task yet, or no question
            return
        state.intake.keep(folder)
        self._orderer.advance(client, project, folder, state.intake, state.order, now_s)
        if state.undecided and now_s >= state.decide_at and not _holding(folder, project):
            state.decide_at = now_s + DECIDE_S
            state.undecided = not self._decide(project, folder, state, now_s)
        if state.order.idle(len(state.intake.tasks), now_s):
            self._orderer.tidy_up(
                client, project.id, state.order,
                lambda: self.projects.get(project.id).events != project.events,
            )  # fmt: skip

    def _worth_reading(self, state: _State, counters: tuple[int, int, int], now_s: float) -> bool:
        """Whether what events tell of is read now, or with what comes in the next seconds.

        Label Studio answers its annotators and this in turn, each request a tenth of a second: so
        labels are read a step at a time. Tasks that came and a press of Train don't wait.
        """
        if state.intake is None or counters == state.counters or state.moved_at is None:
            return False
        if counters[1:] != state.counters[1:]:
            return True
        enough = step_size(self.settings, state.intake.controls)
        if state.order.window:
            enough = min(enough, max(1, len(state.order.window) // 2))
        labels = counters[0] - state.counters[0] + len(state.order.changed)
        waited_s = now_s - min(state.moved_at, state.order.waiting_since(now_s))
        return labels >= enough or waited_s >= self.settings.step_s

    def _check(
        self,
        client: LabelStudio,
        project: Project,
        folder: ProjectFolder,
        state: _State,
        now_s: float,
    ) -> None:
        """What no event tells: another config, deleted tasks, an order that is no longer ours."""
        state.at, state.undecided = now_s, True
        state.info = info = client.project(project.id)
        if not info.task_number:
            state.intake = None
            return
        controls = labeling.controls(info.label_config)
        intake = state.intake
        wanted = info.maximum_annotations
        whole = intake is None or (intake.controls, intake.wanted) != (controls, wanted)
        if intake is not None and not whole:
            self._take_in(state, intake.refresh(client, project.id), now_s)
            whole = info.task_number != len(intake.tasks) or (
                now_s - state.full_at > max(FULL_LOOK_S, state.full_took / FULL_LOOK_SHARE)
            )
        if whole:
            started = time.monotonic()
            before = intake.votes if intake is not None else {}
            state.intake = Intake.read(client, project.id, controls, wanted)
            state.full_at, state.full_took = now_s, time.monotonic() - started
            state.order.note(different(before, state.intake.votes), now_s)
        if state.order.version and info.model_version != state.order.version:
            state.order.follows = ""  # somebody changed it: push anew

    def _take_in(self, state: _State, changes: Changes, now_s: float) -> None:
        state.order.note(changes.relabelled, now_s, state.moved_at)
        if changes.new:
            state.imported_at, state.undecided = now_s, True

    def _decide(self, project: Project, folder: ProjectFolder, state: _State, now_s: float) -> bool:
        """Queue the job that the project needs; whether nothing is left to decide."""
        assert state.intake is not None
        if state.imported_at is not None and now_s - state.imported_at < SETTLED_S:
            return False  # an import is still running: one job for all of it
        mark = str(folder.read(POOL, {}).get("mark", ""))
        if mark != state.pool or not state.known:
            state.known, state.pool = folder.task_ids(), mark
        seen = folder.read("seen.json", {})
        pressed = project.train_requests > seen.get("train_requests", 0)
        needs = needed(
            self._known(folder, state),
            Truth(
                learners=frozenset(learners.describe(c)["learner"] for c in state.intake.controls),
                labels=state.intake.votes,
                tasks=frozenset(state.intake.tasks),
                train_pressed=pressed,
                speakers=str(speaking.rule_of(project)),
            ),
        )
        self._note_seen(folder, labelled=len(state.intake.labelled))
        job = fair(needs, state.last_job)
        if job is None:
            return True
        if not enqueue(getattr(self.jobs, job), project.id):
            return False
        log.info("project=%d queued=%s", project.id, job)
        state.last_job, state.imported_at = job, None
        if job != "extend":
            self._note_seen(folder, train_requests=project.train_requests)
        return len(needs) == 1

    def _known(self, folder: ProjectFolder, state: _State) -> Known:
        serving = folder.releases.current()
        sizes = folder.read("plan.json", {})
        snapshot = folder.snapshot(serving) if serving else {"controls": []}
        described = frozenset(control["learner"] for control in snapshot["controls"])
        return Known(
            serving=serving,
            learners=described,
            # Of an older release the recordings have no mark, and steps nothing to begin with.
            tasks=state.known if state.pool else frozenset(),
            labels=folder.read("trained-on.json", {}),
            rounds=sum(learners.rounds_of(folder, learner) for learner in described),
            start=sizes.get("start", 1),
            round_size=self.settings.round_size or sizes.get("round_size", 1),
            speakers=folder.read(SPEAKERS, ""),
        )

    def _note_seen(self, folder: ProjectFolder, **values: int) -> None:
        """What the last look found; the status page shows it."""
        before = folder.read("seen.json", {})
        if before | values != before:
            folder.write("seen.json", before | values)


def _tell(project: Project, folder: ProjectFolder, message: str) -> None:
    """Show it once; others are not pushed off the page by it."""
    try:
        if not any(error["message"] == message for error in folder.errors()):
            folder.note_error("watching", message)
    except Exception:  # files that can't be read may be what is wrong
        log.exception("project=%d the error can't be kept", project.id)


def _holding(folder: ProjectFolder, project: Project) -> bool:
    """Whether the last job failed, or was cancelled, and it is too early to try again."""
    failed = folder.read("failed.json", None)
    if failed is None or project.train_requests != failed["train_requests"]:
        return False
    if failed["until"] is None:
        return project.events == failed["events"]
    return time.time() < failed["until"]
