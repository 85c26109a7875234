"""The heavy steps on a project's folder: what they leave on disk, and that they may run twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compute_fixtures import CONTROL, label_of, twelve_tasks
from scipy.stats import entropy

from after_model.audio import probe
from backend.compute import pools
from backend.compute import work as compute
from backend.settings import Settings
from backend.store import scores
from backend.store.projects import FOLLOWS, POOL, ProjectFolder, TaskRecord

START, ROUND = "after-r00-n0000", "after-r01-n0006"
LABELLED = ["1", "2", "3", "4", "5", "6"]


@pytest.fixture
def settings(tmp_path: Path, tiny_backbone: Path) -> Settings:
    return Settings(
        data=tmp_path, backbone=str(tiny_backbone), epochs=1, tapt_epochs=1, start_share=0.2,
        strategy="entropy",
    )  # fmt: skip


@pytest.fixture
def folder(settings: Settings, recordings) -> ProjectFolder:
    """Twelve tasks; the audio of task 12 is no audio."""
    result = twelve_tasks(settings, recordings)
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
    compute.bootstrap(settings, folder, START)
    folder.releases.publish(START, {})
    return folder


def test_a_recording_that_lasts_too_long_is_skipped_and_names_the_command(
    settings: Settings, folder: ProjectFolder
) -> None:
    longest = max(probe(path).duration_s for path in folder.audio.glob("?.wav"))
    compute.bootstrap(settings.model_copy(update={"max_audio_s": longest - 0.01}), folder, START)
    skipped = folder.read("skipped.json", {})
    del skipped["12"]
    assert skipped
    for reason in skipped.values():
        assert reason.endswith("python -m backend cut PROJECT makes utterances of it")


def label(folder: ProjectFolder, keys: list[str]) -> dict[str, list[list[str]]]:
    tasks = folder.tasks()
    folder.save_tasks({k: replace(t, labelled=str(k) in keys) for k, t in tasks.items()})
    return {key: [[label_of(key)]] for key in keys}


@pytest.fixture
def trained(settings: Settings, started: ProjectFolder) -> ProjectFolder:
    snapshot(started, ROUND, label(started, LABELLED))
    compute.round_(settings, started, ROUND)
    return started


def test_steps_follow_the_bootstrap(settings, started):
    """Features and a mark of the pool are there; nothing fixed is followed."""
    assert started.read(POOL, {})["mark"]
    assert started.read(FOLLOWS, None) is None
    assert started.read("plan.json", {})["pool"] == 12


def test_where_every_round_fine_tunes_the_start_is_the_order(settings, folder):
    """The start's recordings first, then all others."""
    paper = settings.model_copy(update={"fine_tuning": "always", "tapt": False})
    compute.bootstrap(paper, folder, START)
    learner = pools.open_learner(
        paper, folder, CONTROL, folder.tasks(), pools.reporter(folder, START)
    )
    wanted = [int(key) for key in learner.ask()]
    said = scores.read(folder.path, scores.FIXED)
    assert said.order[: len(wanted)].tolist() == wanted
    assert sorted(said.order.tolist()) == list(range(1, 12))  # 12 is no audio
    assert folder.read(FOLLOWS, {})["release"] == START


def test_an_unreadable_recording_is_left_out_and_told(started):
    assert list(started.read("skipped.json", {})) == ["12"]
    assert "decode" in started.read("skipped.json", {})["12"]


def test_after_a_probes_round_steps_go_on(trained):
    assert trained.read(f"rounds/{ROUND}/trained.json", {})["emotion"]["kept"] == "probe"
    assert trained.read(FOLLOWS, None) is None


def test_how_good_a_model_was_is_kept_with_its_round(trained):
    """Of six labels no audit tells anything: what is kept says so."""
    quality = trained.read(f"rounds/{ROUND}/trained.json", {})["emotion"]["quality"]
    assert quality["ua"] is None
    assert quality["missing"] > 0
    assert quality["rest"] == 5


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


def add_task(folder: ProjectFolder) -> None:
    shutil.copy(folder.audio / "1.wav", folder.audio / "13.wav")
    folder.update_tasks({13: TaskRecord({"audio": "u"}, {"audio": "audio/13.wav"})})


def test_new_tasks_make_another_pool(settings, trained):
    release(trained)
    before = trained.read(POOL, {})["mark"]
    add_task(trained)
    compute.extend(settings, trained, ROUND)
    assert trained.read(POOL, {})["mark"] != before
    assert trained.read("plan.json", {})["pool"] == 13


