"""What dies, fills up or storms, against a real Label Studio: every round completes once.

After a restart there is one prediction a task, of the version that serves, and no label is lost.
"""

from __future__ import annotations

import contextlib
import json
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

from tests.integration.processes import Backend, backend, label_served, served_scores

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
    """One prediction for every unlabelled task, all of the version that serves; one history."""
    server = running.server
    version = running.serving(project)
    predictions = server.predictions(project)
    assert {p["model_version"] for p in predictions} == {version}
    tasks = [p["task"] for p in predictions]
    assert len(tasks) == len(set(tasks)) == 8 - labelled
    versions = [entry["version"] for entry in running.history(project)]
    assert len(versions) == len(set(versions))
    assert running.history(project)[-1]["labelled"] == labelled
    assert not running.project_folder(project).errors()


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


@pytest.mark.parametrize("stage", ["reading audio", "features|pre-training", "sending"])
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


@pytest.mark.parametrize("after_s", [0.3, 4.0, 8.0])
def test_a_worker_killed_in_a_round(running, after_s):
    """At the snapshot, in the child's start, in its work; the old model serves meanwhile."""
    backend_, project = running
    served = label_served(backend_.server, project, 4, answer)
    backend_.wait("the round begins", lambda: backend_.busy(project), within_s=60)
    time.sleep(after_s)
    backend_.kill("worker")
    if not backend_.history(project)[-1]["labelled"]:
        assert backend_.serving(project).startswith("after-r0")
        assert backend_.server.next_task(project) not in served
    backend_.start("worker")
    backend_.wait_for_round(project, 1)
    assert_whole(backend_, project, 4)


@pytest.mark.parametrize("stage", ["training", "sending"])
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
    folder = backend_.folder / "data"
    found = subprocess.run(
        ["pgrep", "-f", f"backend.compute round {project} "], capture_output=True, text=True
    ).stdout.split()
    for process in found:
        environment = Path(f"/proc/{process}/environ")
        if str(folder).encode() in environment.read_bytes():
            os.kill(int(process), signal.SIGKILL)
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


def test_label_studio_killed_during_a_push(label_studio, running):
    backend_, project = running
    label_served(label_studio, project, 4, answer)
    wait_for(backend_, project, "sending|training|scoring")
    label_studio.kill()
    backend_.wait(
        "the worker waits",
        lambda: "waiting" in json.dumps(backend_.project_folder(project).read("progress.json", {})),
    )
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
