"""Web process and worker that share a PostgreSQL and a folder, as on two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr

from backend.label_studio.labeling import Control
from backend.settings import Settings
from backend.store.backup import BackupError, backup, restore
from backend.store.engine import Fence, LeaseLost
from backend.store.projects import Project, Projects, TaskRecord
from backend.store.schema import METADATA
from tests.integration.processes import backend, label_served
from tests.integration.test_faults import answer
from tests.integration.web import free_port

pytestmark = pytest.mark.slow

USER = "nobody"  # PostgreSQL refuses to run as root


def _program(name: str) -> str:
    places = [Path(p) for p in os.environ["PATH"].split(":")]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = next((p / name for p in places if (p / name).exists()), None)
    if found is None:
        pytest.skip(f"no {name}: install PostgreSQL (apt-get install postgresql)")
    return str(found)


@pytest.fixture
def database(tmp_path_factory) -> Iterator[str]:
    """The address of an empty PostgreSQL on loopback."""
    initdb, postgres = _program("initdb"), _program("postgres")
    folder = Path("/tmp") / f"after-postgresql-{os.getpid()}"
    folder.mkdir(mode=0o700)
    become: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        become = ["setpriv", f"--reuid={USER}", "--clear-groups"]
    port = free_port()
    data = folder / "data"
    try:
        made = subprocess.run(
            [*become, initdb, "-D", str(data), "-U", "after", "-A", "trust", "-N"],
            capture_output=True, text=True, cwd=folder,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        server = subprocess.Popen(
            [*become, postgres, "-D", str(data), "-p", str(port), "-k", str(folder),
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_until_up(port)
            yield f"postgresql://after@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # which doesn't wait for open connections
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(port: int) -> None:
    import psycopg

    for _ in range(150):
        try:
            psycopg.connect(f"postgresql://after@127.0.0.1:{port}/postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.2)
    raise AssertionError("PostgreSQL did not start")


def test_the_store_keeps_everything_in_postgresql(database, tmp_path):
    """What SQLite's tests say, where the other database might answer otherwise."""
    settings = Settings(data=tmp_path / "data", database_url=SecretStr(database))
    with ThreadPoolExecutor(4) as threads:  # they all find an empty database
        projects, *_ = threads.map(lambda _: Projects(settings), range(4))
    with projects.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    projects.save(Project(id=7, url="http://label-studio", api_key="k", secret="s"))
    folder = projects.folder(7)
    tasks = {key: TaskRecord({"audio": f"/{key}.wav"}, {}) for key in range(1, 2_000)}
    folder.save_tasks(tasks)
    folder.save_tasks(tasks | {3: replace(tasks[3], error="404")})
    folder.remove_tasks([2_000, 1])
    assert len(folder.tasks()) == folder.task_count() == 1_998
    assert folder.unusable() == {3: "404"}
    folder.save_controls([Control("emotion", "audio", "audio", ("joy", "anger"), False)])
    chosen = [{"from_name": "emotion", "value": {"choices": ["joy"]}}]
    given = {key: [{"id": key, "completed_by": 1, "result": chosen}] for key in (5, 6)}
    assert folder.save_all_labels(given) == {5, 6}
    folder.save_labels_of({6: []})
    assert folder.labels() == {"emotion": {"5": [["joy"]]}}
    folder.write("plan.json", {"odd": [float("inf"), "\0"]})
    assert folder.read("plan.json", {}) == {"odd": [float("inf"), "\0"]}
    folder.releases.publish("after-r01-n0004", {"emotion": ("e", "m")})
    folder.add_history({"version": "after-r01-n0004"})
    folder.note_error("round", "out of memory")
    folder.note_error("round", "out of memory")
    assert folder.errors()[0]["times"] == 2
    folder.forget_rounds()

    archive = tmp_path / "backup.tar.gz"
    backup(settings, archive)
    alone = Settings(data=tmp_path / "sqlite")
    restore(alone, archive)  # into SQLite
    assert Projects(alone).folder(7).tasks() == folder.tasks()
    backup(alone, archive)
    with pytest.raises(BackupError, match="--force"):
        restore(settings, archive)
    folder.remove_tasks(range(2_000))
    restore(settings, archive, force=True)  # and back
    assert len(folder.tasks()) == 1_998
    assert folder.labels() == {"emotion": {"5": [["joy"]]}}
    assert folder.releases.current() == "after-r01-n0004"
    folder.note_error("round", "numbers go on")


def test_one_of_many_gets_a_lease_in_postgresql(database, tmp_path):
    projects = Projects(Settings(data=tmp_path, database_url=SecretStr(database)))
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda n: projects.lease("device", str(n), 60), range(40)))
    (token,) = [token for token in given if token is not None]
    fenced = projects.fenced(Fence("device", token, lost=lambda: None)).folder(7)
    fenced.write("plan.json", {})
    projects.release("device", token)
    assert projects.lease("device", "another", 60) == token + 1
    with pytest.raises(LeaseLost):
        fenced.write("plan.json", {})


def test_two_workers_share_the_work(label_studio, tmp_path, tiny_backbone, clips, database):
    """One is killed in its job; the other, of another name, takes it over when it is silent."""
    project = label_studio.project(clips=clips[:6], how="local").id
    with backend(
        label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone), AFTER_DATABASE_URL=database
    ) as running:
        running.start()
        running.connect(project)
        running.wait_for_round(project, 0)
        label_served(label_studio, project, 4, answer)
        running.wait("a round runs", lambda: running.busy(project))
        running.kill("worker")
        assert not (running.data / "after.sqlite").exists()
        running.environment["AFTER_WORKER_NAME"] = "another-machine"
        running.start("worker")
        entry = running.wait_for_round(project, 1)
        assert 1 <= entry["labelled"] <= 4  # it begins with the first of them
        assert running.serving(project) == entry["version"]
        workers = running.run("status", "--json")
        assert workers.returncode == 0
