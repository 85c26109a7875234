"""ActiveLearner: Algorithm 1 from outside, the same whenever it is opened again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from after_model import acquisition, initialization
from after_model.active_learning import (
    ActiveLearner,
    LearnerConfig,
    RoundRecord,
    competition,
    rounds,
    serving,
)
from after_model.audio import AudioError, Utterance
from after_model.classifier import EmotionClassifier
from after_model.classifier.adapting import AdapterConfig
from after_model.classifier.finetuning import TrainingConfig, evaluate_loss
from after_model.classifier.probe import ProbeConfig
from after_model.classifier.scoring import score
from after_model.labels import LabelSpace
from after_model.tapt import TaptConfig

LABELS = LabelSpace(("hum", "hiss"))
TRAINING = TrainingConfig(
    epochs=2, batch_size=8, min_steps_per_epoch=1, learning_rate=1e-3,
    precision="fp32",
)  # fmt: skip
TAPT = TaptConfig(max_steps=2, batch_seconds=4.0, units=4, precision="fp32", collapse_steps=100)
CONFIG = LearnerConfig.preset(
    "paper", start_share=1 / 3, budget_share=0.75, rounds=2, mc_samples=2, training=TRAINING,
    tapt=None, warm_start="tapt",
)  # fmt: skip
"""Of the 12 recordings of the pool: 4 labels to start with, then 8 (k = floor(9 / 2)), then 9."""
DEFAULT = LearnerConfig(start_share=1 / 3, budget_share=0.75, rounds=2, mc_samples=2)

Make = Callable[..., ActiveLearner]


def label_of(name: str) -> str:
    return LABELS.names[int(name) % 2]


def answers(ids: list[str]) -> dict[str, str]:
    return {name: label_of(name) for name in ids}


def run(learner: ActiveLearner) -> list[list[str]]:
    """All rounds; what was asked for in each."""
    learner.adapt()
    asked = []
    while (wanted := learner.ask()) or learner.stale:
        while wanted:
            asked.append(wanted)
            learner.tell(answers(wanted))
            wanted = learner.ask()
        learner.train()
    return asked


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and an adaptation that the learners of this file share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def make(recordings, tiny_backbone: Path, shared_folder: Path, tmp_path: Path) -> Make:
    """make(config=CONFIG, folder="run", pool=..., **options): a learner on tmp_path / folder."""

    def learner(config: LearnerConfig = CONFIG, folder: str = "run", **options) -> ActiveLearner:
        config = dataclasses.replace(config, backbone=str(tiny_backbone))
        pool = options.pop("pool", recordings[:12])
        options.setdefault("store_folder", shared_folder / "features")
        options.setdefault("tapt_folder", shared_folder / "tapt")
        return ActiveLearner(pool, LABELS, config, tmp_path / folder, **options)

    return learner


@pytest.fixture
def validation(recordings):
    return recordings[12:], [label_of(u.id) for u in recordings[12:]]


def changed(**options) -> LearnerConfig:
    return dataclasses.replace(CONFIG, **options)


# --- schedule ---

SHARES = st.floats(0, 1.5)


@given(st.integers(1, 3_000), SHARES, SHARES, st.integers(1, 20))
def test_a_schedule_grows_within_the_pool(pool, start_share, budget_share, rounds):
    config = LearnerConfig(start_share=start_share, budget_share=budget_share, rounds=rounds)
    schedule = config.schedule(pool)
    assert schedule[0] >= 1
    assert schedule[-1] <= pool
    assert all(a < b for a, b in pairwise(schedule))


@given(st.integers(1, 3_000), SHARES, SHARES, st.integers(1, 20))
def test_a_schedule_ends_at_the_budget(pool, start_share, budget_share, rounds):
    """Up to what the rounding of k leaves over, which is less than a label a round."""
    config = LearnerConfig(start_share=start_share, budget_share=budget_share, rounds=rounds)
    schedule = config.schedule(pool)
    budget = min(pool, math.floor(budget_share * pool + 1e-9))
    assert schedule[-1] <= max(schedule[0], budget)
    assert budget - schedule[-1] < rounds


@given(st.integers(1, 3_000), SHARES, st.floats(0, 1), st.integers(1, 20))
def test_each_round_asks_for_k(pool, start_share, budget_share, rounds):
    """k = floor(N_s / tau), section 3.3 of Li et al. 2024; the last for no more than is left."""
    config = LearnerConfig(start_share=start_share, budget_share=budget_share, rounds=rounds)
    schedule = config.schedule(pool)
    k = max(1, math.floor(budget_share * pool + 1e-9) // rounds)
    steps = [b - a for a, b in pairwise(schedule)]
    assert len(steps) <= rounds
    assert all(step == k for step in steps[:-1])
    assert all(step <= k for step in steps[-1:])


@given(st.integers(1, 3_000), st.lists(st.floats(0, 1.2), min_size=1, max_size=8))
def test_a_schedule_by_shares_ends_at_the_largest(pool, shares):
    schedule = LearnerConfig(shares=tuple(sorted(shares))).schedule(pool)
    assert all(a < b for a, b in pairwise(schedule))
    assert schedule[-1] == max(schedule[0], min(pool, math.floor(max(shares) * pool + 1e-9)))


def test_the_papers_schedule_for_iemocap():
    assert LearnerConfig.preset("paper").schedule(4_446) == [44, 221, 398, 575, 752, 889]


def test_a_share_of_a_hundred_is_its_percentage():
    """0.29 * 100 is 28.999999999999996 in floating point."""
    shares = tuple(percent / 100 for percent in range(1, 101))
    assert LearnerConfig(shares=shares).schedule(100) == list(range(1, 101))


def test_the_start_has_two_recordings_per_class_where_1_percent_is_fewer():
    assert LearnerConfig().schedule(400, classes=7)[0] == 14
    assert LearnerConfig().schedule(2_000, classes=7)[0] == 20


def test_the_papers_start_is_the_share_alone():
    assert LearnerConfig.preset("paper").schedule(400, classes=7)[0] == 4


def test_a_start_for_every_class_leaves_half_the_budget_to_the_strategy():
    assert LearnerConfig().schedule(50, classes=7) == [5, 7, 9, 10]


def test_the_learner_starts_with_recordings_for_every_class(make, monkeypatch):
    monkeypatch.setattr(initialization, "least", lambda *_: 1)  # clusters may ask for more
    learner = make(changed(start_share=0.01, start_per_class=2))
    assert len(learner.ask()) == 2 * len(LABELS)


@pytest.mark.parametrize(("size", "expected"), [(0, [0]), (1, [1]), (2, [1])])
def test_the_schedule_of_hardly_any_pool(size, expected):
    assert LearnerConfig().schedule(size) == expected


# --- rounds ---


def test_rounds_follow_the_schedule(make):
    learner = make()
    asked = run(learner)
    assert [len(ids) for ids in asked] == [4, 4, 1]
    assert [r.labelled for r in learner.curve] == CONFIG.schedule(12) == [4, 8, 9]
    assert [r.share for r in learner.curve] == [4 / 12, 8 / 12, 9 / 12]
    assert [r.round for r in learner.curve] == [0, 1, 2]


def test_nothing_is_asked_for_twice(make):
    asked = [name for ids in run(make()) for name in ids]
    assert len(set(asked)) == len(asked) == 9


def test_rounds_follow_explicit_shares(make):
    learner = make(changed(shares=(0.5, 1.0)))
    assert [len(ids) for ids in run(learner)] == [4, 2, 6]


def test_a_budget_above_the_pool_ends_with_the_pool(make):
    learner = make(changed(budget_share=3.0))
    assert sorted(name for ids in run(learner) for name in ids) == sorted(
        f"{i:02d}" for i in range(12)
    )
    assert learner.ask() == []


def test_a_pool_of_one(make, recordings):
    learner = make(pool=recordings[:1])
    assert run(learner) == [["00"]]
    assert learner.advice().stop


def test_an_empty_pool_asks_for_nothing(make):
    learner = make(pool=[])
    assert run(learner) == []
    assert learner.curve == []


def test_what_is_asked_stays_until_it_is_told(make):
    learner = make()
    first = learner.ask()
    assert learner.ask() == first
    learner.tell(answers(first[:1]))
    assert learner.ask() == first[1:]
    learner.tell(answers(first[1:]))
    assert learner.ask() == []
    assert learner.stale


def test_after_training_the_next_round_is_asked(make):
    learner = make()
    first = learner.ask()
    learner.tell(answers(first))
    learner.train()
    assert not learner.stale
    assert not set(learner.ask()) & set(first)


def test_a_round_may_be_trained_before_all_have_answered(make):
    learner = make()
    first = learner.ask()
    learner.tell(answers(first[:2]))
    assert learner.train().labelled == 2
    assert len(learner.ask()) == 2  # what is missing of the start


def test_labels_that_nobody_asked_for_count(make, recordings):
    learner = make()
    told = [u.id for u in recordings[:5]]
    learner.tell(answers(told))
    learner.train()
    assert list(learner.labelled) == told
    assert len(learner.ask()) == 3  # 5 of 8
    assert not set(learner.ask()) & set(told)


def test_a_later_label_overwrites(make):
    learner = make()
    learner.tell({"00": "hum"})
    learner.tell({"00": "hiss"})
    assert learner.labelled == {"00": [0.0, 1.0]}


def test_labels_may_be_weights_or_votes(make):
    learner = make()
    learner.tell({"00": {"hum": 3, "hiss": 1}, "01": [["hum", "hiss"], "hiss"]})
    assert learner.labelled["00"] == [0.75, 0.25]
    assert learner.labelled["01"] == pytest.approx([1 / 3, 2 / 3])
    assert learner.train().labelled == 2


@pytest.mark.parametrize(
    "bad",
    [{"elsewhere": "hum"}, {"01": "grumble"}, {"01": {"hum": -1}}, {"01": []}, {"14": "hum"}],
)
def test_a_wrong_label_is_an_error_and_nothing_is_recorded(make, bad):
    learner = make()
    with pytest.raises(ValueError, match=r"elsewhere|grumble|hum|votes|14"):
        learner.tell({"00": "hum", **bad})
    assert learner.labelled == {}
    assert make().labelled == {}
    assert not learner.stale


def test_a_class_without_a_label_is_no_obstacle(make):
    learner = make()
    while (wanted := learner.ask()) or learner.stale:
        learner.tell(dict.fromkeys(wanted, "hum"))
        learner.train()
    assert len(learner.curve) == 3


def test_training_without_a_label_is_an_error(make):
    with pytest.raises(ValueError, match="nothing is labelled"):
        make().train()


def test_prediction_before_the_first_round_is_an_error(make, recordings):
    with pytest.raises(ValueError, match=r"no model yet.*train\(\)"):
        make().predict(recordings)


def test_predictions_are_those_of_the_last_round(make, recordings):
    learner = make()
    run(learner)
    scores = learner.predict(recordings[12:])
    published, _ = EmotionClassifier.load(learner.models.path(learner.curve[-1].version))
    assert scores.probs.shape == (4, 2)
    for name, value in published.state_dict().items():
        assert (learner._classifier().state_dict()[name] == value).all(), name


# --- the default preset ---


def test_within_a_round_every_step_follows_all_labels(make):
    """A label for each class at a time: 4 to start with, 8 after two steps, then the last."""
    learner = make(DEFAULT)
    assert [len(ids) for ids in run(learner)] == [4, 2, 2, 1]
    assert [r.labelled for r in learner.curve] == [4, 8, 9]
    assert {r.kept for r in learner.curve} == {"probe"}


def test_a_step_replaces_what_was_asked(make):
    learner = make(DEFAULT)
    learner.tell(answers(learner.ask()))
    found = learner.step(5)
    assert len(found.wanted) == 5
    assert found.labelled == 4
    assert found.probe is not None
    assert learner.ask() == found.wanted
    assert make(DEFAULT).ask() == found.wanted


def test_a_probe_answers_before_the_first_round(make, recordings):
    learner = make(DEFAULT)
    with pytest.raises(ValueError, match="tell"):
        learner.predict(recordings)
    learner.tell(answers([u.id for u in recordings[:6]]))
    probs = learner.predict(recordings[12:]).probs
    assert probs.shape == (4, 2)
    assert np.allclose(probs.sum(axis=1), 1)


def test_a_published_probe_says_what_the_learner_says(make, recordings):
    learner = make(DEFAULT, keep=9)
    run(learner)
    here = learner.predict(recordings[12:]).probs
    published = learner.predict(recordings[12:], learner.curve[0].version)
    classifier, _ = EmotionClassifier.load(learner.models.path(learner.curve[-1].version))
    there = score(classifier, learner.store, recordings[12:]).probs
    assert published.probs.shape == here.shape
    assert np.abs(there - here).max() < 5e-3  # embeddings are kept in half precision


def test_an_unreadable_recording_does_not_stop_a_prediction(make, recordings, broken):
    learner = make(DEFAULT)
    learner.tell(answers([u.id for u in recordings[:6]]))
    scores = learner.predict([recordings[0], broken[0], recordings[1]])
    assert scores.probs.shape == (3, 2)
    assert [error.path for error in scores.skipped] == [broken[0].path]


def test_the_probe_is_the_same_however_often_the_learner_is_opened(make, recordings):
    learner = make(DEFAULT)
    learner.tell(answers([u.id for u in recordings[:6]]))
    expected = learner.predict(recordings).probs
    assert (make(DEFAULT).predict(recordings).probs == expected).all()


COMPETES = dataclasses.replace(
    DEFAULT, fine_tuning="competes", budget_share=1.0, training=TRAINING,
    adapter=AdapterConfig(size=4, epochs=1, alone_epochs=2),
)  # fmt: skip
"""Of the last round's 12 labels a comparison is possible: five a class."""


