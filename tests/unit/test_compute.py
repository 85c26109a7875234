"""The heavy steps on a project's folder: what they leave on disk, and that they may run twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import entropy

from backend.compute import pools
from backend.compute import work as compute
from backend.settings import Settings
from backend.store.projects import ProjectFolder, TaskRecord

CONTROL = {
    "name": "emotion", "to_name": "audio", "audio_key": "audio",
    "labels": ["hum", "hiss"], "multiple": False, "learner": "emotion-1",
}  # fmt: skip
START, ROUND = "after-r00-n0000", "after-r01-n0006"
LABELLED = ["1", "2", "3", "4", "5", "6"]


def label_of(task: str) -> str:
    return "hum" if int(task) % 2 else "hiss"


@pytest.fixture
def settings(tmp_path: Path, tiny_backbone: Path) -> Settings:
    return Settings(
        data=tmp_path, backbone=str(tiny_backbone), epochs=1, tapt_epochs=1, start_share=0.2,
        strategy="entropy",
    )  # fmt: skip


@pytest.fixture
def folder(settings: Settings, recordings) -> ProjectFolder:
    """Twelve tasks; the audio of task 12 is no audio."""
    result = ProjectFolder(settings.projects_folder / "7")
    result.audio.mkdir(parents=True)
    tasks = {}
    for number, utterance in enumerate(recordings[:12], start=1):
        shutil.copy(utterance.path, result.audio / f"{number}.wav")
        tasks[number] = TaskRecord({"audio": "u"}, {"audio": f"audio/{number}.wav"})
    (result.audio / "12.wav").write_bytes(b"no audio")
    result.save_tasks(tasks)
    snapshot(result, START, {})
    return result


def snapshot(folder: ProjectFolder, version: str, labels: dict, trained: int = 0) -> None:
    content = {
        "controls": [CONTROL],
        "labels": {"emotion": labels},
        "trained": {"emotion": trained},
    }
    folder.write(f"rounds/{version}/snapshot.json", content)


@pytest.fixture
def started(settings: Settings, folder: ProjectFolder) -> ProjectFolder:
    compute.adapt(settings, folder, START)
    compute.order(settings, folder, START)
    folder.releases.publish(START, lambda _: None, {"models": {}})
    return folder


def label(folder: ProjectFolder, keys: list[str]) -> dict[str, list[list[str]]]:
    tasks = folder.tasks()
    folder.save_tasks({k: replace(t, labelled=str(k) in keys) for k, t in tasks.items()})
    return {key: [[label_of(key)]] for key in keys}


@pytest.fixture
def trained(settings: Settings, started: ProjectFolder) -> ProjectFolder:
    snapshot(started, ROUND, label(started, LABELLED))
    compute.train(settings, started, ROUND)
    compute.score(settings, started, ROUND)
    return started


def test_the_start_orders_every_readable_task(started):
    tasks = started.predictions(START)["tasks"]
    assert sorted(map(int, tasks)) == list(range(1, 12))
    scores = [entry["score"] for entry in tasks.values()]
    assert scores == sorted(scores)
    assert len(set(scores)) == 11
    assert min(scores) >= 0
    assert max(scores) < 1


def test_the_starts_own_recordings_come_first(settings, started):
    learner = pools.open_learner(
        settings, started, CONTROL, started.tasks(), pools.reporter(started, START)
    )
    wanted = learner.ask()
    assert list(started.predictions(START)["tasks"])[: len(wanted)] == wanted
    assert started.read("plan.json", {})["start"] == len(wanted)


def test_an_unreadable_recording_is_left_out_and_told(started):
    assert list(started.read("skipped.json", {})) == ["12"]
    assert "decode" in started.read("skipped.json", {})["12"]


def test_scores_are_one_minus_normalised_entropy(trained):
    """Against SciPy's entropy."""
    for entry in trained.predictions(ROUND)["tasks"].values():
        expected = 1 - entropy(entry["probs"]["emotion"]) / np.log(2)
        assert entry["score"] == pytest.approx(expected, abs=1e-4)


def test_only_the_unlabelled_are_scored(trained):
    assert sorted(map(int, trained.predictions(ROUND)["tasks"])) == [7, 8, 9, 10, 11]


def test_training_twice_trains_once(settings, trained):
    """As after a kill between the training and the record of its step."""
    before = trained.read(f"rounds/{ROUND}/trained.json", {})
    compute.train(settings, trained, ROUND)
    assert trained.read(f"rounds/{ROUND}/trained.json", {}) == before


def test_labels_that_were_taken_back_are_forgotten(settings, trained):
    snapshot(trained, "after-r02-n0003", {k: [[label_of(k)]] for k in LABELLED[:3]}, trained=1)
    compute.train(settings, trained, "after-r02-n0003")
    assert trained.read("rounds/after-r02-n0003/trained.json", {})["emotion"]["labelled"] == 3


def test_votes_that_disagree_become_a_soft_label(settings, started):
    snapshot(started, ROUND, {"1": [["hum"], ["hiss"], ["hum"]], "2": [["hiss"]]})
    compute.train(settings, started, ROUND)
    learner = pools.open_learner(
        settings, started, CONTROL, started.tasks(), pools.reporter(started, ROUND)
    )
    assert learner.labelled["1"] == pytest.approx([2 / 3, 1 / 3])


