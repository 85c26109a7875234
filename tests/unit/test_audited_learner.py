"""The learner's audits: drawn at random, counted, held, and what they say of its model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from after_model.active_learning import ActiveLearner, LearnerConfig, audit, drawing, quality
from after_model.labels import LabelSpace

LABELS = LabelSpace(("hum", "hiss"))
AUDITED = LearnerConfig(start_share=1 / 4, budget_share=1.0, rounds=1, audit_share=0.5, step_size=1)
"""Of 12 recordings 3 to start with, then every second an audit."""


@pytest.fixture(autouse=True)
def two_are_enough(monkeypatch):
    """Twelve recordings carry no ten audits."""
    for module in (audit, drawing):
        monkeypatch.setattr(module, "LEAST", 2)
    from after_model.active_learning import learner

    monkeypatch.setattr(learner, "LEAST", 2)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def make(recordings, tiny_backbone: Path, features: Path, tmp_path: Path):
    def learner(config: LearnerConfig = AUDITED, pool=None, **options) -> ActiveLearner:
        config = dataclasses.replace(config, backbone=str(tiny_backbone))
        found = ActiveLearner(
            pool or recordings[:12], LABELS, config, tmp_path / "run", store_folder=features,
            **options,
        )  # fmt: skip
        found.adapt()
        return found

    return learner


def answers(ids) -> dict[str, str]:
    return {name: LABELS.names[int(name) % 2] for name in ids}


def started(learner: ActiveLearner) -> ActiveLearner:
    learner.tell(answers(learner.ask()))
    return learner


def audited(learner: ActiveLearner, labels: int = 8) -> ActiveLearner:
    while len(learner.labelled) < labels:
        learner.tell(answers(learner.step().wanted[:1]))
    return learner


def test_the_start_has_no_audits_and_what_follows_has(make):
    learner = make()
    assert not learner.step().audits
    step = started(learner).step(4)
    assert step.audits
    assert step.audits < set(step.wanted)


def test_audits_are_the_first_in_their_order(make, recordings):
    learner = started(make())
    unlabelled = [u.id for u in recordings[:12] if u.id not in learner.labelled]
    step = learner.step()
    first = [i for i in drawing.order(unlabelled, 0) if i in step.audits or i not in step.wanted]
    assert set(first[: len(step.audits)]) == step.audits


def test_what_is_held_is_counted_and_not_learnt(make):
    learner = audited(make())
    held = learner.labelled.keys() - learner.learnt.keys()
    assert held
    assert len(learner.labelled) == 8
    probe = learner.serving.fit({k: v for k, v in learner.labelled.items() if k not in held})
    assert (learner._probe().weight == probe.weight).all()


def test_held_labels_are_learnt_once_the_budget_is_spent(make):
    learner = audited(make(dataclasses.replace(AUDITED, budget_share=8 / 12)))
    learner.hold(sorted(learner.labelled)[:3])
    assert learner.learnt == learner.labelled
    assert learner.quality().audits == 3


def test_what_the_strategy_wants_next_is_learnt_at_no_cost(make):
    """With everything labelled the strategy can want nothing but what is held."""
    learner = started(make(dataclasses.replace(AUDITED, fine_tuning="competes")))
    learner.tell(answers(set(map("{:02d}".format, range(12))) - learner.labelled.keys()))
    learner._state.audits = sorted(learner.labelled)[:3]
    assert len(learner.learnt) == 9
    assert learner.step().wanted == []
    assert learner.learnt == learner.labelled


def test_without_a_share_nothing_is_drawn(make):
    learner = audited(make(dataclasses.replace(AUDITED, audit_share=0.0)))
    assert learner.learnt == learner.labelled
    assert learner.quality().ua is None


def test_opened_again_it_holds_and_says_the_same(make):
    learner = audited(make())
    again = make()
    assert again.learnt == learner.learnt
    assert again.quality() == learner.quality()
    assert again.step().wanted == learner.step().wanted


def test_audits_labelled_in_another_order_judge_all_the_same(make):
    learner = started(make())
    step = learner.step(6)
    learner.tell(answers(sorted(step.wanted, reverse=True)))
    assert learner.labelled.keys() - learner.learnt.keys() == step.audits


def test_a_label_that_was_not_asked_for_is_learnt(make):
    learner = started(make())
    step = learner.step()
    other = next(n for n in map("{:02d}".format, range(12))
                 if n not in learner.labelled and n not in step.wanted)  # fmt: skip
    learner.tell(answers([other]))
    assert other in learner.learnt


def test_an_audit_whose_label_is_taken_back_is_asked_again(make):
    learner = started(make())
    step = learner.step(6)
    before = dict(answers(learner.labelled))
    learner.relabel(before | answers(step.wanted))
    taken = next(i for i in step.wanted if i in step.audits)
    learner.relabel(before)
    assert taken in learner.step(6).audits


def test_audits_stay_when_the_pool_grows(make, recordings):
    learner = audited(make(open_pool=True))
    held = learner.labelled.keys() - learner.learnt.keys()
    grown = make(pool=recordings, open_pool=True)
    assert grown.labelled.keys() - grown.learnt.keys() == held
    grown.step()
    fewer = make(pool=[u for u in recordings[:12] if u.id not in held], open_pool=True)
    assert fewer.learnt == fewer.labelled


def test_quality_says_what_is_missing_before_there_is_enough(make):
    found = started(make()).quality()
    assert (found.ua, found.accuracy, found.next_point) == (None, None, None)
    assert found.missing == 2
    assert set(found.recalls) == set(LABELS.names)


def test_quality_has_intervals_and_is_of_what_is_not_labelled(make):
    learner = audited(make())
    learner.hold(sorted(learner.labelled)[:3])
    found = learner.quality()
    assert (found.audits, found.learnt, found.rest) == (3, 5, 4)
    for told in (found.ua, found.accuracy):
        assert 0 <= told.low <= told.value <= told.high <= 1
    assert isinstance(found, quality.Quality)
    assert found.next_point is not None


def test_the_advice_names_it(make):
    learner = audited(make(dataclasses.replace(AUDITED, audit_share=0)))
    learner.train()
    learner.tell(answers(learner.step().wanted))
    learner.train()
    learner.tell(answers(learner.step().wanted[:1]))
    learner.train()
    learner.hold(sorted(learner.labelled)[:3])
    assert "audit labels UA on the rest is" in learner.advice().reason


def test_a_state_without_audits_is_read(make):
    learner = audited(make())
    path = learner.folder / "state.json"
    state = json.loads(path.read_text()) | {"version": 2}
    del state["audits"]
    path.write_text(json.dumps(state))
    again = make()
    assert again.learnt == again.labelled == learner.labelled
    assert again.step().wanted


def test_a_share_beyond_a_half_is_refused():
    with pytest.raises(ValueError, match="audit_share"):
        LearnerConfig(audit_share=0.6)