@pytest.mark.parametrize("adapter", [COMPETES.adapter, None], ids=["adapter", "layers"])
def test_fine_tuning_competes_with_the_probe(make, adapter):
    learner = make(dataclasses.replace(COMPETES, adapter=adapter))
    run(learner)
    assert "Too few labels" in learner.curve[0].reason
    name = "a fine-tuned encoder" if adapter is None else "an adapter"
    assert f"on 12 labels that neither had learnt the loss of {name}" in learner.curve[-1].reason
    assert learner.curve[-1].kept in ("probe", "fine-tuned")


@pytest.fixture
def always_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(competition, "LEAST_GAIN", -math.inf)
    monkeypatch.setattr(competition, "MARGIN", -math.inf)


def test_what_was_kept_serves_and_the_probe_goes_on_asking(make, recordings, always_better):
    learner = make(COMPETES)
    run(learner)
    assert learner.curve[-1].kept == "fine-tuned"
    published, _ = EmotionClassifier.load(learner.models.path(learner.curve[-1].version))
    assert published.adapter is not None
    expected = score(published, learner.store, recordings[12:], device="cpu").probs
    np.testing.assert_array_equal(make(COMPETES).predict(recordings[12:]).probs, expected)
    assert learner.step(1).probe is not None


def test_nothing_competes_with_speakers_means(make, recordings, monkeypatch):
    pool = [dataclasses.replace(u, speaker=f"s{i % 3}") for i, u in enumerate(recordings[:12])]
    settings = functools.partial(ProbeConfig, speaker_margin=-math.inf)
    monkeypatch.setattr(serving, "ProbeConfig", settings)
    learner = make(COMPETES, pool=pool)
    run(learner)
    assert learner._probe().speakers.used
    assert learner.curve[-1].kept == "probe"
    assert "speakers' means" in learner.curve[-1].reason


