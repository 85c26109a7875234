"""Durable jobs: what a project goes through, step by step, whatever dies in between.

bootstrap  read tasks and audio, TAPT, the clustering start; push the order
round      snapshot of the labels, train, compare, score, push, publish
extend     scores for tasks that came since, without waiting for a round
serve      go back to an older release

DBOS records every finished step; a job whose worker was killed goes on at the first unfinished one.
Every step may be run twice. A project has one job at a time: its id is the deduplication id.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfiguredInstance

from backend.compute.orders import at_random
from backend.label_studio import connect, labeling, speaking
from backend.label_studio.predictions import LabelStudio, LabelStudioUnavailable
from backend.settings import Settings
from backend.store import learners, scores
from backend.store.engine import Fence
from backend.store.history import said
from backend.store.projects import (
    FOLLOWS,
    ORDER,
    Project,
    ProjectFolder,
    Projects,
)
from backend.worker import rounds
from backend.worker.ordering import follows
from backend.worker.patience import patiently
from backend.worker.pool import Pool
from backend.worker.supervision import POLL_S, Children, JobFailed

log = logging.getLogger("after.jobs")

JOBS_AT_ONCE = 8  # they mostly wait: training is one at a time per device (compute.py)
# Changes when a workflow's steps do. Without it every change of code would orphan running jobs.
APPLICATION_VERSION = "after-jobs-2"
WAIT_STAGE = "waiting"

Result = TypeVar("Result")


class JobCancelled(RuntimeError):
    """Somebody ran `python -m backend cancel`."""


@DBOS.dbos_class()
class Jobs(DBOSConfiguredInstance):
    """The workflows, with what they need; one instance a worker."""

    def __init__(self, settings: Settings, projects: Projects, fence: Fence) -> None:
        """projects: fenced by this worker's lease, as the children that compute will be."""
        self.settings = settings
        self.projects = projects
        self.stopping = threading.Event()
        self.children = Children(settings, fence)
        super().__init__("jobs")

    # --- workflows -------------------------------------------------------------------------------

    @DBOS.workflow(name="bootstrap")
    def bootstrap(self, project_id: int) -> str:
        with self._reported(project_id, "bootstrap"):
            self.repair(project_id)
            version = self.begin_bootstrap(project_id)
            self.read_tasks(project_id, version)
            self.compute(project_id, "bootstrap", version)
            self.publish(project_id, version)
            return version
        return "failed"

    @DBOS.workflow(name="round")
    def round(self, project_id: int) -> str:
        with self._reported(project_id, "round"):
            version = self.begin_round(project_id)
            if version is None:
                return "nothing is labelled"
            self.compute(project_id, "round", version)
            self.trained(project_id, version)
            self.publish(project_id, version)
            return version
        return "failed"

    @DBOS.workflow(name="extend")
    def extend(self, project_id: int) -> str:
        with self._reported(project_id, "extend"):
            version = self.serving(project_id)
            self.read_tasks(project_id, version)
            self.compute(project_id, "extend", version)
            self.finish(project_id)
            return version
        return "failed"

    @DBOS.workflow(name="serve")
    def serve(self, project_id: int, version: str) -> str:
        with self._reported(project_id, f"rollback to {version}"):
            self.compute(project_id, "rescore", version)
            self.make_current(project_id, version)
            return version
        return "failed"

    # --- steps -----------------------------------------------------------------------------------

    @DBOS.step(name="repair")
    def repair(self, project_id: int) -> None:
        """Connect properly what was connected in Label Studio's own pages."""
        project = self.projects.get(project_id)
        if project.adopted:
            connected = self._patiently(
                project,
                lambda: connect.connect(
                    self.settings, project.url, project.api_key, project_id, project.backend_url
                ),
            )
            for line in connected.lines:
                log.info("project=%d %s", project_id, line)

    @DBOS.step(name="begin bootstrap")
    def begin_bootstrap(self, project_id: int) -> str:
        """The controls as they are now, under a new version; no labels yet."""
        project, folder = self._project(project_id)
        controls = self._controls(project)
        version = rounds.next_version(folder, 0)
        snapshot = {"controls": controls, "labels": {}, "trained": {}}
        folder.write(f"rounds/{version}/snapshot.json", snapshot)
        log.info("project=%d job=bootstrap version=%s", project_id, version)
        return version

    @DBOS.step(name="begin round")
    def begin_round(self, project_id: int) -> str | None:
        """The labels that the worker has taken in, under a new version; None where there are
        none."""
        _, folder = self._project(project_id)
        controls = [learners.describe(control) for control in folder.controls()]
        labels = folder.labels()
        labelled = {task for votes in labels.values() for task in votes}
        if not labelled:
            return None
        version = rounds.next_version(folder, len(labelled))
        trained = {c["name"]: learners.rounds_of(folder, c["learner"]) for c in controls}
        audits = folder.read(ORDER, {}).get("audits", {})
        snapshot = {
            "controls": controls, "labels": labels, "trained": trained, "audits": audits,
        }  # fmt: skip
        folder.write(f"rounds/{version}/snapshot.json", snapshot)
        log.info("project=%d job=round version=%s labelled=%d", project_id, version, len(labelled))
        return version

    @DBOS.step(name="read tasks")
    def read_tasks(self, project_id: int, version: str) -> None:
        """The tasks as they are now, and the audio of those that have none here yet."""
        project, folder = self._project(project_id)
        rule = speaking.rule_of(project)
        pool = Pool(self._client(project), folder, rule, self.settings)
        self._patiently(project, lambda: pool.read(version))
        self._first_order(folder, version)
        self._patiently(project, lambda: pool.fetch(version, lambda: self._check(folder)))

    @DBOS.step(name="compute")
    def compute(self, project_id: int, work: str, version: str) -> None:
        """The heavy part, in a process of its own (supervision.py)."""
        folder = self._project(project_id)[1]
        self.children.run(folder, work, version, lambda: self._check(folder))

    @DBOS.step(name="trained")
    def trained(self, project_id: int, version: str) -> None:
        """Raises JobFailed for a round that had nothing to learn from."""
        _, folder = self._project(project_id)
        if not folder.read(f"rounds/{version}/trained.json", {}):
            raise JobFailed("no label belongs to a recording that can be read")

    @DBOS.step(name="publish")
    def publish(self, project_id: int, version: str) -> None:
        """From now on the version serves, if promoted; the round is in the history either way."""
        _, folder = self._project(project_id)
        entry = rounds.history_entry(folder, version)
        if entry["promoted"]:
            rounds.release(folder, version, entry)
        folder.add_history(entry)
        folder.write("trained-on.json", folder.snapshot(version)["labels"])
        folder.releases.prune(keep=self.settings.keep_models)
        folder.forget_rounds()
        self._finish(folder)

    @DBOS.step(name="make current")
    def make_current(self, project_id: int, version: str) -> None:
        """A rollback's last step."""
        _, folder = self._project(project_id)
        for learner, model in folder.release_models(version).values():
            learners.models(folder, learner).rollback(model)
        folder.releases.rollback(version)
        self._finish(folder)

    @DBOS.step(name="serving")
    def serving(self, project_id: int) -> str:
        _, folder = self._project(project_id)
        version = folder.releases.current()
        if version is None:
            raise JobFailed("nothing serves yet")
        return version

    @DBOS.step(name="finish")
    def finish(self, project_id: int) -> None:
        self._finish(self._project(project_id)[1])

    @DBOS.step(name="failed")
    def failed(self, project_id: int, job: str, message: str, cancelled: bool) -> None:
        """Tell the user, and when to try again."""
        try:
            project, folder = self._project(project_id)
        except LookupError:  # disconnected meanwhile
            return
        before = folder.read("failed.json", {"count": 0})
        wait = min(60 * 2 ** before["count"], 3600)
        folder.note_error(job, message)
        with contextlib.suppress(OSError):
            folder.write(
                "failed.json",
                {
                    "count": before["count"] + 1,
                    "until": None if cancelled else time.time() + wait,
                    "events": project.events,
                    "train_requests": project.train_requests,
                },
            )
        folder.delete(["progress.json", "cancel"])

    # --- what steps share ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reported(self, project_id: int, job: str) -> Any:
        """Errors of a job go to the user; whatever is not foreseen also fails the workflow."""
        started = time.monotonic()
        try:
            yield
        except JobCancelled:
            log.info("project=%d job=%s cancelled", project_id, job)
            self.failed(project_id, job, "Cancelled.", True)
        except Exception as error:
            log.exception("project=%d job=%s failed", project_id, job)
            self.failed(project_id, job, said(error), False)
            if not isinstance(error, RuntimeError | ValueError | OSError | LookupError):
                raise
        else:
            seconds = time.monotonic() - started
            log.info("project=%d job=%s done seconds=%.1f", project_id, job, seconds)

    def _project(self, project_id: int) -> tuple[Project, ProjectFolder]:
        return self.projects.get(project_id), self.projects.folder(project_id)

    def _client(self, project: Project) -> LabelStudio:
        return LabelStudio(project.url, project.api_key)

    def _controls(self, project: Project) -> list[dict[str, Any]]:
        info = self._patiently(project, lambda: self._client(project).project(project.id))
        return [learners.describe(control) for control in labeling.controls(info.label_config)]

    def _patiently(self, project: Project, call: Callable[[], Result]) -> Result:
        """The call's result, asked for again while Label Studio is away (patience.py)."""
        folder = self.projects.folder(project.id)
        since = time.time()

        def pause(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self._check(folder)
                time.sleep(POLL_S)

        def note(error: LabelStudioUnavailable) -> None:
            log.warning("project=%d label_studio=away reason=%s", project.id, error)
            version = str(folder.read("progress.json", {}).get("version", "after-r00-n0000"))
            folder.note_progress(version, f"{WAIT_STAGE} for Label Studio", 0, 1, since)

        self._check(folder)
        return patiently(call, pause, self.settings.label_studio_wait_s, note)

    def _check(self, folder: ProjectFolder) -> None:
        """Stop here if somebody cancelled the job, or the worker is about to end."""
        if self.stopping.is_set():
            threading.Event().wait()  # the process ends; the step is run again by the next worker
        folder.database.check()
        if folder.read("cancel", None) is not None:
            raise JobCancelled

    def _first_order(self, folder: ProjectFolder, version: str) -> None:
        """People can begin at once where the start is random: audio and features come behind."""
        if self.settings.learner_config().start == "random" and not follows(folder):
            order = at_random(self.settings.seed, version, folder.task_ids())
            scores.write(folder.path, order, scores.FIXED)
            folder.write(FOLLOWS, {"release": version, "at": time.time()})

    def _finish(self, folder: ProjectFolder) -> None:
        folder.delete(["progress.json", "failed.json", "cancel"])
