"""Entropy, least confidence, margin: values, ranges, what they refuse."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.stats

from after_model.acquisition import entropy, least_confidence, margin

MEASURES = [entropy, least_confidence, margin]
by_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda f: f.__name__)


def test_entropy_is_equation_4():
    probs = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 200)
    np.testing.assert_allclose(entropy(probs), scipy.stats.entropy(probs, axis=1), atol=1e-12)


def test_entropy_counts_zero_times_log_zero_as_zero():
    np.testing.assert_allclose(entropy([[1.0, 0.0], [0.5, 0.5]]), [0.0, np.log(2)])


def test_entropies_of_the_same_probabilities_in_another_order_tie_exactly():
    row = np.random.default_rng(1).dirichlet(np.ones(7))
    assert len(set(entropy([np.roll(row, shift) for shift in range(7)]))) == 1


def test_least_confidence_ranks_although_equation_5_as_printed_is_constant():
    probs = np.array([[0.9, 0.05, 0.05], [0.4, 0.3, 0.3]])
    np.testing.assert_allclose((1 - probs).sum(axis=1), 2.0)  # as printed: C - 1
    np.testing.assert_allclose(least_confidence(probs), [0.1, 0.6])


def test_margin_is_equation_6_turned_round():
    probs = np.array([[0.6, 0.3, 0.1], [0.45, 0.1, 0.45]])
    np.testing.assert_allclose(margin(probs), [1 - 0.3, 1.0])


@by_measure
def test_a_certain_row_scores_zero_and_a_uniform_row_the_most(measure):
    certain, uniform, other = measure([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2]])
    assert certain == 0.0
    assert uniform > other > certain


@by_measure
def test_an_empty_pool_has_no_scores(measure):
    assert measure(np.zeros((0, 4))).shape == (0,)


@by_measure
def test_one_class_leaves_nothing_uncertain(measure):
    np.testing.assert_array_equal(measure([[1.0], [1.0]]), [0.0, 0.0])


@by_measure
@pytest.mark.parametrize("bad", [[np.nan, 0.5], [0.5, 0.4], [1.2, -0.2], [np.inf, 0.0]])
def test_a_row_that_is_no_distribution_is_named(measure, bad):
    with pytest.raises(ValueError, match=r"probs\[2\] is no distribution"):
        measure([[0.5, 0.5], [1.0, 0.0], bad])


@by_measure
def test_half_precision_probabilities_are_accepted(measure):
    probs = np.random.default_rng(2).dirichlet(np.ones(7), 500)
    np.testing.assert_allclose(measure(probs.astype(np.float16)), measure(probs), atol=5e-3)


@by_measure
def test_the_input_is_left_alone(measure):
    probs = np.array([[0.3, 0.2, 0.5]])
    measure(probs)
    np.testing.assert_array_equal(probs, [[0.3, 0.2, 0.5]])


@by_measure
def test_a_wrong_number_of_dimensions_is_refused(measure):
    with pytest.raises(ValueError, match="2 dimensions"):
        measure(np.array([0.5, 0.5]))


@by_measure
def test_a_million_utterances_take_seconds(measure):
    probs = np.full((1_000_000, 7), 1 / 7)
    start = time.process_time()
    measure(probs)
    assert time.process_time() - start < 5