def test_a_published_model_with_its_shifts_says_of_known_speakers_what_the_probe_says(
    make, recordings, monkeypatch
):
    pool = [dataclasses.replace(u, speaker=f"s{i % 3}") for i, u in enumerate(recordings[:12])]
    settings = functools.partial(ProbeConfig, speaker_margin=-math.inf)
    monkeypatch.setattr(serving, "ProbeConfig", settings)
    learner = make(DEFAULT, pool=pool)
    run(learner)
    version = learner.curve[-1].version
    shifts = learner.models.metadata(version)["shifts"]
    assert set(shifts) == {"s0", "s1", "s2"}
    classifier, _ = EmotionClassifier.load(learner.models.path(version))
    plain = score(classifier, learner.store, pool).probs
    shifted = softmax(np.log(plain) - [shifts[u.speaker] for u in pool], axis=1)
    np.testing.assert_allclose(shifted, learner.predict(pool).probs, atol=1e-3)
    assert np.abs(shifted - plain).max() > 1e-3


def test_the_presets_differ_where_the_paper_says_so():
    paper = LearnerConfig.preset("paper")
    assert (paper.strategy, paper.start, paper.start_per_class) == ("entropy", "kmeans", 0)
    assert (paper.fine_tuning, paper.head, paper.head_start) == ("always", "linear", "random")
    assert (paper.states, paper.warm_start, paper.step_size) == ("last", "previous", "round")
    assert paper.tapt == TaptConfig()
    assert LearnerConfig.preset("default", seed=3) == LearnerConfig(seed=3)
    with pytest.raises(ValueError, match="default, paper"):
        LearnerConfig.preset("fast")


