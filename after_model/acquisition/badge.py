"""BADGE: k-means++ seeding on gradient embeddings (Ash et al. 2020).

The gradient embedding of an utterance is the gradient of its loss in the last layer's weights, for
the label that the model predicts: g = (p - onehot(argmax p)) outer h, C * H numbers. Inner
products of outer products multiply, <a h', b g'> = <a, b> <h, g>, so no g is ever built.
"""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import ByBatch, probabilities, wanted

# Squared distances below this share of the two norms are rounding errors of zero.
_ROUNDING = 1e-12


def badge(
    probs: np.ndarray, embeddings: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C] and pooled embeddings [N, H].

    The first is the longest gradient (as the authors' code does), each next one is drawn with
    probability proportional to the squared distance to the nearest one chosen. When all that are
    left coincide with chosen ones, they follow in utterance order. O(k N (C + H)) time, O(N)
    memory. Raises ValueError naming a row that is no distribution or not finite.
    """
    errors = probabilities(probs)
    hidden = np.asarray(embeddings, dtype=np.float64)
    if hidden.ndim != 2 or len(hidden) != len(errors):
        raise ValueError(f"embeddings must be [{len(errors)}, H], got shape {hidden.shape}")
    broken = np.flatnonzero(~np.isfinite(hidden).all(axis=1))
    if len(broken):
        raise ValueError(f"embeddings[{broken[0]}] has a value that is not finite")
    k = wanted(k, len(errors))
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    largest = np.abs(hidden).max(initial=0.0)
    if largest > 0:
        hidden = hidden / largest  # one factor for all: the choice is the same, no overflow
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    norms = (errors**2).sum(axis=1) * (hidden**2).sum(axis=1)

    chosen = [int(np.argmax(norms))]
    nearest = np.full(len(errors), np.inf)
    while len(chosen) < k:
        last = chosen[-1]
        both = norms + norms[last]
        distance = both - 2 * (errors @ errors[last]) * (hidden @ hidden[last])
        distance[distance < _ROUNDING * both] = 0.0
        nearest = np.minimum(nearest, distance)
        nearest[last] = 0.0
        reach = np.cumsum(nearest)
        if reach[-1] <= 0:
            left = np.setdiff1d(np.arange(len(errors)), chosen)
            chosen.extend(left[: k - len(chosen)].tolist())
            break
        # side="right" skips those with no probability, the chosen ones among them.
        drawn = np.searchsorted(reach, rng.random() * reach[-1], side="right")
        chosen.append(int(min(drawn, np.flatnonzero(nearest)[-1])))
    return np.array(chosen, dtype=np.int64)


STRATEGY = ByBatch(
    "badge",
    frozenset({"probs", "embeddings"}),
    lambda pool, k, rng: badge(pool.need("probs"), pool.need("embeddings"), k, rng),
)