def test_who_speaks_reaches_the_learner_and_what_it_says_of_it_is_kept(settings, started):
    tasks = started.tasks()
    started.save_tasks({k: replace(t, speaker=f"spk{k % 3}") for k, t in tasks.items()})
    snapshot(started, ROUND, label(started, LABELLED))
    compute.train(settings, started, ROUND)
    learner = pools.open_learner(
        settings, started, CONTROL, started.tasks(), pools.reporter(started, ROUND)
    )
    assert {u.id: u.speaker for u in learner.given} == {str(k): f"spk{k % 3}" for k in tasks}
    report = started.read(f"rounds/{ROUND}/trained.json", {})["emotion"]["speakers"]
    assert report["used"] == (learner.serving.probe(learner.labelled).speakers.used)
    assert {"with_ua", "without_ua"} <= set(report)


def test_nothing_is_said_of_speakers_where_none_is_known(trained):
    assert trained.read(f"rounds/{ROUND}/trained.json", {})["emotion"]["speakers"] == {}


def test_new_tasks_get_scores_without_a_round(settings, trained):
    release(trained)
    shutil.copy(trained.audio / "1.wav", trained.audio / "13.wav")
    new = TaskRecord({"audio": "u"}, {"audio": "audio/13.wav"})
    before = trained.predictions(ROUND)["tasks"]
    trained.save_tasks(trained.tasks() | {13: new})
    compute.extend(settings, trained, ROUND)
    after = trained.predictions(ROUND)["tasks"]
    assert set(after) - set(before) == {"13"}
    assert {key: after[key] for key in before} == before
    assert sum(after["13"]["probs"]["emotion"]) == pytest.approx(1, abs=1e-4)


def test_new_tasks_before_the_first_round_come_after_the_start(settings, started):
    shutil.copy(started.audio / "1.wav", started.audio / "13.wav")
    started.save_tasks(
        started.tasks() | {13: TaskRecord({"audio": "u"}, {"audio": "audio/13.wav"})}
    )
    compute.extend(settings, started, START)
    tasks = started.predictions(START)["tasks"]
    start = list(tasks)[: started.read("plan.json", {})["start"]]
    assert tasks["13"]["score"] > max(tasks[key]["score"] for key in start)


def test_going_back_scores_with_the_older_model(settings, trained):
    release(trained)
    before = trained.predictions(ROUND)["tasks"]
    trained.write(
        f"rounds/{ROUND}/predictions.json", {"version": ROUND, "controls": [CONTROL], "tasks": {}}
    )
    compute.rescore(settings, trained, ROUND)
    assert trained.predictions(ROUND)["tasks"] == before


@pytest.mark.parametrize("strategy", ["margin", "batchbald", "cluster-entropy"])
def test_a_strategys_own_choice_comes_first(settings, started, strategy):
    settings = settings.model_copy(update={"strategy": strategy, "round_size": 2})
    shutil.rmtree(started.learners)  # of another strategy
    snapshot(started, ROUND, label(started, LABELLED))
    compute.train(settings, started, ROUND)
    compute.score(settings, started, ROUND)
    tasks = started.predictions(ROUND)["tasks"]
    assert len(tasks) == 5
    assert all(0 <= entry["score"] <= 1 for entry in tasks.values())
    assert {entry["cluster"] for entry in tasks.values()} == {None}  # the order says it all


def test_two_controls_have_a_learner_each(settings, started):
    other = CONTROL | {"name": "arousal", "labels": ["low", "high"], "learner": "arousal-1"}
    keys = label(started, LABELLED)
    content = {
        "controls": [CONTROL, other],
        "labels": {"emotion": keys, "arousal": {"1": [["low"]], "2": [["high"]]}},
        "trained": {},
    }
    started.write(f"rounds/{ROUND}/snapshot.json", content)
    compute.train(settings, started, ROUND)
    compute.score(settings, started, ROUND)
    entry = started.predictions(ROUND)["tasks"]["9"]
    confidences = [1 - entropy(entry["probs"][name]) / np.log(2) for name in ("emotion", "arousal")]
    assert entry["score"] == pytest.approx(np.mean(confidences), abs=1e-4)


def release(folder: ProjectFolder) -> None:
    folder.releases.publish(ROUND, lambda _: None, {"models": folder.round_models(ROUND)})


def child(settings: Settings, work: str, version: str) -> subprocess.Popen:
    environment = os.environ | {
        "AFTER_DATA": str(settings.data), "AFTER_BACKBONE": str(settings.backbone)
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "backend.compute", work, "7", version],
        stdin=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_a_failure_is_told(settings, folder):
    assert child(settings, "round", "after-r09-n0009").wait() == 1
    assert folder.read("failure.json", {})["message"]


def test_a_child_ends_with_the_worker(settings, folder):
    """Its standard input closes when whoever started it dies."""
    started = child(settings, "bootstrap", START)
    time.sleep(0.2)
    assert started.stdin is not None
    started.stdin.close()
    assert started.wait(timeout=30) == 70


def test_progress_is_readable_while_it_is_written(folder):
    report = pools.reporter(folder, START)
    report("scoring", 1, 2)
    content = json.loads((folder.path / "progress.json").read_text())
    assert (content["stage"], content["done"], content["total"]) == ("scoring", 1, 2)


def test_a_stage_begins_when_the_one_before_ended(folder):
    """Its first report comes after its first part: the time left would be nothing."""
    report = pools.reporter(folder, START)
    time.sleep(0.05)
    report("training", 1, 20)
    content = folder.read("progress.json", {})
    assert content["updated"] - content["started"] >= 0.05