# --- every strategy, every start ---


@pytest.mark.parametrize("base", [CONFIG, DEFAULT], ids=["paper", "default"])
@pytest.mark.parametrize("strategy", acquisition.names())
def test_every_strategy_runs_a_round(make, base, strategy):
    needs_tapt = "surprisal" in acquisition.get(strategy).needs
    config = dataclasses.replace(
        base, strategy=strategy, rounds=1, tapt=TAPT if needs_tapt else None, step_size="round"
    )
    asked = run(make(config))
    assert [len(ids) for ids in asked] == [4, 5]
    assert len({name for ids in asked for name in ids}) == 9


@pytest.mark.parametrize("start", initialization.names())
def test_every_start_begins_a_run(make, start):
    first = make(changed(start=start)).ask()
    assert len(set(first)) == 4


def test_unknown_names_are_errors_that_name_the_known_ones(make):
    with pytest.raises(ValueError, match="entropy"):
        make(changed(strategy="clairvoyance"))
    with pytest.raises(ValueError, match="kmeans"):
        make(changed(start="anywhere"))
    with pytest.raises(ValueError, match=r"'cold'.*(previous.*tapt|tapt.*previous)"):
        make(changed(warm_start="cold"))


def test_a_strategy_that_needs_tapt_says_so_before_anybody_labels(make):
    with pytest.raises(ValueError, match=r"'alps-surprisal'.*needs TAPT"):
        make(changed(strategy="alps-surprisal"))


