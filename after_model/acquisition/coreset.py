"""Core-set: the utterance farthest from everything labelled or chosen, again and again
(Sener and Savarese 2018, the greedy k-centre).

Its batch makes the largest distance of any utterance to a labelled one small, within twice the
smallest possible. Outliers come first by construction.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, Pool, draw, wanted
from after_model.neighbours import squared_distances

_BLOCK = 1_000  # labelled rows whose distances are held at once


def coreset(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    labelled: np.ndarray | None = None,
    limit: int = CANDIDATES,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for embeddings [N, D] and those of the labelled ones [L, D].

    With nothing labelled the first is the one nearest to the mean. Equal distances: utterance
    order. Looks at `limit` rows (2 k if more) and as many labelled ones, drawn at random: time
    and memory O((k + L) n) for n candidates. Raises ValueError naming a row looked at that is
    not finite.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points, known = clustering.prepare_both(embeddings, rows, labelled, rng, limit)
    distance: np.ndarray = np.full(len(points), np.inf)
    for start in range(0, len(known), _BLOCK):
        near = squared_distances(points, known[start : start + _BLOCK]).min(axis=1)
        distance = np.minimum(distance, near)
    chosen: list[int] = []
    if k and len(known) == 0:
        middle = points.mean(axis=0, dtype=np.float64).astype(points.dtype)
        chosen = [int(squared_distances(points, middle[None])[:, 0].argmin())]
        distance = squared_distances(points, points[chosen])[:, 0].astype(np.float64)
        distance[chosen] = -np.inf
    while len(chosen) < k:
        pick = int(distance.argmax())
        chosen.append(pick)
        near = squared_distances(points, points[[pick]])[:, 0]
        distance = np.minimum(distance, near)
        distance[pick] = -np.inf
    return rows[chosen]


def _choose(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    return coreset(pool.need("embeddings"), k, rng, labelled=pool.labelled_embeddings)


STRATEGY = ByBatch(
    "coreset", frozenset({"embeddings"}), _choose, frozenset({"labelled_embeddings"})
)
