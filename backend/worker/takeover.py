"""Jobs that nobody does any more: of workers that died, and of releases before this one."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from dbos import DBOS, SetWorkflowID

from backend.store.projects import Projects
from backend.worker.heartbeat import SILENT_S, lease_of
from backend.worker.queueing import QUEUE, project_of
from backend.worker.workflows import APPLICATION_VERSION

log = logging.getLogger("after.worker")


def take_over(projects: Projects, name: str) -> None:
    """Have every job go on that nobody does: one whose worker is silent, however long ago it was
    heard of last, and one that a release before this left behind."""
    running = _jobs("PENDING")
    for worker in {job.executor_id for job in running}:
        mine = [job for job in running if job.executor_id == worker]
        if worker == name:
            for job in mine:
                if job.app_version != APPLICATION_VERSION:  # of this worker's former life
                    _restart(job)
        elif _silent(projects, worker):
            # Whoever gets the lease takes over; the worker of before can't write from here on.
            token = projects.lease(lease_of(worker), name, SILENT_S)
            if token is None:
                continue
            for job in mine:
                log.warning("job=%s taken over from worker=%s", job.workflow_id, worker)
                _go_on(job)
            projects.release(lease_of(worker), token)
    _take_up(projects, name)


def _take_up(projects: Projects, name: str) -> None:
    """Restart what waits for workers of another release, unless one may still be there."""
    alone = all(_silent(projects, worker) for worker in projects.workers() if worker != name)
    for job in _jobs("ENQUEUED"):
        waited_s = time.time() - (job.created_at or 0) / 1000
        if job.app_version != APPLICATION_VERSION and (alone or waited_s > SILENT_S):
            _restart(job)


def _go_on(job: Any) -> None:
    """Have a job go on at its first unfinished step."""
    if job.app_version == APPLICATION_VERSION:
        DBOS.resume_workflow(job.workflow_id)
    else:
        _restart(job)


def _restart(job: Any) -> None:
    """Begin a job of another release anew with this one's steps; running a step twice changes
    nothing."""
    log.warning("job=%s of %s is begun again", job.workflow_id, job.app_version)
    with SetWorkflowID(f"project-{project_of(job.workflow_id)}-{uuid.uuid4()}"):
        DBOS.fork_workflow(
            job.workflow_id, 1, application_version=APPLICATION_VERSION, queue_name=QUEUE
        )
    DBOS.cancel_workflow(job.workflow_id)


def _silent(projects: Projects, worker: str) -> bool:
    seen = projects.workers().get(worker)
    return seen is None or time.time() - seen > SILENT_S


def _jobs(status: str) -> list[Any]:
    return DBOS.list_workflows(
        status=status, workflow_id_prefix="project-", load_input=False, load_output=False
    )