@pytest.fixture
def paper(settings: Settings, folder: ProjectFolder) -> tuple[Settings, ProjectFolder]:
    """A round that fine-tuned: its scores are the order until the next one."""
    settings = settings.model_copy(update={"fine_tuning": "always", "tapt": False})
    compute.bootstrap(settings, folder, START)
    folder.releases.publish(START, {})
    snapshot(folder, ROUND, label(folder, LABELLED))
    compute.round_(settings, folder, ROUND)
    return settings, folder


def test_a_fine_tuned_models_scores_are_followed(paper):
    _, folder = paper
    assert folder.read(FOLLOWS, {})["release"] == ROUND
    said = scores.read(folder.path, scores.FIXED)
    assert said.tasks.tolist() == list(range(1, 13))
    assert said.of(12) == {}
    for task in range(1, 12):
        expected = 1 - entropy(said.of(task)["emotion"]) / np.log(2)
        assert said.confidence()[task - 1] == pytest.approx(expected, abs=1e-4)


def test_new_tasks_join_a_fixed_order_with_scores_of_their_own(paper):
    settings, folder = paper
    release(folder)
    before = scores.read(folder.path, scores.FIXED)
    add_task(folder)
    compute.extend(settings, folder, ROUND)
    after = scores.read(folder.path, scores.FIXED)
    np.testing.assert_array_equal(after.probs["emotion"][:12], before.probs["emotion"])
    assert sum(after.of(13)["emotion"]) == pytest.approx(1, abs=1e-4)


def test_new_tasks_before_the_first_round_come_after_the_start(settings, folder):
    settings = settings.model_copy(update={"fine_tuning": "always", "tapt": False})
    compute.bootstrap(settings, folder, START)
    folder.releases.publish(START, {})
    before = scores.read(folder.path, scores.FIXED).order.tolist()
    add_task(folder)
    compute.extend(settings, folder, START)
    assert scores.read(folder.path, scores.FIXED).order.tolist() == [*before, 13]


def test_going_back_follows_the_older_model(settings, trained):
    release(trained)
    compute.rescore(settings, trained, ROUND)
    assert trained.read(FOLLOWS, {})["release"] == ROUND
    said = scores.read(trained.path, scores.FIXED)
    learner = pools.open_learner(
        settings, trained, CONTROL, trained.tasks(), pools.reporter(trained, ROUND)
    )
    expected = learner.predict(learner.given[:11], learner.curve[0].version).probs
    np.testing.assert_allclose(said.probs["emotion"][:11], expected, atol=1e-6)


@pytest.mark.parametrize("strategy", ["margin", "batchbald", "cluster-entropy"])
def test_a_strategys_own_choice_comes_first(settings, folder, strategy):
    settings = settings.model_copy(
        update={"strategy": strategy, "round_size": 2, "fine_tuning": "always", "tapt": False}
    )
    compute.bootstrap(settings, folder, START)
    snapshot(folder, ROUND, label(folder, LABELLED))
    compute.round_(settings, folder, ROUND)
    said = scores.read(folder.path, scores.FIXED)
    assert 0 < len(said.order) <= 4
    assert not set(said.order.tolist()) & {int(key) for key in LABELLED}
    assert said.ranked()[: len(said.order)] == said.order.tolist()


def test_two_controls_have_a_learner_each(settings, started):
    other = CONTROL | {"name": "arousal", "labels": ["low", "high"], "learner": "arousal-1"}
    keys = label(started, LABELLED)
    content = {
        "controls": [CONTROL, other],
        "labels": {"emotion": keys, "arousal": {"1": [["low"]], "2": [["high"]]}},
        "trained": {},
    }
    started.write(f"rounds/{ROUND}/snapshot.json", content)
    results = compute.train(settings, started, ROUND)
    assert {name: result["labelled"] for name, result in results.items()} == {
        "emotion": 6, "arousal": 2,
    }  # fmt: skip


def release(folder: ProjectFolder) -> None:
    folder.releases.publish(ROUND, folder.round_models(ROUND))


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
    content = folder.read("progress.json", {})
    assert (content["stage"], content["done"], content["total"]) == ("scoring", 1, 2)


def test_a_stage_begins_when_the_one_before_ended(folder):
    """Its first report comes after its first part: the time left would be nothing."""
    report = pools.reporter(folder, START)
    time.sleep(0.05)
    report("training", 1, 20)
    content = folder.read("progress.json", {})
    assert content["updated"] - content["started"] >= 0.05
