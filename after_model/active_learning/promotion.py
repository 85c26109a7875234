"""Is a new model clearly worse than the one that serves? Asked before it replaces it.

Beyond the paper. A round can go wrong (a batch of mistaken labels, an unlucky start); where
held-out labels show it beyond chance, the old model goes on serving.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

SIGNIFICANCE = 0.05


def clearly_worse(
    y_true: np.ndarray, serving: np.ndarray, candidate: np.ndarray
) -> tuple[bool, str]:
    """(whether not to promote, the reason in the user's words).

    y_true [M] class indices, serving and candidate [M, C] probabilities on the same recordings.
    One-sided exact McNemar test on the recordings that only one of them gets right (McNemar 1947):
    a few held-out labels never suffice, and then the newer model, which knows more labels, serves.
    """
    before = serving.argmax(axis=1) == y_true
    after = candidate.argmax(axis=1) == y_true
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    if not lost + won:
        return False, f"As good as the one before on {len(y_true)} held-out labels."
    chance = binomtest(lost, lost + won, alternative="greater").pvalue
    said = (
        f"on {len(y_true)} held-out labels it is right where the one before was wrong {won} times, "
        f"and wrong where that was right {lost} times"
    )
    if chance < SIGNIFICANCE:
        return True, f"Clearly worse than the one before: {said} (p = {chance:.3f})."
    return False, f"Not clearly worse than the one before: {said}."
