"""ALPS as the paper words it: the utterances nearest to k-means centres (eq. 7 of Li et al. 2024).

The paper clusters sample representations. ALPS itself (Yuan, Lin and Boyd-Graber 2020) clusters
surprisal embeddings: that is alps_surprisal.py, the same choice on another input.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import ByBatch, wanted


def alps(embeddings: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Eq. 7: k-means of embeddings [N, D] with k centres, and of each cluster the member nearest
    to its centre. int64 [min(k, N)], distinct, the largest cluster's first.

    Fewer than k distinct rows: the remaining ones come from the largest groups in turn. Raises
    ValueError naming a row that is not finite.
    """
    points = clustering.prepare(embeddings)
    k = wanted(k, len(points))
    return clustering.spread(clustering.fit(points, k, rng), k)


STRATEGY = ByBatch(
    "alps", frozenset({"embeddings"}), lambda pool, k, rng: alps(pool.need("embeddings"), k, rng)
)
