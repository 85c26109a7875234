"""A model isn't promoted when held-out labels show beyond chance that it is worse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from after_model.active_learning.promotion import SIGNIFICANCE, clearly_worse


def models(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, ...]:
    """True classes and two models' probabilities with so many right by both, one, none."""
    count = both + lost + won + neither
    right, wrong = np.array([0.9, 0.1]), np.array([0.1, 0.9])
    serving = np.array([right] * (both + lost) + [wrong] * (won + neither)).reshape(-1, 2)
    candidate = np.array(
        [right] * both + [wrong] * lost + [right] * won + [wrong] * neither
    ).reshape(-1, 2)
    return np.zeros(count, np.int64), serving, candidate


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (9, 1), (4, 0), (0, 9), (6, 4), (12, 3)])
def test_agrees_with_the_binomial_tail(lost, won):
    """P(X >= lost) for X ~ B(lost + won, 1/2), by SciPy's distribution rather than its test."""
    tail = binom.sf(lost - 1, lost + won, 0.5)
    worse, _ = clearly_worse(*models(10, lost, won, 2))
    assert worse == (tail < SIGNIFICANCE)


def test_a_better_model_is_promoted():
    assert not clearly_worse(*models(5, 0, 8, 0))[0]


def test_few_labels_never_hold_a_model_back():
    assert not clearly_worse(*models(0, 4, 0, 0))[0]


def test_nothing_held_out_says_nothing():
    assert not clearly_worse(np.zeros(0, int), np.zeros((0, 2)), np.zeros((0, 2)))[0]


def test_the_reason_names_the_numbers():
    worse, reason = clearly_worse(*models(10, 7, 0, 3))
    assert worse
    assert "20 held-out labels" in reason
    assert "7 times" in reason
