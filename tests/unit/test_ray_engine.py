"""Ray's engine: the same events and rows as the process pool, and a machine may die."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_workers import ends, job, wait_for

from simulate.runs.execution import Event, Resources
from simulate.runs.plan import Job

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

from simulate.runs import ray_engine  # noqa: E402


def act(job: Any, place: Path, listener: Any) -> dict[str, Any]:
    action = job.run.action
    if action == "raise":
        raise RuntimeError("out of luck")
    if action == "die":
        os._exit(1)
    if action == "sleep":
        time.sleep(60)
    if action == "be slow once":
        first = place / job.id
        if not first.exists():
            first.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(20)
    listener.point({"ua": 0.5})
    return {"title": job.run.title, "threads": os.environ["OMP_NUM_THREADS"]}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes on this machine with a core each; this process is a driver of the first."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.connect()
    found.second = found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


def events(jobs: list[Job], place: Path, **options: Any) -> list[Event]:
    heard: list[Event] = []
    ray_engine.execute(jobs, act, place, heard.append, resources=Resources(**options))
    return heard


def test_jobs_are_done_told_and_fail_as_with_processes(cluster: Any, tmp_path: Path) -> None:
    jobs = [job("a"), job("b", "raise"), job("c", needs=("b",)), job("d", needs=("a",))]
    heard = events([*jobs, job("e", "die")], tmp_path, retries=0)
    assert ends(heard) == {
        "a": "finished", "b": "failed", "c": "failed", "d": "finished", "e": "failed",
    }  # fmt: skip
    told = {e.job.id: e.content for e in heard if e.kind in ("failed", "finished")}
    assert told["b"]["message"] == "RuntimeError: out of luck"
    assert told["c"]["message"] == "b failed: RuntimeError: out of luck"
    assert told["a"] == {"title": "a", "threads": "1"}
    assert [e.kind for e in heard if e.job.id == "a"] == ["started", "point", "finished"]


def test_a_job_that_takes_too_long_is_stopped(cluster: Any, tmp_path: Path) -> None:
    heard = events([job("a", "sleep"), job("b")], tmp_path, retries=0, limit_s=2.0)
    assert ends(heard) == {"a": "failed", "b": "finished"}


def test_jobs_of_a_machine_that_died_are_done_elsewhere(cluster: Any, tmp_path: Path) -> None:
    names = ["a", "b"]  # one on each

    def kill() -> None:
        places = [wait_for(tmp_path / name) for name in names]
        assert cluster.second.node_id in places
        cluster.remove_node(cluster.second, allow_graceful=False)

    watcher = threading.Thread(target=kill)
    watcher.start()
    heard = events([job(name, "be slow once") for name in names], tmp_path, retries=1)
    watcher.join()
    assert ends(heard) == {"a": "finished", "b": "finished"}
    assert [e.kind for e in heard].count("again") == 1


def test_rows_are_those_of_the_process_pool(
    tmp_path: Path, tiny_backbone: Path, write_wav: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_runs
    from test_run_cli import rows_of

    from simulate import run

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    manifest = fake_runs.tiny_corpus(tmp_path, write_wav)
    small = ["--folds", "2", "--shares", "20,50", "--backbone", str(tiny_backbone)]
    small += ["--root", str(manifest), "--workers", "2"]
    for engine in ("local", "ray"):
        assert run.main([*small, "--store", str(tmp_path / engine), "--engine", engine]) == 0
    assert len(rows_of(tmp_path / "local")) == 4
    assert rows_of(tmp_path / "local") == rows_of(tmp_path / "ray")