# --- models ---


@pytest.mark.parametrize("warm_start", ["previous", "tapt"])
def test_both_warm_starts_run(make, warm_start):
    assert len(run(make(changed(warm_start=warm_start)))) == 3


STILL = dataclasses.replace(TRAINING, learning_rate=0.0)


def test_a_round_trains_on_from_the_last_rounds_model(make):
    """Algorithm 1, line 10. A round that learns nothing leaves it as it was."""
    learner = make(changed(warm_start="previous"))
    learner.tell(answers(learner.ask()))
    learner.train()
    before = {k: v.clone() for k, v in learner._classifier().state_dict().items()}
    learner.config = dataclasses.replace(learner.config, training=STILL)
    learner.tell(answers(learner.ask()))
    learner.train()
    after = learner._classifier().state_dict()
    assert all((after[name] == before[name]).all() for name in before)


def test_a_round_may_begin_at_the_adapted_backbone(make):
    learner = make(changed(warm_start="tapt"))
    learner.tell(answers(learner.ask()))
    learner.train()
    learner.config = dataclasses.replace(learner.config, training=STILL)
    learner.tell(answers(learner.ask()))
    learner.train()
    after = learner._classifier().backbone.state_dict()
    fresh = learner.store.backbone.state_dict()
    assert all((after[name] == fresh[name]).all() for name in fresh)


def test_published_models_carry_their_record(make, validation):
    learner = make(validation=validation)
    run(learner)
    record = learner.curve[-1]
    assert learner.models.current() == record.version == "after-r02-n0009"
    metadata = learner.models.metadata(record.version)
    assert {**metadata, **dataclasses.asdict(record)} == metadata
    assert metadata["validation"].keys() == {"ua", "wa", "macro_f1", "ece", "loss"}


def test_a_published_model_can_be_used_without_the_learner(make):
    learner = make()
    run(learner)
    classifier, labels = EmotionClassifier.load(learner.models.path(learner.models.current()))
    assert labels == LABELS
    assert classifier.num_classes == 2


def test_old_models_are_pruned(make):
    learner = make()
    run(learner)
    assert learner.models.versions() == [r.version for r in learner.curve[-2:]]


def test_successive_models_are_compared(make):
    learner = make()
    run(learner)
    assert learner.curve[0].agreement is None
    assert all(-1 <= r.agreement <= 1 for r in learner.curve[1:])


# --- validation ---


def test_a_validation_set_measures_every_round(make, validation):
    learner = make(validation=validation)
    run(learner)
    assert all(0 <= r.validation["ua"] <= 1 for r in learner.curve)


@pytest.fixture
def trained_on(monkeypatch) -> list[tuple[set[str], set[str] | None]]:
    """(ids trained on, ids validated on) of every round."""
    from after_model.active_learning import learner as active_learning

    sets = []
    fit = active_learning.fit

    def watched(classifier, store, train, validation, *args, **options):
        held = None if validation is None else {u.id for u in validation[0]}
        sets.append(({u.id for u in train[0]}, held))
        return fit(classifier, store, train, validation, *args, **options)

    monkeypatch.setattr(active_learning, "fit", watched)
    return sets


def test_a_validation_set_is_not_trained_on(make, validation, trained_on):
    learner = make(validation=validation)
    run(learner)
    for used, held_out in trained_on:
        assert held_out == {"12", "13", "14", "15"}
        assert not used & held_out
    assert trained_on[-1][0] == set(learner.labelled)


