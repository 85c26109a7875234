"""What dies, fills up or storms, against a real Label Studio: every round completes once.

After a restart there is one prediction a task, of the newest window, and no label is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import (
    Backend,
    backend,
    label_served,
    open_tasks,
    served_scores,
)

pytestmark = pytest.mark.slow


def answer(task: int) -> str:
    return ("angry", "happy", "neutral", "sad")[task % 4]


@pytest.fixture
def running(label_studio, tmp_path, tiny_backbone, clips) -> Iterator[tuple[Backend, int]]:
    """A backend with a tiny model on a project of eight clips, its bootstrap finished."""
    project = label_studio.project(clips=clips, how="local").id
    with backend(label_studio, tmp_path / "backend", AFTER_BACKBONE=str(tiny_backbone)) as started:
        started.start()
        started.connect(project)
        started.wait_for_round(project, 0)
        yield started, project


def assert_whole(running: Backend, project: int, labelled: int) -> None:
    """Label Studio has the newest window and nothing else of ours: a prediction for every open
    task, by whose scores it serves. It was made of all labels; no round is there twice."""
    server = running.server

    def whole() -> bool:
        version = running.wait_for_order(project)["version"]
        predictions = server.predictions(project)
        tasks = [p["task"] for p in predictions]
        once = len(tasks) == len(set(tasks)) and open_tasks(server, project) <= set(tasks)
        return once and {p["model_version"] for p in predictions} == {version}

    assert len(server.tasks(project)) - len(open_tasks(server, project)) == labelled
    running.wait("one prediction a task, of the window", whole, within_s=120)
    versions = [entry["version"] for entry in running.history(project)]
    assert len(versions) == len(set(versions))
    # A request that Label Studio died of is told; nothing else went wrong.
    errors = running.project_folder(project).errors()
    assert not [error for error in errors if "can't be reached" not in error["message"]]


def wait_for(running: Backend, project: int, stage: str) -> None:
    """Until the job is in this stage, or has ended (a small job's stages are short)."""
    folder = running.project_folder(project)
    rounds = len(running.history(project))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if re.match(stage, folder.read("progress.json", {}).get("stage", "")):
            return
        if len(running.history(project)) > rounds:
            return
        time.sleep(0.01)
    raise AssertionError(f"never in stage {stage}: {running.tail()}")


# --- kill -9 ---


@pytest.mark.parametrize("stage", ["reading audio", "features|pre-training"])
def test_a_worker_killed_in_the_bootstrap(label_studio, tmp_path, tiny_backbone, clips, stage):
    project = label_studio.project(clips=clips, how="local").id
    with backend(label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone)) as running:
        running.start()
        running.connect(project)
        wait_for(running, project, stage)
        running.kill("worker")
        running.start("worker")
        running.wait_for_round(project, 0)
        assert_whole(running, project, 0)


def test_a_worker_killed_while_it_sends_a_window(label_studio, tmp_path, tiny_backbone, clips):
    project = label_studio.project(clips=clips, how="local").id
    with backend(label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone)) as running:
        running.start()
        running.connect(project)
        deadline = time.monotonic() + 240
        while not running.order(project) and time.monotonic() < deadline:
            time.sleep(0.01)
        running.kill("worker")
        running.start("worker")
        running.wait_for_round(project, 0)
        assert_whole(running, project, 0)


@pytest.mark.parametrize("after_s", [0.3, 4.0, 8.0])
def test_a_worker_killed_in_a_round(running, after_s):
    """At the snapshot, in the child's start, in its work; the old model serves meanwhile."""
    backend_, project = running
    served = label_served(backend_.server, project, 4, answer)
    backend_.wait("the round begins", lambda: backend_.busy(project), within_s=60)
    time.sleep(after_s)
    backend_.kill("worker")
    assert backend_.server.next_task(project) not in served
    backend_.start("worker")
    backend_.wait_for_round(project, 1)
    assert_whole(backend_, project, 4)


