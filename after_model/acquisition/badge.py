"""BADGE: k-means++ seeding on gradient embeddings (Ash et al. 2020).

The gradient embedding of an utterance is the gradient of its loss in the last layer's weights, for
the label that the model predicts: g = (p - onehot(argmax p)) outer h, C * H numbers. Inner
products of outer products multiply, <a h', b g'> = <a, b> <h, g>, so no g is ever built.
"""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import CANDIDATES, ByBatch, probabilities, wanted

# Squared distances below this share of the two norms are rounding errors of zero.
_ROUNDING = 1e-12


def badge(
    probs: np.ndarray,
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    limit: int = CANDIDATES,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C] and pooled embeddings [N, H].

    The first is the longest gradient (as the authors' code does), each next one is drawn with
    probability proportional to the squared distance to the nearest one chosen. When all that are
    left coincide with chosen ones, they follow in utterance order.

    Looks at `limit` utterances (2 k if more), drawn in proportion to |p - onehot|^2, the part of a
    gradient's squared length that needs no embedding; no other embedding is read. O(N C + k n (C +
    H)) time and O(N C + n H) memory for n candidates. Raises ValueError naming a row that is no
    distribution, or a candidate's that is not finite.
    """
    errors = probabilities(probs)
    if len(np.shape(embeddings)) != 2 or len(embeddings) != len(errors):
        shape = np.shape(embeddings)
        raise ValueError(f"embeddings must be [{len(errors)}, H], got shape {shape}")
    k = wanted(k, len(errors))
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    rows = _candidates((errors**2).sum(axis=1), max(limit, 2 * k), rng)
    hidden = np.asarray(embeddings[rows], dtype=np.float64)
    broken = np.flatnonzero(~np.isfinite(hidden).all(axis=1))
    if len(broken):
        raise ValueError(f"embeddings[{rows[broken[0]]}] has a value that is not finite")
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    return rows[_seeding(errors[rows], hidden, k, rng)]


def _candidates(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """int64, rising: `count` of N rows drawn without replacement in proportion to weights [N].

    The `count` smallest of an exponential variable divided by its weight (Efraimidis and Spirakis
    2006); those with no weight come last. All rows, and no use of rng, where N <= count.
    """
    if len(weights) <= count:
        return np.arange(len(weights))
    keys = rng.exponential(size=len(weights)) / np.maximum(weights, np.finfo(np.float64).tiny)
    return np.sort(np.argpartition(keys, count - 1)[:count])


def _seeding(
    errors: np.ndarray, hidden: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """k of the rows of errors [n, C] and hidden [n, H], k >= 1."""
    largest = np.abs(hidden).max(initial=0.0)
    if largest > 0:
        hidden = hidden / largest  # one factor for all: the choice is the same, no overflow
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