def test_without_a_validation_set_given_labels_are_held_out(make, trained_on):
    learner = make(changed(validation_share=0.5, budget_share=1.0))
    run(learner)
    used, held_out = trained_on[-1]
    assert 2 <= len(held_out) < 12
    assert not used & held_out
    assert used | held_out == set(learner.labelled)
    assert learner.curve[-1].validation


def test_what_is_held_out_once_is_held_out_always(make, trained_on):
    run(make(changed(validation_share=0.5, budget_share=1.0)))
    for used, held_out in trained_on:
        assert held_out is None or not used & trained_on[-1][1]


def test_too_few_labels_are_all_trained_on(make, trained_on):
    learner = make(changed(validation_share=0.0))
    run(learner)
    assert trained_on[-1] == (set(learner.labelled), None)
    assert learner.curve[-1].validation == {}


# --- bad recordings ---


@pytest.fixture
def broken(tmp_path: Path) -> list[Utterance]:
    (tmp_path / "text.wav").write_text("not audio")
    return [Utterance("20", tmp_path / "text.wav"), Utterance("21", tmp_path / "missing.wav")]


def test_unreadable_recordings_are_skipped_and_reported(make, recordings, broken):
    learner = make(pool=[broken[0], *recordings[:12], broken[1]])
    asked = run(learner)
    assert [len(ids) for ids in asked] == [4, 4, 1]  # of the 12 that can be read
    assert not {name for ids in asked for name in ids} & {"20", "21"}
    assert [error.path for error in learner.skipped] == [u.path for u in broken]


def test_unreadable_recordings_are_reported_once_after_tapt(make, recordings, broken, validation):
    utterances, labels = validation
    learner = make(
        changed(tapt=TAPT),
        pool=[*broken[:1], *recordings[:12]],
        validation=([*broken[1:], *utterances], ["hum", *labels]),
    )
    learner.adapt()
    assert [error.path for error in learner.skipped] == [u.path for u in broken]


def test_labels_of_unreadable_recordings_do_not_count(make, recordings, broken):
    pool = [*recordings[:12], *broken]
    for learner in (make(pool=pool, folder="a"), make(pool=pool, folder="b")):
        if learner.folder.name == "b":
            learner.ask()  # has looked at the recordings before it is told, or has not
        learner.tell({"20": "hum", "00": "hum"})
        assert learner.train().labelled == 1
        assert list(learner.labelled) == ["00"]


def test_a_recording_that_vanishes_after_it_was_asked_for_blocks_nothing(
    make, recordings, tmp_path
):
    pool = [Utterance(u.id, tmp_path / u.path.name) for u in recordings[:12]]
    for source, copy in zip(recordings, pool, strict=False):
        copy.path.write_bytes(source.path.read_bytes())
    first = make(pool=pool).ask()
    (tmp_path / f"{first[0]}.wav").unlink()
    learner = make(pool=pool)
    assert learner.ask() == first[1:]
    asked = run(learner)
    assert first[0] not in {name for ids in asked for name in ids}
    assert len(learner.labelled) == learner.config.schedule(11)[-1]


def copies(recordings: list[Utterance], folder: Path) -> list[Utterance]:
    """The recordings as files that a test may delete."""
    found = [Utterance(u.id, folder / u.path.name) for u in recordings]
    for source, copy in zip(recordings, found, strict=True):
        copy.path.write_bytes(source.path.read_bytes())
    return found


def test_an_unreadable_recording_is_not_judged_by(make, recordings, broken):
    learner = make(changed(head_start="probe"))
    run(learner)
    classifier = learner._classifier()
    held = [*recordings[12:], broken[0]]
    targets = np.array([[1.0, 0.0], [0.0, 1.0]] * 2 + [[0.0, 1.0]], np.float32)
    expected = rounds.validate(classifier, learner.store, (held[:4], targets[:4]), device="cpu")
    found = rounds.validate(classifier, learner.store, (held, targets), device="cpu")
    assert found == pytest.approx(expected, abs=1e-6)
    assert rounds.validate(classifier, learner.store, (held[4:], targets[4:]), device="cpu") == {}
    alone = evaluate_loss(classifier, learner.store, (held[:4], targets[:4]))
    assert evaluate_loss(classifier, learner.store, (held, targets)) == pytest.approx(alone)
    with pytest.raises(AudioError, match=r"text\.wav"):
        evaluate_loss(classifier, learner.store, (held[4:], targets[4:]))


