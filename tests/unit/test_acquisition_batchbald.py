"""BatchBALD against the definition of mutual information and against batchbald_redux."""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import pytest

from after_model.acquisition import batchbald
from after_model.acquisition.base import top_k
from after_model.acquisition.batchbald import batchbald_scored


def mc_samples(draws: int, utterances: int, classes: int, seed: int, spread: float = 1.0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(1, utterances, classes))
    logits = logits + spread * rng.normal(size=(draws, utterances, classes))
    probs = np.exp(logits)
    return probs / probs.sum(axis=-1, keepdims=True)


def joint_information(probs: np.ndarray, batch: list[int]) -> float:
    """Eq. 8 by its definition: H(y_batch) - H(y_batch | w), over every joint outcome."""
    draws, _, classes = probs.shape
    joint, given = 0.0, 0.0
    for labels in itertools.product(range(classes), repeat=len(batch)):
        each = np.prod([probs[:, n, y] for n, y in zip(batch, labels, strict=True)], axis=0)
        mean = each.mean()
        joint -= mean * np.log(mean) if mean > 0 else 0.0
        given -= np.where(each > 0, each * np.log(np.where(each > 0, each, 1)), 0).sum() / draws
    return joint - given


@pytest.mark.parametrize("seed", range(4))
def test_greedy_choice_and_information_follow_the_definition(seed):
    probs = mc_samples(4, 8, 3, seed)
    chosen, information = batchbald_scored(probs, 4, np.random.default_rng(0))
    batch: list[int] = []
    for pick, value in zip(chosen.tolist(), information, strict=True):
        scores = {n: joint_information(probs, [*batch, n]) for n in set(range(8)) - set(batch)}
        assert pick == max(scores, key=lambda n: scores[n])
        assert value == pytest.approx(scores[pick], abs=1e-10)
        batch.append(pick)


@pytest.mark.parametrize("seed", range(2))
def test_same_batch_and_scores_as_batchbald_redux_where_it_is_exact(seed):
    import torch
    from batchbald_redux import batchbald as redux  # here, since it compiles itself when imported

    probs = mc_samples(6, 40, 4, seed)
    log_probs = torch.from_numpy(np.log(probs).transpose(1, 0, 2).copy())
    expected = redux.get_batchbald_batch(log_probs, 4, 4**4, dtype=torch.double)
    chosen, information = batchbald_scored(probs, 4, np.random.default_rng(0))
    assert chosen.tolist() == expected.indices
    np.testing.assert_allclose(information, expected.scores, atol=1e-6)


def test_sampled_outcomes_estimate_the_exact_information():
    probs = mc_samples(5, 12, 3, seed=1)
    chosen, information = batchbald_scored(
        probs, 5, np.random.default_rng(0), max_outcomes=1, samples=20_000
    )
    exact = [joint_information(probs, chosen[: n + 1].tolist()) for n in range(5)]
    np.testing.assert_allclose(information, exact, atol=0.02)


def test_sampling_finds_nearly_as_good_a_batch_as_summing_all_outcomes():
    probs = mc_samples(5, 30, 3, seed=2)
    exact = joint_information(probs, batchbald(probs, 6, np.random.default_rng(0)).tolist())
    drawn = batchbald(probs, 6, np.random.default_rng(0), max_outcomes=1)
    assert joint_information(probs, drawn.tolist()) > 0.97 * exact


def test_a_copy_of_a_chosen_utterance_is_worth_less_than_a_new_one():
    """What separates BatchBALD from the top k of BALD."""
    halves = np.array([0.9, 0.9, 0.1, 0.1])  # tells the first two models from the last two
    others = np.array([0.85, 0.15, 0.85, 0.15])  # a little less, but something else
    first = np.stack([halves, halves, halves, others], axis=1)
    probs = np.stack([first, 1 - first], axis=2)
    assert batchbald(probs, 2, np.random.default_rng(0)).tolist() == [0, 3]
    own = [joint_information(probs, [n]) for n in range(4)]
    assert top_k(np.array(own), 2).tolist() == [0, 1]


def test_impossible_labels_are_no_obstacle():
    probs = np.random.default_rng(0).integers(0, 3, (4, 20)) == np.arange(3)[:, None, None]
    probs = probs.transpose(1, 2, 0).astype(float)  # one-hot: every joint outcome but few is 0
    for max_outcomes in (10_000, 1):
        chosen, information = batchbald_scored(
            probs, 20, np.random.default_rng(0), max_outcomes=max_outcomes
        )
        assert sorted(chosen.tolist()) == list(range(20))
        assert information[-1] == pytest.approx(np.log(4))  # all four models told apart


def test_when_nothing_adds_information_the_own_information_decides():
    probs = np.array([[[1, 0], [1, 0], [1, 0], [0.9, 0.1]], [[0, 1], [0, 1], [1, 0], [0.1, 0.9]]])
    assert batchbald(probs, 4, np.random.default_rng(0)).tolist() == [0, 1, 3, 2]


def everything_each_time(monkeypatch):
    """Greedy without laziness: every gain anew for every pick."""
    module = sys.modules["after_model.acquisition.batchbald"]

    def all_gains(outcomes, values, per_model, bounds):
        open_ = np.flatnonzero(bounds > -np.inf)
        bounds[open_] = module._gains(outcomes, values[open_], per_model[open_])
        return float(bounds.max())

    monkeypatch.setattr(module, "_raise_best", all_gains)


@pytest.mark.parametrize("seed", range(3))
def test_lazy_gains_choose_what_all_gains_choose(seed, monkeypatch):
    probs = mc_samples(8, 300, 5, seed)
    lazy = batchbald_scored(probs, 12, np.random.default_rng(seed))
    everything_each_time(monkeypatch)
    exact = batchbald_scored(probs, 12, np.random.default_rng(seed))
    np.testing.assert_array_equal(lazy[0], exact[0])
    np.testing.assert_array_equal(lazy[1], exact[1])


def test_few_gains_are_computed_anew(monkeypatch):
    module = sys.modules["after_model.acquisition.batchbald"]
    rows, compute = [], module._gains
    monkeypatch.setattr(module, "_gains", lambda o, v, p: rows.append(len(v)) or compute(o, v, p))
    probs = mc_samples(8, 2_000, 5, 0)
    batchbald(probs, 4, np.random.default_rng(0), limit=2_000)
    assert sum(rows) < 2_000 + 3 * 1_000  # once each, then not half of them for each of the others


def test_the_candidates_are_those_with_most_information_of_their_own():
    probs = mc_samples(6, 2_000, 4, 3)
    exact = batchbald(probs, 6, np.random.default_rng(0), limit=2_000)
    bounded = batchbald(probs, 6, np.random.default_rng(0), limit=400)
    assert len(set(exact.tolist()) & set(bounded.tolist())) >= 5


def test_information_never_exceeds_what_tells_the_samples_apart():
    information = batchbald_scored(mc_samples(4, 60, 4, 0, 2.0), 40, np.random.default_rng(0))[1]
    assert information.max() <= np.log(4) + 1e-9


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least one MC sample"):
        batchbald(np.zeros((0, 5, 3)), 2, np.random.default_rng(0))


def test_the_broken_sample_and_row_are_named():
    probs = mc_samples(3, 4, 2, 0)
    probs[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"probs\[2, 1\]"):
        batchbald(probs, 2, np.random.default_rng(0))


def test_twenty_of_a_thousand_take_seconds():
    probs = mc_samples(10, 1_000, 7, 0)
    start = time.process_time()
    batchbald(probs, 20, np.random.default_rng(0))
    assert time.process_time() - start < 5