@pytest.mark.parametrize("stage", ["training", "scoring"])
def test_a_worker_killed_in_a_stage_of_a_round(running, stage):
    backend_, project = running
    label_served(backend_.server, project, 4, answer)
    wait_for(backend_, project, stage)
    backend_.kill("worker")
    backend_.start("worker")
    backend_.wait_for_round(project, 1)
    assert_whole(backend_, project, 4)


def test_a_child_that_the_system_kills_is_told_and_tried_again(running):
    backend_, project = running
    label_served(backend_.server, project, 4, answer)
    wait_for(backend_, project, "training|features|scoring")
    for process in processes(backend_, f"backend.compute round {project} "):
        os.kill(process, signal.SIGKILL)
    told = backend_.wait("the error is shown", lambda: backend_.project_folder(project).errors())
    assert "memory" in told[0]["message"]
    client = {"action": "START_TRAINING", "project": {"id": project}}
    assert httpx.post(f"{backend_.url}/webhook", json=client).is_success
    backend_.wait_for_round(project, 1)
    assert backend_.history(project)[-1]["labelled"] == 4


def test_the_web_process_killed(running):
    """Labels given while it is down are found."""
    backend_, project = running
    backend_.kill("serve")
    label_served(backend_.server, project, 4, answer)
    backend_.wait_for_round(project, 1)
    assert_whole(backend_, project, 4)
    backend_.start("serve")
    assert httpx.get(f"{backend_.url}/status").status_code == 200


def test_label_studio_killed_during_a_round(label_studio, running):
    """The round ends without it; the order follows when it is back."""
    backend_, project = running
    label_served(label_studio, project, 4, answer)
    wait_for(backend_, project, "training|features|scoring")
    label_studio.kill()
    backend_.wait("the round ends", lambda: len(backend_.history(project)) == 2)
    label_studio.start()
    backend_.wait_for_round(project, 1)
    assert_whole(backend_, project, 4)


# --- a full disk ---


def test_a_full_disk_is_told_and_the_old_version_serves(
    label_studio, tmp_path, tiny_backbone, clips
):
    """On a small file system of its own, filled when the round begins."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    project = label_studio.project(clips=clips, how="local").id
    try:
        with backend(
            label_studio, tmp_path / "logs", AFTER_BACKBONE=str(tiny_backbone),
            AFTER_DATA=str(disk / "data"),
        ) as running:  # fmt: skip
            running.data = disk / "data"
            running.start()
            running.connect(project)
            running.wait_for_round(project, 0)
            before = served_scores(label_studio, project)
            fill(disk)
            label_served(label_studio, project, 4, answer)
            errors = running.wait(
                "the error is shown", lambda: running.project_folder(project).errors()
            )
            assert "space" in errors[0]["message"].lower()
            assert running.serving(project) == "after-r00-n0000"
            assert served_scores(label_studio, project) == before
            (disk / "filler").unlink()
            running.stop("worker")
            running.start("worker")
            httpx.post(
                f"{running.url}/webhook",
                json={"action": "START_TRAINING", "project": {"id": project}},
            )
            running.wait_for_round(project, 1)
            assert running.serving(project) != "after-r00-n0000"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def fill(disk: Path) -> None:
    """Leave no block free."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65_536)


# --- storms ---


def test_a_storm_of_events_is_answered_and_leads_to_few_rounds(running):
    backend_, project = running
    label_served(backend_.server, project, 4, answer)
    secret = backend_.projects().get(project).secret
    body = {"action": "ANNOTATION_CREATED", "project": {"id": project}, "task": {"id": 1}}
    took = []

    def send(client: httpx.Client) -> None:
        started = time.perf_counter()
        answered = client.post(
            f"{backend_.url}/webhook", json=body, headers={"X-AFTER-Secret": secret}
        )
        took.append(time.perf_counter() - started)
        assert answered.is_success

    with httpx.Client() as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: send(client), range(1000)))
    backend_.wait_for_round(project, 1)
    time.sleep(3)
    backend_.wait("nothing runs", lambda: not backend_.busy(project))
    assert len(backend_.history(project)) <= 3  # the bootstrap and two rounds
    assert backend_.order(project)["step"] <= 4  # and as many windows, and the first order's
    assert_whole(backend_, project, 4)