def test_models_are_not_compared_on_a_recording_that_went(make, recordings, tmp_path):
    (tmp_path / "audio").mkdir()
    held = copies(recordings[12:], tmp_path / "audio")
    names = [label_of(u.id) for u in held]
    learner = make(validation=(held, names), store_folder=tmp_path / "features", keep=9)
    run(learner)
    versions = [record.version for record in learner.curve[:2]]
    classes, (first, second) = learner.held_out(*versions)
    assert classes.shape == (4,)
    assert first.shape == second.shape == (4, 2)
    shutil.rmtree(learner.store.folder)  # else its features would stand for it
    held[1].path.unlink()
    classes, (less, _) = learner.held_out(*versions)
    assert classes.tolist() == [0, 0, 1]
    np.testing.assert_allclose(less, first[[0, 2, 3]], atol=1e-5)


def test_two_recordings_with_one_id_are_an_error(make, recordings):
    with pytest.raises(ValueError, match="same id"):
        make(pool=[recordings[0], dataclasses.replace(recordings[1], id="00")])


# --- TAPT ---


def test_tapt_is_done_once(make):
    stages = []
    config = changed(tapt=TAPT)
    learner = make(config, tapt_folder=None, progress=lambda stage, *_: stages.append(stage))
    learner.adapt()
    assert "tapt" in stages
    assert learner.tapt_seconds > 0
    stages.clear()
    learner.adapt()
    again = make(config, tapt_folder=None, progress=lambda stage, *_: stages.append(stage))
    again.adapt()
    assert "tapt" not in stages
    assert again.tapt_seconds == learner.tapt_seconds


def test_what_is_fine_tuned_is_the_adapted_backbone(make, tiny_backbone):
    from after_model import backbone

    learner = make(changed(tapt=TAPT))
    original = backbone.load(tiny_backbone).state_dict()
    learner.adapt()
    adapted = learner.store.backbone.state_dict()
    assert any((adapted[name] != original[name]).any() for name in original)


def test_a_tapt_that_changes_the_cnn_has_its_own_features(make):
    config = changed(tapt=dataclasses.replace(TAPT, train_cnn=True))
    learner = make(config, tapt_folder=None)
    before = learner.store.folder
    run(learner)
    assert learner.curve[-1].labelled == 9
    assert learner.store.folder != before


# --- the same again ---


def test_the_same_seed_asks_for_the_same(make):
    assert run(make(folder="a")) == run(make(folder="b"))


def test_the_same_seed_makes_the_same_curve(make, validation):
    curves = []
    for folder in ("a", "b"):
        learner = make(folder=folder, validation=validation)
        run(learner)
        curves.append([(r.validation, r.agreement) for r in learner.curve])
    assert curves[0] == curves[1]


def test_another_seed_asks_for_something_else(make):
    config = changed(start="random", strategy="random")
    asked = run(make(config, "a")), run(make(dataclasses.replace(config, seed=1), "b"))
    assert asked[0] != asked[1]


@pytest.mark.parametrize(
    ("strategy", "warm_start", "with_tapt"),
    [
        ("entropy", "previous", False),
        ("batchbald", "tapt", False),
        ("random", "previous", False),
        ("alps-surprisal", "previous", True),
    ],
)
def test_a_learner_opened_again_after_every_call_asks_for_the_same(
    make, validation, strategy, warm_start, with_tapt
):
    config = changed(
        strategy=strategy, warm_start=warm_start, tapt=TAPT if with_tapt else None, rounds=3
    )
    golden = make(config, "golden", validation=validation)
    expected = run(golden)

    def again() -> ActiveLearner:
        return make(config, "interrupted", validation=validation)

    again().adapt()
    asked = []
    while (wanted := again().ask()) or again().stale:
        while wanted:
            asked.append(wanted)
            assert again().ask() == wanted
            for name in wanted:
                again().tell(answers([name]))
            wanted = again().ask()
        again().train()
    assert asked == expected
    assert [plain(r) for r in again().curve] == [plain(r) for r in golden.curve]


def plain(record: RoundRecord) -> dict:
    """A record without its clock."""
    fields = dataclasses.asdict(record)
    return {name: value for name, value in fields.items() if not name.endswith("_seconds")}


