"""When to stop: agreement of successive models, and what the learning curve promises."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from after_model.active_learning.stopping import advise, expected_gain, kappa

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


def split(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(pairs)
    return array[:, 0], array[:, 1]


@given(PAIRS)
def test_kappa_is_that_of_scikit_learn(pairs):
    first, second = split(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = cohen_kappa_score(first, second, labels=range(4))
    if math.isnan(expected):  # both say one and the same class everywhere
        expected = 1.0
    assert kappa(first, second, 4) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 500), st.integers(0, 3))
def test_kappa_is_one_when_both_say_one_and_the_same(count, name):
    same = np.full(count, name)
    assert kappa(same, same, 4) == 1.0


@given(PAIRS)
def test_kappa_is_symmetric(pairs):
    first, second = split(pairs)
    assert kappa(first, second, 4) == pytest.approx(kappa(second, first, 4), abs=1e-12)


def test_kappa_by_hand():
    # observed 3/4; chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2
    assert kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2) == pytest.approx(0.5)


def test_the_gain_of_a_logarithmic_curve_is_exact():
    labelled = [10, 20, 40, 80]
    ua = [0.3 + 0.1 * math.log(n) for n in labelled]
    assert expected_gain(labelled, ua, 80) == pytest.approx(0.1 * math.log(2))


def test_the_gain_is_that_of_the_last_four_rounds():
    labelled = [1, 2, 10, 20, 40, 80]
    ua = [0.9, 0.1, *(0.3 + 0.1 * math.log(n) for n in labelled[2:])]
    assert expected_gain(labelled, ua, 80) == pytest.approx(0.1 * math.log(2))


def test_rounds_without_new_labels_promise_nothing():
    assert expected_gain([7, 7, 7], [0.3, 0.5, 0.4], 10) == 0.0


def advice(labelled=(10, 20, 40), ua=(None, None, None), agreement=(), next_labels=20, left=100):
    return advise(labelled, ua, agreement, next_labels=next_labels, remaining_budget=left)


FLAT, RISING = (0.60, 0.60, 0.60), (0.40, 0.50, 0.60)


def test_a_spent_budget_ends_it():
    advised = advice(agreement=(0.1, 0.1), ua=RISING, left=0)
    assert advised.stop
    assert "planned labels are all given" in advised.reason


@pytest.mark.parametrize("agreement", [(), (0.99,)])
def test_before_three_rounds_nothing_can_be_told(agreement):
    rounds = len(agreement) + 1
    advised = advice(labelled=(10, 20)[:rounds], ua=FLAT[:rounds], agreement=agreement)
    assert not advised.stop
    assert advised.agreement is None
    assert "Too early" in advised.reason


def test_before_any_round_nothing_can_be_told():
    assert not advice(labelled=(), ua=()).stop


def test_stable_models_and_a_flat_curve_end_it():
    advised = advice(ua=FLAT, agreement=(0.97, 0.99))
    assert advised.stop
    assert advised.agreement == pytest.approx(0.98)
    assert advised.expected_gain == pytest.approx(0, abs=1e-9)
    assert "kappa 0.98" in advised.reason
    assert "+0.0 points" in advised.reason.replace("-0.0", "+0.0")


def test_stable_models_on_a_rising_curve_go_on():
    advised = advice(ua=RISING, agreement=(0.97, 0.99))
    assert not advised.stop
    assert "20 more labels promise" in advised.reason


def test_unstable_models_on_a_flat_curve_go_on():
    advised = advice(ua=FLAT, agreement=(0.97, 0.90))
    assert not advised.stop
    assert "worth it" in advised.reason


def test_without_validation_agreement_decides():
    assert advice(agreement=(0.96, 0.97)).stop
    assert not advice(agreement=(0.5, 0.6)).stop
    assert advice(agreement=(0.96, 0.97)).expected_gain is None


def test_only_the_last_two_pairs_count():
    labelled, ua = (10, 20, 40, 80), (None,) * 4
    assert advice(labelled, ua, (0.1, 0.97, 0.99)).stop
    assert not advice(labelled, ua, (0.99, 0.99, 0.1)).stop


def test_a_curve_with_gaps_is_not_read():
    assert advice(ua=(0.5, None, 0.5), agreement=(0.97, 0.99)).expected_gain is None


def test_a_first_round_without_held_out_labels_does_not_hide_a_rising_curve():
    advised = advice(
        labelled=(5, 10, 20, 40), ua=(None, *RISING), agreement=(0.99, 0.99, 0.99), next_labels=40
    )
    assert advised.expected_gain is not None
    assert not advised.stop
