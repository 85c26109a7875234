"""Answers to /predict for tasks without a stored one."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pytest
import soundfile
from scipy.stats import entropy
from web_fixtures import (
    CONFIG,
    LABELS,
    add_project,
    described,
    entry,
    make_settings,
    order,
    release,
    task,
)

from after_model.active_learning import ActiveLearner  # noqa: F401  (imports torch once)
from after_model.backbone import load as load_backbone
from after_model.classifier import new_classifier
from after_model.classifier.scoring import score
from after_model.labels import LabelSpace
from backend.store import learners
from backend.store.projects import Projects
from backend.web import predicting
from backend.web.predicting import PENDING_VERSION, Predictor, Unanswered, Unusable, confidence

VERSION, MODEL = "after-r01-n0016", "after-r00-n0016"
SCORE = 1 - entropy([0.1, 0.7, 0.1, 0.1]) / np.log(4)


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


@pytest.fixture
def folder(settings, tiny_backbone):
    """A project whose serving release has a model."""
    folder = add_project(settings)
    learner = described()["learner"]
    publish(folder, learner, MODEL, tiny_backbone)
    release(folder, VERSION, {1: entry(0.1, 0.7, 0.1, 0.1)}, {"emotion": [learner, MODEL]})
    return folder


def publish(folder, learner, model, backbone, **metadata):
    classifier = new_classifier(load_backbone(backbone), len(LABELS))
    learners.models(folder, learner).publish(
        model, lambda path: classifier.save(path, LabelSpace(tuple(LABELS))), metadata
    )


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Where every task's audio is from now on."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=8_000) * 0.1, 16_000)
    monkeypatch.setattr(predicting, "_clip", lambda *_: path)
    return path


def predict(settings, tasks, predictor=None, config=CONFIG):
    projects = Projects(settings)
    return (predictor or Predictor(settings)).predict(
        projects.get(1),
        projects.folder(1),
        [(t["id"], t["data"]) for t in tasks],
        config,
    )


def test_a_task_without_a_stored_answer_is_scored(settings, folder, clip):
    stored, computed = predict(settings, [task(1), task(2)])
    assert stored["score"] == pytest.approx(SCORE, abs=1e-6)
    assert computed["model_version"] == VERSION
    assert computed["result"][0]["value"]["choices"][0] in LABELS
    assert 0 <= computed["score"] <= 1


def test_an_answer_is_what_the_library_gives(settings, folder, clip):
    from after_model.audio import Utterance
    from after_model.classifier import EmotionClassifier
    from after_model.features import FeatureStore

    model, _ = EmotionClassifier.load(learners.models(folder, described()["learner"]).path(MODEL))
    store = FeatureStore(clip.parent / "elsewhere", model.backbone)
    probs = score(model, store, [Utterance("x", clip)], device="cpu").probs[0]
    (answer,) = predict(settings, [task(2)])
    assert answer["score"] == pytest.approx(confidence(probs.tolist()), abs=1e-4)
    assert answer["result"][0]["value"]["choices"] == [LABELS[int(probs.argmax())]]


def test_a_new_task_of_a_known_speaker_loses_that_speakers_mean(
    settings, folder, clip, tiny_backbone
):
    """As the probe does where the task is in the pool."""
    from scipy.special import softmax

    learner, shift = described()["learner"], [2.0, -1.0, 0.5, -1.5]
    publish(folder, learner, "known", tiny_backbone, shifts={"anna": shift})
    release(
        folder, "after-r02-n0020", {1: entry(0.1, 0.7, 0.1, 0.1)}, {"emotion": [learner, "known"]}
    )
    predictor = Predictor(settings)
    score_of = partial(predictor._scorer.score, folder, learner, "known", clip)
    plain = score_of(time.monotonic() + 60)
    by_anna = softmax(np.log(plain) - shift)
    assert score_of(time.monotonic() + 60, "anna") == pytest.approx(by_anna, abs=1e-4)
    assert score_of(time.monotonic() + 60, "nobody known") == plain

    Projects(settings).change(1, speaker_key="who")
    tasks = [{"id": 5, "data": {"audio": "u", "who": "anna"}}, {"id": 6, "data": {"audio": "u"}}]
    found = [answer["score"] for answer in predict(settings, tasks, predictor)]
    assert found == pytest.approx([confidence(by_anna), confidence(plain)], abs=1e-4)


def test_an_unreadable_clip_is_empty_last_and_reported(settings, folder, clip):
    clip.write_bytes(b"no audio")
    answers = predict(settings, [task(1), task(2)])
    assert answers[1] == {"model_version": VERSION, "score": 1.0, "result": []}
    assert folder.errors()[0]["where"] == "predict"
    assert "task 2" in folder.errors()[0]["message"]


def test_the_same_clip_is_reported_once(settings, folder, clip):
    clip.write_bytes(b"no audio")
    for _ in range(3):
        predict(settings, [task(2)])
    assert len(folder.errors()) == 1


def test_a_full_disk_costs_no_answer(settings, folder, clip, monkeypatch):
    clip.write_bytes(b"no audio")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backend.store.projects.ProjectFolder.write", full)
    assert len(predict(settings, [task(1), task(2)])) == 2


def test_one_bad_clip_among_others_stops_none(settings, folder, clip, monkeypatch):
    def fetch(_settings, _project, _folder, key, *_):
        if key == 2:
            raise Unusable("404")
        return clip

    monkeypatch.setattr(predicting, "_clip", fetch)
    answers = predict(settings, [task(3), task(2), task(4)])
    assert [bool(a["result"]) for a in answers] == [True, False, True]


def test_while_label_studio_is_away_the_question_stays_open(settings, folder, clip, monkeypatch):
    def away(*_):
        raise Unanswered("Label Studio is away")

    monkeypatch.setattr(predicting, "_clip", away)
    (answer,) = predict(settings, [task(2)])
    assert answer["model_version"] == PENDING_VERSION
    assert folder.errors() == []


def test_tasks_that_there_is_no_time_for_stay_open(settings, folder, clip, monkeypatch):
    monkeypatch.setattr(predicting, "DEADLINE_S", -1.0)
    answers = predict(settings, [task(1), task(2)])
    assert [a["model_version"] for a in answers] == [VERSION, PENDING_VERSION]


def test_a_model_that_is_gone_leaves_the_question_open(settings, folder, clip):
    path = learners.models(folder, described()["learner"]).path(MODEL)
    (path / "head.safetensors").write_bytes(b"damaged")
    (answer,) = predict(settings, [task(2)])
    assert answer["model_version"] == PENDING_VERSION


def test_few_requests_wait_for_a_model_so_that_others_are_answered(
    settings, folder, clip, monkeypatch
):
    predictor = Predictor(settings)
    computing, go_on = threading.Semaphore(0), threading.Event()

    def slow(*_):
        computing.release()
        go_on.wait(20)
        return clip

    monkeypatch.setattr(predicting, "_clip", slow)
    threads = [
        threading.Thread(target=predict, args=(settings, [task(2)], predictor)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert computing.acquire(timeout=20)
    started = time.monotonic()
    answers = predict(settings, [task(1), task(3)], predictor)
    assert time.monotonic() - started < 1
    go_on.set()
    for thread in threads:
        thread.join()
    assert [a["model_version"] for a in answers] == [VERSION, PENDING_VERSION]


def test_only_a_few_models_stay_loaded(settings, folder, clip, tiny_backbone):
    learner = described()["learner"]
    predictor = Predictor(settings)
    for number in range(5):
        publish(folder, learner, f"m{number}", tiny_backbone)
        predictor._scorer.score(folder, learner, f"m{number}", clip, time.monotonic() + 60)
    assert len(predictor._scorer._loaded) == predicting.LOADED_MODELS


def test_answers_follow_the_order(settings, folder):
    """Every step replaces them, and names the version that Label Studio serves by."""
    assert predict(settings, [task(1)])[0]["score"] == pytest.approx(SCORE, abs=1e-6)
    order(folder, "after-s00002-n0020", {1: entry(0.25, 0.25, 0.25, 0.25)})
    (answer,) = predict(settings, [task(1)])
    assert answer["score"] == pytest.approx(0, abs=1e-6)
    assert answer["model_version"] == "after-s00002-n0020"


def test_a_task_is_fetched_from_label_studio_once(settings, folder, clip, monkeypatch):
    from backend.label_studio.audio import file_name

    monkeypatch.undo()  # the real _clip, which finds the file in the cache
    cached = folder.audio / file_name("2-audio", "/data/upload/1/a.wav")
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(clip.read_bytes())
    assert predict(settings, [task(2)])[0]["result"]


def test_a_task_without_audio_in_its_data_is_unreadable(settings, folder):
    (answer,) = predict(settings, [{"id": 2, "data": {}}])
    assert answer == {"model_version": VERSION, "score": 1.0, "result": []}


def test_confidence_is_0_for_a_guess_and_1_for_certainty():
    assert confidence([0.25] * 4) == pytest.approx(0)
    assert confidence([1.0, 0, 0, 0]) == 1
    assert confidence([1.0]) == 1
