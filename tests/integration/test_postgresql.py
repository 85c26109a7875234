"""Web process and worker that share a PostgreSQL and a folder, as on two machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import free_port
from tests.integration.processes import backend, label_served
from tests.integration.test_faults import answer

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
            server.terminate()
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
        assert entry["labelled"] == 4
        assert running.serving(project) == entry["version"]
        workers = running.run("status", "--json")
        assert workers.returncode == 0
