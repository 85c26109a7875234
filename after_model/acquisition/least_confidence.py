"""Least confidence: how far the best class is from certain (eq. 5 of Li et al. 2024).

As printed, eq. 5 is sum_j (1 - p_j) = C - 1 for every utterance and ranks nothing. Implemented
is the measure it names (Dredze and Crammer 2008), 1 - max_j p_j.
"""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import ByScore, probabilities


def least_confidence(probs: np.ndarray) -> np.ndarray:
    """1 - max_j p_j for probs [N, C]: [N] in [0, 1 - 1/C].

    Higher = ask first. Raises ValueError naming the row that is no distribution.
    """
    return 1.0 - probabilities(probs).max(axis=1)


STRATEGY = ByScore(
    "least-confidence", frozenset({"probs"}), lambda pool: least_confidence(pool.need("probs"))
)
