"""UA, WA, macro F1 and ECE on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from after_model import metrics

TRUE = np.array([0, 0, 0, 1])
PREDICTED = np.array([0, 0, 1, 1])


def test_unweighted_accuracy_counts_every_class_the_same():
    assert metrics.unweighted_accuracy(TRUE, PREDICTED) == pytest.approx((2 / 3 + 1) / 2)


def test_weighted_accuracy_counts_every_utterance_the_same():
    assert metrics.weighted_accuracy(TRUE, PREDICTED) == 0.75


def test_a_class_that_is_never_true_does_not_lower_unweighted_accuracy():
    assert metrics.unweighted_accuracy(np.array([0, 0]), np.array([0, 2])) == 0.5


def test_confusion_has_true_classes_in_rows():
    matrix = metrics.confusion_matrix(TRUE, PREDICTED, 3)
    np.testing.assert_array_equal(matrix, [[2, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_calibration_error_by_hand():
    # Bin (0.8, 0.9]: confidence 0.9 twice, one right; bin (0.5, 0.6]: 0.6 once, right.
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    error = metrics.expected_calibration_error(np.array([0, 1, 1]), probs, bins=10)
    assert error == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.6)) / 3)


def test_certain_and_right_is_calibrated():
    assert metrics.expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0


def test_certain_and_wrong_is_not():
    assert metrics.expected_calibration_error(np.array([1, 0]), np.eye(2)) == 1


def test_bins_of_two_test_parts_add_up_to_those_of_both():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(3), 90), rng.integers(0, 3, 90)
    parts = [
        metrics.calibration_bins(labels[part], probs[part]) for part in np.split(np.arange(90), 3)
    ]
    whole = metrics.expected_calibration_error(labels, probs)
    assert metrics.calibration_error(sum(parts)) == pytest.approx(whole)
    assert whole < np.mean([metrics.calibration_error(part) for part in parts])


def test_chance_alone_makes_as_much_error_as_a_simulation_of_it():
    rng = np.random.default_rng(1)
    confidence = np.repeat(rng.uniform(0.5, 1, 12), 9)  # one confidence a bin: nothing to even out
    probs = np.stack([confidence, 1 - confidence], axis=1)
    bins = metrics.calibration_bins(np.zeros(len(probs), int), probs, 1_000)
    errors = []
    for _ in range(2_000):
        labels = (rng.random(len(probs)) >= confidence).astype(int)
        errors.append(metrics.expected_calibration_error(labels, probs, 1_000))
    assert metrics.chance_calibration_error(bins) == pytest.approx(np.mean(errors), rel=0.02)


def test_who_is_certain_is_not_wrong_by_chance():
    assert metrics.chance_calibration_error(metrics.calibration_bins(TRUE, np.eye(2)[TRUE])) == 0


def test_evaluate_takes_the_first_of_equal_classes():
    result = metrics.evaluate(np.array([0, 0]), np.full((2, 2), 0.5))
    assert result == {"ua": 1.0, "wa": 1.0, "macro_f1": 1.0, "ece": 0.5}


def test_nothing_to_evaluate():
    for metric in (metrics.unweighted_accuracy, metrics.weighted_accuracy, metrics.macro_f1):
        with pytest.raises(ValueError, match="0 utterances"):
            metric(np.array([], int), np.array([], int))
    with pytest.raises(ValueError, match="0 utterances"):
        metrics.evaluate(np.array([], int), np.zeros((0, 4)))


def test_lengths_that_differ():
    with pytest.raises(ValueError, match=r"shapes \(4,\) and \(3,\)"):
        metrics.unweighted_accuracy(TRUE, PREDICTED[:3])
    with pytest.raises(ValueError, match=r"\[N\] and \[N, C\]"):
        metrics.evaluate(TRUE, np.full((3, 2), 0.5))


@pytest.mark.parametrize("label", [-1, 2])
def test_classes_out_of_range(label):
    with pytest.raises(ValueError, match=r"y_true: class indices .* exceed 0\.\.1"):
        metrics.evaluate(np.array([0, label]), np.full((2, 2), 0.5))


def test_labels_that_are_no_indices():
    with pytest.raises(ValueError, match="y_true: expected class indices"):
        metrics.evaluate(np.array([0.0, 1.0]), np.full((2, 2), 0.5))


@pytest.mark.parametrize("probs", [[[2.0, 1.0]], [[np.nan, 1.0]]])
def test_logits_are_no_probabilities(probs):
    with pytest.raises(ValueError, match="softmaxed"):
        metrics.evaluate(np.array([0]), np.array(probs))


def test_no_bins():
    with pytest.raises(ValueError, match="bins"):
        metrics.expected_calibration_error(np.array([0]), np.array([[1.0]]), bins=0)
