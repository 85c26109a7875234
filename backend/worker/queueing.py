"""The queue of jobs, from outside: what waits and runs, cancelling, asking for a rollback.

Apart from jobs.py, so that the web process and the commands need not load what jobs do.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSClient, SetEnqueueOptions, SetWorkflowID
from dbos._error import DBOSQueueDeduplicatedError

from backend.settings import Settings
from backend.store import learners
from backend.store.projects import Project, ProjectFolder, Projects

QUEUE = "after"
ACTIVE = ["ENQUEUED", "PENDING"]


def enqueue(job: Callable[..., str], project_id: int, *arguments: Any) -> bool:
    """Queue a job of a project; False when it has one already."""
    with (
        SetWorkflowID(f"project-{project_id}-{uuid.uuid4()}"),
        SetEnqueueOptions(deduplication_id=f"project-{project_id}"),
    ):
        try:
            DBOS.enqueue_workflow(QUEUE, job, project_id, *arguments)
        except DBOSQueueDeduplicatedError:
            return False
    return True


def project_of(workflow_id: str) -> int | None:
    """The project that a job belongs to."""
    match = re.match(r"project-(\d+)-", workflow_id)
    return int(match.group(1)) if match else None


def queue(settings: Settings) -> list[dict[str, Any]]:
    """Jobs that wait or run: {"project", "job", "status", "since"}; empty before any worker ran."""
    with _client(settings) as client:
        if client is None:
            return []
        found = _active(client)
        return [
            {
                "project": project_of(job.workflow_id),
                "job": job.name,
                "status": "running" if job.status == "PENDING" else "waiting",
                "since": (job.created_at or 0) / 1000,
            }
            for job in found
        ]


def request_rollback(settings: Settings, project_id: int, version: str) -> str:
    """Have an older release serve; returns what happens now. Raises LookupError, ValueError."""
    projects = Projects(settings)
    projects.get(project_id)
    folder = projects.folder(project_id)
    folder.releases.metadata(version)  # raises, naming the versions there are
    for learner, model in folder.release_models(version).values():
        if model not in learners.models(folder, learner).versions():
            raise ValueError(
                f"the model of {version} was removed (AFTER_KEEP_MODELS={settings.keep_models}); "
                f"versions: {', '.join(folder.releases.versions())}"
            )
    folder.write("rollback.json", {"version": version})
    return f"{version} will serve as soon as the worker has scored the pool with it"


def cancel(settings: Settings, project_id: int) -> str:
    """Stop what a project does now; returns what was done. Raises LookupError."""
    projects = Projects(settings)
    project = projects.get(project_id)
    folder = projects.folder(project_id)
    with _client(settings) as client:
        found = [] if client is None else _active(client)
        mine = [job for job in found if project_of(job.workflow_id) == project_id]
        if not mine:
            return f"project {project_id} has no job to cancel"
        for job in mine:
            if job.status == "PENDING":
                folder.write("cancel", {})
            elif client is not None:
                _hold(folder, project)  # else the next look queues it again
                client.cancel_workflow(job.workflow_id)
    return (
        f"cancelled: {', '.join(job.name for job in mine)}. What serves goes on serving; the next "
        "job begins with the next label or when Train is pressed"
    )


def _hold(folder: ProjectFolder, project: Project) -> None:
    """Queue nothing before the next label, or before Train is pressed (see watching.py)."""
    count = folder.read("failed.json", {"count": 0})["count"]
    counters = {"events": project.events, "train_requests": project.train_requests}
    folder.write("failed.json", {"count": count, "until": None} | counters)


def _active(client: DBOSClient) -> list[Any]:
    return client.list_workflows(
        status=ACTIVE, workflow_id_prefix="project-", load_input=False, load_output=False
    )


@contextlib.contextmanager
def _client(settings: Settings) -> Any:
    """A DBOS client, None where no worker has ever run."""
    url = settings.jobs_url
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        yield None
        return
    client = DBOSClient(system_database_url=url)
    try:
        yield client
    finally:
        client.destroy()
