"""Uncertain and different: the most uncertain utterance of each cluster of uncertain ones.

After Zhdanov 2019 ("Diverse mini-batch active learning"): keep the beta * k most uncertain, group
them by k-means weighted with their uncertainty, take one of each group. Zhdanov takes the one
nearest to the centre; here it is the group's most uncertain.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import ByBatch, top_k, wanted
from after_model.acquisition.entropy import entropy

BETA = 10
"""Candidates per utterance asked for (Zhdanov tries 10 and 50)."""


def cluster_entropy(
    probs: np.ndarray,
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    beta: int = BETA,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C] and embeddings [N, H]: k groups of the
    beta * k most uncertain, each group's most uncertain utterance, by falling entropy.

    Fewer than k distinct candidates: the remaining ones are the most uncertain left over. beta = 1
    is the entropy strategy. Raises ValueError naming a row that is no distribution or not finite.
    """
    scores = entropy(probs)
    points = clustering.prepare(embeddings)
    if len(points) != len(scores):
        raise ValueError(f"{len(scores)} rows of probs but {len(points)} of embeddings")
    k = wanted(k, len(scores))
    candidates = top_k(scores, max(beta, 1) * k)
    # Certain candidates weigh next to nothing, not nothing: k-means++ must be able to draw them.
    weights = np.maximum(scores[candidates], 1e-6)
    groups = clustering.fit(points[candidates], k, rng, weights)
    # Candidates are sorted by falling entropy, so the first of a group is its most uncertain.
    first = np.sort(np.unique(groups.labels, return_index=True)[1])
    rest = np.setdiff1d(np.arange(len(candidates)), first)[: k - len(first)]
    return candidates[np.sort(np.concatenate([first, rest]))]


STRATEGY = ByBatch(
    "cluster-entropy",
    frozenset({"probs", "embeddings"}),
    lambda pool, k, rng: cluster_entropy(pool.need("probs"), pool.need("embeddings"), k, rng),
)