def test_labels_given_during_a_round_lead_to_another(running):
    backend_, project = running
    label_served(backend_.server, project, 4, answer)
    wait_for(backend_, project, "training|features|scoring|sending")
    label_served(backend_.server, project, 4, answer)
    backend_.wait_for_round(project, 2)
    assert backend_.history(project)[-1]["labelled"] == 8


def test_two_projects_do_not_disturb_each_other(label_studio, running, clips):
    backend_, first = running
    second = label_studio.project(clips=clips[:6], how="local").id
    backend_.connect(second)
    label_served(label_studio, first, 4, answer)
    backend_.wait_for_round(second, 0)
    backend_.wait_for_round(first, 1)
    assert_whole(backend_, first, 4)
    assert len(served_scores(label_studio, second)) == 6


# --- steps: the order follows every few labels ---


@pytest.fixture
def stepping(label_studio, tmp_path, tiny_backbone, clips) -> Iterator[tuple[Backend, int]]:
    """As `running`, with the default method: a probe, refitted every two labels."""
    project = label_studio.project(clips=clips, how="local").id
    with backend(
        label_studio, tmp_path / "backend", AFTER_BACKBONE=str(tiny_backbone),
        AFTER_PRESET="default", AFTER_STEP_SIZE="2", AFTER_STEP_S="2",
    ) as started:  # fmt: skip
        started.start()
        started.connect(project)
        started.wait_for_round(project, 0)
        yield started, project


def test_every_few_labels_are_followed_by_a_window(stepping):
    backend_, project = stepping
    before = backend_.order(project)["step"]
    label_served(backend_.server, project, 2, answer)
    backend_.wait_for_order(project, labelled=2)
    label_served(backend_.server, project, 1, answer)  # fewer wait for AFTER_STEP_S
    order = backend_.wait_for_order(project, labelled=3)
    assert order["step"] > before + 1
    assert {entry["task"] for entry in order["window"]} == open_tasks(backend_.server, project)
    first = order["window"][0]["task"]
    assert label_served(backend_.server, project, 1, answer) == [first]
    assert_whole(backend_, project, 4)


def test_all_predictions_beside_the_order(stepping):
    """They change no order, and later windows leave them alone."""
    backend_, project = stepping
    label_served(backend_.server, project, 4, answer)
    version = backend_.wait_for_order(project, labelled=4)["version"]
    done = backend_.run("predictions", str(project), "--push")
    assert done.returncode == 0, done.stderr
    assert backend_.served_by(project) == version
    assert "0 of them new" in backend_.run("predictions", str(project), "--push").stderr
    label_served(backend_.server, project, 2, answer)
    version = backend_.wait_for_order(project, labelled=6)["version"]

    def tidy() -> bool:
        found = [p["model_version"] for p in backend_.server.predictions(project)]
        beside = [v for v in found if v.startswith("after-all-s")]
        assert len(beside) == 8
        return set(found) - set(beside) == {version}

    backend_.wait("older windows have gone", tidy, within_s=120)


def test_the_warm_process_killed(stepping):
    """Between steps, and in one: the next step starts it again."""
    backend_, project = stepping
    for labelled in (2, 4):
        for process in processes(backend_, "backend.compute.stepping"):
            os.kill(process, signal.SIGKILL)
        label_served(backend_.server, project, 2, answer)
        if labelled == 4:
            for process in processes(backend_, "backend.compute.stepping"):
                os.kill(process, signal.SIGKILL)
        backend_.wait_for_order(project, labelled)
    assert_whole(backend_, project, 4)


