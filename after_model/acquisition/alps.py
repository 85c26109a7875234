"""ALPS as the paper words it: the utterances nearest to k-means centres (eq. 7 of Li et al. 2024).

The paper clusters sample representations. ALPS itself (Yuan, Lin and Boyd-Graber 2020) clusters
surprisal embeddings: that is alps_surprisal.py, the same choice on another input.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, draw, wanted


def alps(
    embeddings: np.ndarray, k: int, rng: np.random.Generator, *, limit: int = CANDIDATES
) -> np.ndarray:
    """Eq. 7: k-means of embeddings [N, D] with k centres, and of each cluster the member nearest
    to its centre. int64 [min(k, N)], distinct, the largest cluster's first.

    Fewer than k distinct rows, or k above clustering.MAX_GROUPS: the remaining ones come from the
    groups that are furthest behind their share. Looks at `limit` rows (2 k if more), drawn at
    random; no others are read. Raises ValueError naming one of them that is not finite.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points = clustering.prepare(embeddings, rows)
    return rows[clustering.spread(clustering.fit(points, k, rng), k)]


STRATEGY = ByBatch(
    "alps", frozenset({"embeddings"}), lambda pool, k, rng: alps(pool.need("embeddings"), k, rng)
)
