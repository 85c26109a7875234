"""Workers that die, hang or are of another release: every job goes on, and one worker writes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

from backend.settings import Settings
from backend.store.engine import Fence, LeaseLost
from backend.store.projects import Project, Projects, TaskRecord
from backend.worker import heartbeat, takeover
from backend.worker.heartbeat import SILENT_S, Heartbeat, lease_of
from backend.worker.workflows import APPLICATION_VERSION


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    made = Projects(Settings(data=tmp_path))
    made.save(Project(id=7, url="http://label-studio", api_key="k", secret="s"))
    return made


# --- the heartbeat -------------------------------------------------------------------------------


def test_a_worker_looks_alive_while_its_main_thread_waits(projects, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(heartbeat, "SILENT_S", 0.5)
    alive = Heartbeat(projects, "a", lost=lambda: None)
    time.sleep(1.0)  # Label Studio takes its time
    assert projects.lease(lease_of("a"), "b", 60) is None
    assert time.time() - projects.workers()["a"] < 0.5
    alive.end()
    assert projects.lease(lease_of("a"), "b", 60) is not None


def test_a_worker_that_was_given_up_hears_of_it(projects, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.05)
    lost = threading.Event()
    Heartbeat(projects, "a", lost=lost.set)
    projects.lease(lease_of("a"), "a", 60)  # as one that was started under its name
    assert lost.wait(10)


def test_the_database_answers_again_and_the_worker_lives_on(projects, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.02)
    alive = Heartbeat(projects, "a", lost=lambda: pytest.fail("it lives"))
    renew, failures = projects.renew, iter(range(3))

    def away(*arguments: Any) -> bool:
        if next(failures, None) is not None:
            raise sa.exc.OperationalError("SELECT", {}, OSError("away"))
        return renew(*arguments)

    monkeypatch.setattr(projects, "renew", away)
    time.sleep(0.5)
    assert projects.lease(lease_of("a"), "b", 60) is None
    alive.end()


def test_one_that_was_given_up_writes_nothing(projects):
    token = projects.lease("worker:a", "a", 0.01)
    told: list[int] = []
    mine = projects.fenced(Fence("worker:a", token, lost=lambda: told.append(1))).folder(7)
    mine.write("plan.json", {"by": "a"})
    time.sleep(0.05)
    mine.write("plan.json", {"by": "a", "late": True})  # late, but nobody has taken over
    assert projects.lease("worker:a", "b", 60) is not None
    writes = [
        lambda: mine.write("plan.json", {}),
        lambda: mine.write("learners/emotion/state.json", {}),
        lambda: mine.save_tasks({1: TaskRecord({}, {})}),
        lambda: mine.releases.publish("after-r01-n0004", {}),
        mine.database.check,
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert len(told) == len(writes)
    assert mine.read("plan.json", {}) == {"by": "a", "late": True}
    assert mine.read("learners/emotion/state.json", None) is None
    assert not mine.tasks()
    projects.folder(7).write("plan.json", {"by": "b"})  # nothing is left locked


# --- jobs that nobody does -----------------------------------------------------------------------


@DBOS.workflow(name="a-job")
def _job(project_id: int) -> int:
    return project_id


@pytest.fixture
def dbos(tmp_path: Path) -> Iterator[None]:
    DBOS(
        config={
            "name": "after",
            "system_database_url": f"sqlite:///{tmp_path / 'jobs.sqlite'}",
            "application_version": APPLICATION_VERSION,
            "executor_id": "me",
            "log_level": "ERROR",
        }
    )
    DBOS.listen_queues(["another"])
    DBOS.launch()
    DBOS.register_queue("nobody-listens", worker_concurrency=1, on_conflict="always_update")
    yield
    DBOS.destroy(destroy_registry=False)


def job(worker: str, status: str = "PENDING", version: str = APPLICATION_VERSION) -> str:
    """A job that a worker left behind."""
    identity = f"project-7-{uuid.uuid4()}"
    with SetWorkflowID(identity), SetEnqueueOptions(deduplication_id=identity):
        DBOS.enqueue_workflow("nobody-listens", _job, 7)
    from dbos._dbos import _get_dbos_instance

    with _get_dbos_instance()._sys_db.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE workflow_status SET status = :status, executor_id = :worker, "
                "application_version = :version WHERE workflow_uuid = :id"
            ),
            {"status": status, "worker": worker, "version": version, "id": identity},
        )
    return identity


def living() -> list[Any]:
    """The jobs that wait, run or are done."""
    return DBOS.list_workflows(
        status=["ENQUEUED", "PENDING", "SUCCESS"], workflow_id_prefix="project-"
    )


def is_left(identity: str, worker: str) -> bool:
    """Whether the job still waits for that worker."""
    now = DBOS.get_workflow_status(identity)
    assert now is not None
    return now.status == "PENDING" and now.executor_id == worker


def test_the_job_of_a_silent_worker_goes_on(projects, dbos):
    projects.note_worker("other", time.time() - 2 * SILENT_S)
    identity = job("other")
    takeover.take_over(projects, "me")
    assert not is_left(identity, "other")


def test_the_job_of_a_worker_that_nobody_remembers_goes_on(projects, dbos):
    """It was silent for more than a day: no table has it any more."""
    identity = job("other")
    assert "other" not in projects.workers()
    takeover.take_over(projects, "me")
    assert not is_left(identity, "other")


@pytest.mark.parametrize("lives", ["by its lease", "by its heartbeat"])
def test_the_job_of_a_living_worker_is_its_own(projects, dbos, lives):
    if lives == "by its lease":
        projects.lease(lease_of("other"), "other", 60)
    else:  # of a release that knew no leases
        projects.note_worker("other")
    identity = job("other")
    takeover.take_over(projects, "me")
    assert is_left(identity, "other")


def test_a_worker_of_before_can_not_write_once_its_job_was_taken_over(projects, dbos):
    token = projects.lease(lease_of("other"), "other", 0.01)
    before = projects.fenced(Fence(lease_of("other"), token, lost=lambda: None))
    job("other")
    time.sleep(0.05)
    takeover.take_over(projects, "me")
    with pytest.raises(LeaseLost):
        before.folder(7).write("plan.json", {})


@pytest.mark.parametrize(
    ("worker", "status"), [("me", "PENDING"), ("other", "PENDING"), ("other", "ENQUEUED")]
)
def test_a_job_of_an_older_release_is_begun_again(projects, dbos, worker, status):
    identity = job(worker, status, version="after-jobs-0")
    takeover.take_over(projects, "me")
    old = DBOS.get_workflow_status(identity)
    assert old is not None
    assert old.status == "CANCELLED"
    (again,) = living()
    assert again.workflow_id.startswith("project-7-")
    assert again.app_version == APPLICATION_VERSION
    takeover.take_over(projects, "me")
    assert len(living()) == 1


def test_what_waits_for_a_living_worker_of_an_older_release_is_left_to_it(projects, dbos):
    projects.note_worker("other")
    identity = job("other", "ENQUEUED", version="after-jobs-0")
    takeover.take_over(projects, "me")
    now = DBOS.get_workflow_status(identity)
    assert now is not None
    assert now.status == "ENQUEUED"


def test_own_jobs_go_on_undisturbed(projects, dbos):
    identity = job("me")
    takeover.take_over(projects, "me")
    assert is_left(identity, "me")
