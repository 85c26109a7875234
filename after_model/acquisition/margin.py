"""Margin: how close the two best classes are (eq. 6 of Li et al. 2024)."""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import ByScore, probabilities


def margin(probs: np.ndarray) -> np.ndarray:
    """1 - (p_first - p_second) for probs [N, C]: [N] in [0, 1].

    Eq. 6 is the difference alone, of which the smallest is asked first; turned round here so
    that higher = ask first, as everywhere. Raises ValueError naming the row that is no
    distribution. With one class the second probability is 0.
    """
    values = probabilities(probs)
    values.sort(axis=1)
    second = values[:, -2] if values.shape[1] > 1 else 0.0
    return 1.0 - (values[:, -1] - second)


STRATEGY = ByScore("margin", frozenset({"probs"}), lambda pool: margin(pool.need("probs")))
