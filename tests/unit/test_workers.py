"""The pool of worker processes: order, failures, deaths, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simulate.runs.execution import Event, Resources, execute
from simulate.runs.plan import Job


@dataclass(frozen=True)
class Task:
    """Stands in for a run's configuration: what the worker is to do."""

    title: str
    action: str = "return"


def act(job: Any, place: Path, listener: Any) -> dict[str, Any]:
    action = job.run.action
    if action == "raise":
        raise RuntimeError("out of luck")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "sleep":
        (place / "pid").write_text(str(os.getpid()))
        time.sleep(60)
    if action == "card":
        time.sleep(0.2)  # so that the other worker takes the other
        return {"card": os.environ.get("CUDA_VISIBLE_DEVICES")}
    if action == "stumble":  # killed the first time, and goes on where it was
        first = place / f"{job.id} was here"
        if not first.exists():
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if action == "threads":
        return {"threads": os.environ["OMP_NUM_THREADS"]}
    listener.stage("training", 1, 2)
    listener.point({"ua": 0.5})
    return {"title": job.run.title}


def job(name: str, action: str = "return", needs: tuple[str, ...] = ()) -> Job:
    return Job("run", name, Task(name, action), needs)  # type: ignore[arg-type]


def events(jobs: list[Job], place: Path, **options: Any) -> list[Event]:
    heard: list[Event] = []
    execute(jobs, act, place, heard.append, resources=Resources(**options))
    return heard


def ends(heard: list[Event]) -> dict[str, str]:
    return {e.job.id: e.kind for e in heard if e.kind in ("finished", "failed")}


def test_a_job_tells_its_stages_points_and_outcome(tmp_path: Path) -> None:
    heard = events([job("a")], tmp_path)
    assert [e.kind for e in heard] == ["started", "stage", "point", "finished"]
    assert heard[-1].content == {"title": "a"}


def test_a_job_waits_for_what_it_needs(tmp_path: Path) -> None:
    heard = events([job("late", needs=("early",)), job("early")], tmp_path, workers=2)
    kinds = [(e.kind, e.job.id) for e in heard]
    assert kinds.index(("finished", "early")) < kinds.index(("started", "late"))


def test_a_failure_costs_that_job_and_those_that_need_it(tmp_path: Path) -> None:
    tapt = job("tapt", "raise")
    middle = job("middle", needs=("tapt",))
    heard = events([tapt, middle, job("last", needs=("middle",)), job("other")], tmp_path)
    assert ends(heard) == {
        "tapt": "failed",
        "middle": "failed",
        "last": "failed",
        "other": "finished",
    }
    told = {e.job.id: e.content["message"] for e in heard if e.kind == "failed"}
    assert told["last"].endswith("tapt failed: RuntimeError: out of luck")


def test_a_killed_worker_costs_its_job_alone(tmp_path: Path) -> None:
    heard = events([job("a", "die"), job("b"), job("c")], tmp_path, retries=0)
    assert ends(heard) == {"a": "failed", "b": "finished", "c": "finished"}
    assert "memory" in next(e.content["message"] for e in heard if e.kind == "failed")


def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute([job("a", "sleep")], act, tmp_path, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import test_workers as t; "
        f"t.events([t.job('a', 'sleep')], Path({str(tmp_path)!r}))"
    )
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    pid = int(wait_for(tmp_path / "pid"))
    parent.kill()
    parent.wait()
    for _ in range(600):
        if not alive(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by 30 s")


def wait_for(path: Path) -> str:
    """The content of a file, as soon as there is some."""
    for _ in range(2_400):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise TimeoutError(f"{path}: nothing within two minutes")


def alive(pid: int) -> bool:
    """Whether it runs: an orphan that has ended may stay a zombie where nobody collects it."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_get_their_number_of_threads_and_this_process_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    heard = events([job("a", "threads")], tmp_path, threads=3)
    assert heard[-1].content == {"threads": "3"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_a_need_that_is_no_job_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nobody"):
        events([job("a", needs=("nobody",))], tmp_path)


def test_a_job_whose_worker_was_killed_is_done_again(tmp_path: Path) -> None:
    heard = events([job("a", "stumble"), job("b", needs=("a",))], tmp_path, retries=1)
    assert [e.kind for e in heard if e.job.id == "a"][:3] == ["started", "again", "started"]
    assert ends(heard) == {"a": "finished", "b": "finished"}


def test_a_job_is_not_done_again_for_ever(tmp_path: Path) -> None:
    heard = events([job("a", "die")], tmp_path, retries=2)
    assert [e.kind for e in heard] == ["started", "again"] * 2 + ["started", "failed"]


def test_a_job_that_raises_is_not_done_again(tmp_path: Path) -> None:
    heard = events([job("a", "raise")], tmp_path, retries=2)
    assert [e.kind for e in heard] == ["started", "failed"]


def test_a_job_that_takes_too_long_is_stopped_and_others_are_not(tmp_path: Path) -> None:
    heard = events([job("a", "sleep"), job("b")], tmp_path, retries=0, limit_s=1.5)
    assert ends(heard) == {"a": "failed", "b": "finished"}
    assert "more than 1.5 s" in next(e.content["message"] for e in heard if e.kind == "failed")
    assert not alive(int((tmp_path / "pid").read_text()))


def test_every_worker_has_a_card_of_its_own(tmp_path: Path) -> None:
    jobs = [job(name, "card") for name in "abcd"]
    heard = events(jobs, tmp_path, workers=2, cards=("3", "5"))
    assert {e.content["card"] for e in heard if e.kind == "finished"} == {"3", "5"}