def test_a_round_that_was_published_but_not_recorded_is_recorded(make, validation):
    learner = make(validation=validation)
    learner.tell(answers(learner.ask()))
    saved = (learner.folder / "state.json").read_text()
    record = learner.train()
    folder = learner.models.path(record.version)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    (learner.folder / "state.json").write_text(saved)  # as if killed in between
    again = make(validation=validation)
    assert again.ask() == []
    assert again.stale
    assert plain(again.train()) == plain(record)
    assert again.models.versions() == [record.version]
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "config",
    [
        changed(seed=1),
        changed(training=dataclasses.replace(TRAINING, epochs=3)),
        changed(strategy="margin"),
        changed(warm_start="previous", head="statistics"),
        changed(tapt=TAPT),
        DEFAULT,
    ],
)
def test_a_changed_setting_takes_effect_with_the_next_round(make, config):
    learner = make()
    learner.tell(answers(learner.ask()))
    learner.train()
    learner = make(config, tapt_folder=None)
    learner.adapt()
    learner.tell(answers(learner.ask()))
    record = learner.train()
    assert (record.round, record.line) == (1, 1)
    assert learner.predict(learner.given[:1]).probs.shape == (1, 2)


def test_the_same_setting_goes_on_in_its_line(make):
    learner = make()
    run(learner)
    assert {r.line for r in make().curve} == {0}


def test_a_state_of_the_release_before_is_read(make):
    """Its fields are others, and its configuration lacks those that came since."""
    learner = make()
    run(learner)
    state = json.loads((learner.folder / "state.json").read_text())
    old = {name: state[name] for name in ("labels", "pending", "select_seconds", "stale")}
    old["curve"] = [
        {k: v for k, v in r.items() if k not in ("kept", "reason", "line")} for r in state["curve"]
    ]
    config = {k: v for k, v in state["settings"].items() if k not in ("states", "fine_tuning")}
    identity = {"pool": state["pool"], "labels": state["names"], "config": config}
    (learner.folder / "state.json").write_text(json.dumps({"identity": identity, **old}))
    again = make(changed(rounds=3, budget_share=1.0))
    assert again.labelled == learner.labelled
    assert [plain(r) for r in again.curve] == [plain(r) for r in learner.curve]
    again.tell(answers(again.ask()))
    assert again.train().round == 3


def test_a_state_of_a_newer_release_is_refused_by_name(make):
    make().tell({"00": "hum"})
    path = make().folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ValueError, match="newer release"):
        make()


def test_a_published_model_of_other_labels_is_not_taken_over(make):
    """Killed between publishing and recording; then somebody changed a label."""
    learner = make()
    learner.tell(answers(learner.ask()))
    saved = (learner.folder / "state.json").read_text()
    published = learner.train().version
    (learner.folder / "state.json").write_text(saved)
    again = make()
    first = next(iter(again.labelled))
    again.tell({first: "hiss" if label_of(first) == "hum" else "hum"})
    record = again.train()
    assert record.version != published
    assert record.labelled == 4
    assert again.models.current() == record.version


def test_another_pool_on_the_same_folder_is_an_error(make, recordings):
    make().tell({"00": "hum"})
    with pytest.raises(ValueError, match="pool"):
        make(pool=recordings[:11])


def test_other_labels_on_the_same_folder_are_an_error(make, recordings, tmp_path):
    learner = make()
    learner.tell({"00": "hum"})
    with pytest.raises(ValueError, match=r"labels is \['hum', 'hiss'\] there"):
        ActiveLearner(recordings[:12], LabelSpace(("a", "b")), learner.config, learner.folder)


def test_state_is_json_that_a_person_can_read(make):
    learner = make()
    run(learner)
    state = json.loads((learner.folder / "state.json").read_text())
    assert state["labels"] == learner.labelled
    assert state["settings"]["strategy"] == "entropy"
    assert state["pending"] is None


# --- advice ---


def test_advice_before_the_first_round(make):
    advice = make().advice()
    assert not advice.stop
    assert "Too early" in advice.reason


def test_advice_at_the_end_is_to_stop(make):
    learner = make()
    run(learner)
    assert learner.advice().stop


def test_advice_knows_the_validation_curve(make, validation):
    learner = make(changed(rounds=4), validation=validation)
    for _ in range(3):
        learner.tell(answers(learner.ask()))
        learner.train()
    advice = learner.advice()
    assert advice.agreement == pytest.approx(np.mean([r.agreement for r in learner.curve[1:]]))
    assert advice.expected_gain is not None


def test_advice_of_a_learner_opened_again_is_the_same(make, recordings, broken, validation):
    pool = [*recordings[:12], *broken]
    learner = make(pool=pool, validation=validation)
    learner.tell(answers(learner.ask()))
    learner.train()
    assert make(pool=pool, validation=validation).advice() == learner.advice()
