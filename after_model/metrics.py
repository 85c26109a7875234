"""How good predictions are: UA, WA, macro F1, confusion and calibration.

Speech emotion recognition reports unweighted accuracy (UA) because its corpora are unbalanced:
it counts every emotion the same. Everything here takes class indices and ignores the order of
the utterances.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score, recall_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix


def unweighted_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean of the recalls [N], [N] -> in [0, 1], over the classes that occur in `y_true`."""
    y_true, y_pred = _checked(y_true, y_pred)
    occurring = np.unique(y_true)
    return float(recall_score(y_true, y_pred, labels=occurring, average="macro"))


def weighted_accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """The share [N], [N] -> in [0, 1] of utterances that are right."""
    y_true, y_pred = _checked(y_true, y_pred)
    return float(accuracy_score(y_true, y_pred))


def macro_f1(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Mean F1 [N], [N] -> in [0, 1], over the classes in `y_true` or `y_pred`."""
    y_true, y_pred = _checked(y_true, y_pred)
    return float(f1_score(y_true, y_pred, average="macro"))


def confusion_matrix(y_true: np.ndarray, y_pred: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 [C, C]: row = true class, column = predicted class."""
    y_true, y_pred = _checked(y_true, y_pred)
    for name, labels in (("y_true", y_true), ("y_pred", y_pred)):
        _check_indices(name, labels, num_classes)
    return sklearn_confusion_matrix(y_true, y_pred, labels=range(num_classes))


def expected_calibration_error(y_true: np.ndarray, probs: np.ndarray, bins: int = 15) -> float:
    """Mean |accuracy - confidence| of `bins` equal bins, weighted by their sizes, in [0, 1].

    y_true [N], probs [N, C]. Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3;
    a bin holds the confidences in (low, high].
    """
    return calibration_error(calibration_bins(y_true, probs, bins))


def calibration_bins(y_true: np.ndarray, probs: np.ndarray, bins: int = 15) -> np.ndarray:
    """float64 [bins, 3]: utterances, right ones, and confidences summed, of each bin.

    What the expected calibration error is made of. Those of several test parts add up: the error
    of the sum is that of all their predictions together.
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    y_true, probs = _checked_probs(y_true, probs)
    confidence = probs.max(axis=1)
    correct = probs.argmax(axis=1) == y_true
    member = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    columns = (None, correct, confidence)
    return np.stack([np.bincount(member, column, bins) for column in columns], axis=1)


def calibration_error(bins: np.ndarray) -> float:
    """The expected calibration error of calibration_bins [B, 3]."""
    count, right, confidence = bins.T
    return float(np.abs(right - confidence).sum() / count.sum())


def chance_calibration_error(bins: np.ndarray) -> float:
    """What calibration_bins [B, 3] would show on average were every confidence exactly right.

    A bin of n recordings misses by chance even then: the mean absolute deviation of a binomial
    (de Moivre), of n and the bin's mean confidence. The fewer recordings, the larger.
    """
    count, _, confidence = bins[bins[:, 0] > 0].T
    share = np.clip(confidence / count, 0.0, 1.0)
    above = np.floor(count * share) + 1
    missed = 2 * above * (1 - share) * binom.pmf(above, count, share)
    return float(missed.sum() / count.sum())


def evaluate(y_true: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """{"ua", "wa", "macro_f1", "ece"} of probabilities [N, C] against class indices [N].

    The prediction is the most probable class, the first of equals.
    """
    y_true, probs = _checked_probs(y_true, probs)
    y_pred = probs.argmax(axis=1)
    return {
        "ua": unweighted_accuracy(y_true, y_pred),
        "wa": weighted_accuracy(y_true, y_pred),
        "macro_f1": macro_f1(y_true, y_pred),
        "ece": expected_calibration_error(y_true, probs),
    }


def _checked(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape:
        raise ValueError(
            f"y_true and y_pred: expected one label an utterance each, "
            f"got shapes {y_true.shape} and {y_pred.shape}"
        )
    if not len(y_true):
        raise ValueError("y_true: there is nothing to evaluate (0 utterances)")
    return y_true, y_pred


def _checked_probs(y_true: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y_true, probs = np.asarray(y_true), np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or y_true.shape != probs.shape[:1]:
        raise ValueError(
            "y_true and probs: expected shapes [N] and [N, C], "
            f"got {y_true.shape} and {probs.shape}"
        )
    if not len(y_true):
        raise ValueError("y_true: there is nothing to evaluate (0 utterances)")
    _check_indices("y_true", y_true, probs.shape[1])
    if not (np.isfinite(probs).all() and np.allclose(probs.sum(axis=1), 1.0, atol=1e-3)):
        raise ValueError("probs: every row must be finite and sum to 1; pass softmaxed logits")
    return y_true, probs


def _check_indices(name: str, labels: np.ndarray, num_classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name}: expected class indices, got {labels.dtype}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{name}: class indices {labels.min()}..{labels.max()} exceed 0..{num_classes - 1}"
        )
