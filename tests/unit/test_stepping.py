"""The warm process: what it answers, and that it may be killed at any moment."""

from __future__ import annotations

import os
import shutil
import signal
import time

import numpy as np
import pytest
from compute_fixtures import CONTROL, label_of, twelve_tasks

from backend.compute import stepping
from backend.compute.stepping import Stepper
from backend.settings import Settings
from backend.store import scores
from backend.store.projects import Projects, TaskRecord
from backend.worker.warm import StepFailed, WarmProcess


@pytest.fixture
def settings(tmp_path, tiny_backbone):
    return Settings(data=tmp_path, backbone=str(tiny_backbone))


@pytest.fixture
def folder(settings, recordings):
    """Twelve tasks; the audio of task 12 is no audio."""
    return twelve_tasks(settings, recordings)


def request(labels=(), finished=None, **values):
    given = {str(task): [[label_of(task)]] for task in labels}
    return {
        "project": "7", "controls": [CONTROL], "pool": "1", "version": "after-s00001-n0000",
        "labels": {"emotion": given}, "finished": sorted(labels if finished is None else finished),
        "count": 8,
    } | values  # fmt: skip


def tasks_of(answer):
    return [entry["task"] for entry in answer["window"]]


def test_before_any_label_the_start_is_wanted_and_then_anything_readable(settings, folder):
    answer = Stepper(settings).step(request(count=20))
    assert answer["starting"]
    assert sorted(tasks_of(answer)) == list(range(1, 12))
    whys = [entry["why"] for entry in answer["window"]]
    assert whys == sorted(whys, key=["start", "any"].index)
    assert {tuple(entry["probs"]) for entry in answer["window"]} == {()}


def test_with_labels_the_probe_decides_and_speaks_of_all(settings, folder):
    answer = Stepper(settings).step(request(labels=[1, 2, 3, 4], count=20))
    assert not answer["starting"]
    assert sorted(tasks_of(answer)) == [5, 6, 7, 8, 9, 10, 11]
    found = [entry["score"] for entry in answer["window"]]
    assert found == sorted(found)
    said = scores.read(folder.path)
    assert said.version == "after-s00001-n0000"
    assert said.tasks.tolist() == list(range(1, 13))
    assert said.of(12) == {}
    for entry in answer["window"]:
        assert entry["probs"] == said.of(entry["task"])
        assert sum(entry["probs"]["emotion"]) == pytest.approx(1, abs=1e-5)


def test_a_model_is_judged_seldom_and_when_it_must_be(settings, folder, monkeypatch):
    """Judging takes longer than a step does; a page that nobody waits for can wait."""
    monkeypatch.setattr(stepping, "QUALITY_SHARE", 1e-9)  # once, for as long as the test takes
    stepper = Stepper(settings)
    first = stepper.step(request(labels=[1, 2]))
    assert first["judged"]
    second = stepper.step(request(labels=[1, 2, 3, 4]))
    assert not second["judged"]
    assert second["quality"] == first["quality"]
    third = stepper.step(request(labels=[1, 2, 3, 4], judge=True))
    assert third["judged"]
    assert third["quality"]["emotion"]["learnt"] > first["quality"]["emotion"]["learnt"]


def test_what_is_begun_and_not_finished_comes_first(settings, folder):
    """Where several annotators are asked, a task with one answer of two."""
    answer = Stepper(settings).step(request(labels=[1, 2, 3, 4], finished=[1, 2, 3]))
    assert answer["window"][0]["task"] == 4
    assert answer["window"][0]["why"] == "begun"


def test_finished_tasks_are_not_wanted_whoever_finished_them(settings, folder):
    answer = Stepper(settings).step(
        request(labels=[1, 2, 3, 4], finished=[1, 2, 3, 4, 9], count=20)
    )
    assert 9 not in tasks_of(answer)


def test_the_same_request_gets_the_same_answer_from_any_process(settings, folder):
    warm = Stepper(settings)
    warm.step(request(labels=[1, 2]))
    one = warm.step(request(labels=[1, 2, 3, 4]))
    two = Stepper(settings).step(request(labels=[1, 2, 3, 4]))
    assert tasks_of(one) == tasks_of(two)
    assert [e["score"] for e in one["window"]] == pytest.approx([e["score"] for e in two["window"]])


def test_labels_that_are_taken_back_are_forgotten(settings, folder):
    warm = Stepper(settings)
    warm.step(request(labels=[1, 2, 3, 4]))
    assert warm.step(request(labels=[1, 2]))["labelled"] == {"emotion": 2}


def test_new_recordings_are_seen_when_the_pool_is_another(settings, folder):
    warm = Stepper(settings)
    warm.step(request())
    shutil.copy(folder.audio / "1.wav", folder.audio / "13.wav")
    folder.update_tasks({13: TaskRecord({"audio": "u"}, {"audio": "audio/13.wav"})})
    assert 13 not in tasks_of(warm.step(request(count=20)))
    assert 13 in tasks_of(warm.step(request(count=20, pool="2")))


def test_few_projects_stay_open(settings, folder):
    warm = Stepper(settings)
    for number in range(20, 27):
        Projects(settings).folder(number).save_tasks({})
        warm.step(request(count=5) | {"project": str(number)})
    assert len(warm._open) <= 4


@pytest.fixture
def warm(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTER_BACKBONE", str(settings.backbone))
    process = WarmProcess(settings)
    yield process
    process.close()


def test_a_killed_process_is_started_again(warm, folder):
    before = warm.ask(request(labels=[1, 2, 3, 4]))
    os.kill(warm._process.pid, signal.SIGKILL)
    time.sleep(0.2)
    after = warm.ask(request(labels=[1, 2, 3, 4]))
    assert tasks_of(before) == tasks_of(after)
    assert np.isfinite(after["seconds"])


def test_a_request_that_fails_says_why_and_costs_no_process(warm, folder):
    with pytest.raises(StepFailed, match="calm"):
        warm.ask(request() | {"labels": {"emotion": {"1": [["calm"]]}}})
    pid = warm._process.pid
    assert warm.ask(request())["window"]
    assert warm._process.pid == pid


def test_one_that_takes_too_long_is_killed(settings, monkeypatch, folder):
    monkeypatch.setenv("AFTER_BACKBONE", str(settings.backbone))
    hurried = WarmProcess(settings.model_copy(update={"compute_timeout_s": 0.01}))
    with pytest.raises(StepFailed, match="AFTER_COMPUTE_TIMEOUT_S=0"):
        hurried.ask(request())
    assert hurried._process is None
