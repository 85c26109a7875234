"""Uncertain and different: the most uncertain utterance of each cluster of uncertain ones.

After Zhdanov 2019 ("Diverse mini-batch active learning"): keep the beta * k most uncertain, group
them by k-means weighted with their uncertainty, take one of each group. Zhdanov takes the one
nearest to the centre; here it is the group's most uncertain.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, top_k, wanted
from after_model.acquisition.entropy import entropy

BETA = 10
"""Candidates per utterance asked for (Zhdanov tries 10 and 50)."""


def cluster_entropy(
    probs: np.ndarray,
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    beta: int = BETA,
    *,
    limit: int = CANDIDATES,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C] and embeddings [N, H]: k groups of the
    beta * k most uncertain, each group's most uncertain utterance, by falling entropy.

    Fewer than k distinct candidates, or k above clustering.MAX_GROUPS: then each group's second
    and so on. beta = 1 is the entropy strategy. Above `limit` candidates there are `limit` of them
    (2 k if more), and only their embeddings are read. Raises ValueError naming a row that is no
    distribution, or a candidate's that is not finite.
    """
    scores = entropy(probs)
    if len(embeddings) != len(scores):
        raise ValueError(f"{len(scores)} rows of probs but {len(embeddings)} of embeddings")
    k = wanted(k, len(scores))
    candidates = top_k(scores, min(max(beta, 1) * k, max(limit, 2 * k)))
    points = clustering.prepare(embeddings, candidates)
    # Certain candidates weigh next to nothing, not nothing: k-means++ must be able to draw them.
    weights = np.maximum(scores[candidates], 1e-6)
    labels = clustering.fit(points, k, rng, weights).labels
    # Candidates are sorted by falling entropy: a group's first is its most uncertain.
    order = np.argsort(labels, kind="stable")
    first = np.unique(labels[order], return_index=True)[1]
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels)) - first[labels[order]]
    return candidates[np.sort(np.argsort(place, kind="stable")[:k])]


STRATEGY = ByBatch(
    "cluster-entropy",
    frozenset({"probs", "embeddings"}),
    lambda pool, k, rng: cluster_entropy(pool.need("probs"), pool.need("embeddings"), k, rng),
)
