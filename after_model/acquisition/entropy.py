"""Entropy of the predicted distribution, the paper's choice (eq. 4 of Li et al. 2024)."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from after_model.acquisition.base import ByScore, probabilities


def entropy(probs: np.ndarray) -> np.ndarray:
    """Eq. 4 for probs [N, C]: -sum_j p_j log p_j, in nats, [N] in [0, log C]; 0 log 0 = 0.

    Higher = ask first. Raises ValueError naming the row that is no distribution.
    """
    values = probabilities(probs)
    # Added up in order of size: two utterances with the same probabilities for different
    # emotions tie exactly, and a tie breaks by utterance order.
    values.sort(axis=1)
    return np.clip(entr(values).sum(axis=1), 0.0, np.log(values.shape[1]))


STRATEGY = ByScore("entropy", frozenset({"probs"}), lambda pool: entropy(pool.need("probs")))
