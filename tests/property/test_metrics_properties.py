"""Metrics on any predictions: what scikit-learn says, in range, and blind to order and names."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import assume, given
from hypothesis import strategies as st

from after_model import metrics

NUM_CLASSES = 4
seeds = st.integers(0, 2**32 - 1)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(y_true [N], y_pred [N]), often with classes that don't occur."""
    labels = st.integers(0, NUM_CLASSES - 1)
    pairs = draw(st.lists(st.tuples(labels, labels), min_size=1, max_size=40))
    y_true, y_pred = np.array(pairs).T
    return y_true, y_pred


@st.composite
def probabilities(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """(y_true [N], probs [N, C]), from flat to certain."""
    rng = np.random.default_rng(draw(seeds))
    num_utterances = draw(st.integers(1, 40))
    probs = rng.dirichlet(
        np.full(NUM_CLASSES, draw(st.sampled_from([0.1, 1.0, 10.0]))), num_utterances
    )
    return rng.integers(0, NUM_CLASSES, num_utterances), probs


@given(predictions())
def test_scikit_learn_agrees(case):
    y_true, y_pred = case
    recall = sklearn.metrics.recall_score(
        y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0
    )
    assert metrics.unweighted_accuracy(y_true, y_pred) == pytest.approx(recall)
    accuracy = sklearn.metrics.accuracy_score(y_true, y_pred)
    assert metrics.weighted_accuracy(y_true, y_pred) == pytest.approx(accuracy)
    f1 = sklearn.metrics.f1_score(y_true, y_pred, average="macro", zero_division=0)
    assert metrics.macro_f1(y_true, y_pred) == pytest.approx(f1)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(y_true, y_pred, NUM_CLASSES),
        sklearn.metrics.confusion_matrix(y_true, y_pred, labels=range(NUM_CLASSES)),
    )


@given(probabilities(), seeds)
def test_the_order_of_the_utterances_does_not_matter(case, seed):
    y_true, probs = case
    order = np.random.default_rng(seed).permutation(len(y_true))
    assert metrics.evaluate(y_true[order], probs[order]) == pytest.approx(
        metrics.evaluate(y_true, probs)
    )


@given(predictions(), st.permutations(range(NUM_CLASSES)))
def test_the_numbering_of_the_classes_does_not_matter(case, renamed):
    y_true, y_pred = case
    names = np.array(renamed)
    for metric in (metrics.unweighted_accuracy, metrics.weighted_accuracy, metrics.macro_f1):
        assert metric(names[y_true], names[y_pred]) == pytest.approx(metric(y_true, y_pred))


@given(probabilities())
def test_everything_is_between_zero_and_one(case):
    for name, value in metrics.evaluate(*case).items():
        assert 0 <= value <= 1 + 1e-12, name


@given(predictions())
def test_perfect_predictions_score_one(case):
    y_true, _ = case
    result = metrics.evaluate(y_true, np.eye(NUM_CLASSES)[y_true])
    assert result == {"ua": 1.0, "wa": 1.0, "macro_f1": 1.0, "ece": 0.0}


@given(predictions(), st.integers(2, 5))
def test_repeating_a_class_changes_no_unweighted_accuracy(case, times):
    y_true, y_pred = case
    repeats = np.where(y_true == y_true[0], times, 1)
    assert metrics.unweighted_accuracy(
        y_true.repeat(repeats), y_pred.repeat(repeats)
    ) == pytest.approx(metrics.unweighted_accuracy(y_true, y_pred))


@given(probabilities(), st.integers(1, 30))
def test_calibration_error_is_the_mean_over_bins(case, bins):
    y_true, probs = case
    confidence = probs.max(axis=1)
    assume(not np.isclose(confidence * bins % 1, 0, atol=1e-9).any())
    correct = probs.argmax(axis=1) == y_true
    expected = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert metrics.expected_calibration_error(y_true, probs, bins) == pytest.approx(expected)
