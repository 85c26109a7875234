"""DropQuery: utterances whose predicted class doesn't survive dropout of the input, one of each of
k groups (Gupte et al. 2024, "Revisiting active learning in the era of vision foundation models").

An utterance is a candidate when more than half of its MC samples predict another class than the
classifier does without dropout. The paper draws 3 samples with a share of 0.75 of the embedding's
entries left out; any `mc_probs` will do. Of each of k k-means clusters, the nearest to the centre.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import (
    CANDIDATES,
    ByBatch,
    agreeing_samples,
    draw,
    probabilities,
    wanted,
)


def dropquery(
    probs: np.ndarray,
    mc_probs: np.ndarray,
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    limit: int = CANDIDATES,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C], mc_probs [K, N, C], embeddings [N, H].

    Fewer than k candidates: the k that change most often, and among equals those whose predicted
    class loses most on average; then utterance order. More than `limit` (2 k if more): a random
    sample of them. Only candidates' embeddings are read. Raises ValueError naming a row that is
    no distribution or a candidate that is not finite, and when there is a choice to make but all
    samples agree on every utterance.
    """
    values = probabilities(probs)
    shape = np.shape(mc_probs)
    if len(shape) != 3 or shape[1:] != values.shape or shape[0] == 0:
        raise ValueError(f"mc_probs must be [K, {len(values)}, {values.shape[1]}], got {shape}")
    k = wanted(k, len(values))
    if len(embeddings) != len(values):
        raise ValueError(f"{len(values)} rows of probs but {len(embeddings)} of embeddings")
    predicted = values.argmax(axis=1)
    changes = np.zeros(len(values))
    left = np.zeros(len(values))
    agree = True
    for sample in mc_probs:
        drawn = probabilities(sample)
        changes += drawn.argmax(axis=1) != predicted
        left += drawn[np.arange(len(drawn)), predicted]
        agree = agree and np.array_equal(sample, mc_probs[0])
    if agree and 0 < k < len(values):
        raise agreeing_samples("dropquery")
    candidates = np.flatnonzero(changes / shape[0] > 0.5)
    if len(candidates) <= k:
        candidates = np.lexsort((np.round(left, 10), -changes))[:k]
    candidates = candidates[draw(len(candidates), k, rng, limit)]
    points = clustering.prepare(embeddings, candidates)
    return candidates[clustering.spread(clustering.fit(points, k, rng), k)]


STRATEGY = ByBatch(
    "dropquery",
    frozenset({"probs", "mc_probs", "embeddings"}),
    lambda pool, k, rng: dropquery(
        pool.need("probs"), pool.need("mc_probs"), pool.need("embeddings"), k, rng
    ),
)