def test_a_worker_killed_between_labels(stepping):
    """Those given while none lives are followed, and its warm process ends with it."""
    backend_, project = stepping
    label_served(backend_.server, project, 2, answer)
    backend_.kill("worker")
    assert len(label_served(backend_.server, project, 2, answer)) == 2
    backend_.wait("no process is left", lambda: not processes(backend_, "backend.compute"))
    backend_.start("worker")
    backend_.wait_for_order(project, labelled=4)
    assert_whole(backend_, project, 4)


def test_label_studio_restarted_between_labels(label_studio, stepping):
    backend_, project = stepping
    label_served(label_studio, project, 1, answer)
    label_studio.kill()
    time.sleep(3)
    label_studio.start()
    label_served(label_studio, project, 2, answer)
    backend_.wait_for_order(project, labelled=3)
    assert_whole(backend_, project, 3)


def test_labels_given_during_a_round_are_followed_by_steps(stepping):
    """However long the round takes: here it stands still."""
    backend_, project = stepping
    label_served(backend_.server, project, 4, answer)
    found = backend_.wait(
        "the round computes", lambda: processes(backend_, f"backend.compute round {project} ")
    )
    os.kill(found[0], signal.SIGSTOP)
    try:
        for labelled in (5, 6):
            label_served(backend_.server, project, 1, answer)
            backend_.wait_for_order(project, labelled)
        assert [entry["labelled"] for entry in backend_.history(project)] == [0]
    finally:
        os.kill(found[0], signal.SIGCONT)
    assert backend_.wait_for_round(project, 1)["labelled"] <= 4
    assert_whole(backend_, project, 6)


def test_a_storm_of_events_leads_to_few_windows(stepping):
    backend_, project = stepping
    secret = backend_.projects().get(project).secret
    before = backend_.order(project)["step"]
    label_served(backend_.server, project, 2, answer)
    body = {"action": "ANNOTATION_UPDATED", "project": {"id": project}, "task": {"id": 1}}
    with httpx.Client(headers={"X-AFTER-Secret": secret}) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: client.post(f"{backend_.url}/webhook", json=body), range(500))
        assert all(answered.is_success for answered in answers)
    backend_.wait_for_order(project, labelled=2)
    time.sleep(5)
    assert backend_.order(project)["step"] <= before + 2
    assert_whole(backend_, project, 2)


def test_when_the_window_runs_out_people_still_get_tasks(
    label_studio, tmp_path, tiny_backbone, clips
):
    """Nobody refills it: Label Studio serves the others in an order of its own; it is said."""
    project = label_studio.project(clips=clips, how="local").id
    with backend(
        label_studio, tmp_path, AFTER_BACKBONE=str(tiny_backbone), AFTER_PRESET="default",
        AFTER_WINDOW="2",
    ) as running:  # fmt: skip
        running.start()
        running.connect(project)
        running.wait_for_round(project, 0)
        assert not running.status(project)["order_ran_out"]
        running.kill("worker")
        assert len(label_served(label_studio, project, 3, answer)) == 3
        assert running.status(project)["order_ran_out"]
        said = running.run("doctor", "--project", str(project)).stdout
        assert "the order has run out" in said
        assert "python -m backend worker" in said
        assert "The order has run out" in httpx.get(running.url).text
        assert len(label_served(label_studio, project, 9, answer)) == 5  # all that are left
        assert not running.status(project)["order_ran_out"]


def processes(running: Backend, command: str) -> list[int]:
    """This backend's processes with such a command."""
    found = []
    listed = subprocess.run(["pgrep", "-f", command], capture_output=True, text=True).stdout
    for process in listed.split():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{process}/environ").read_bytes()
            if str(running.data).encode() in environment:
                found.append(int(process))
    return found
