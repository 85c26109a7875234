"""TypiClust: the most typical utterance of each large group that has no label yet
(Hacohen, Dekel and Weinshall 2022, "Active learning on a budget").

K-means of everything, labelled or not, with as many clusters as there will be labels; clusters
without a label first, the largest of them first; of each the member with the highest typicality,
the inverse mean distance to its nearest neighbours in the cluster. For the first labels of a run:
dense regions, not doubtful ones.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, Pool, draw, wanted
from after_model.neighbours import REFERENCE, nearest

NEIGHBOURS = 20
"""Neighbours that say how typical an utterance is (as in the paper)."""

_SMALLEST = 5  # clusters of this many or fewer hold outliers and are left out, as by the authors


def typiclust(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    labelled: np.ndarray | None = None,
    neighbours: int = NEIGHBOURS,
    limit: int = CANDIDATES,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for embeddings [N, D] and those of the labelled ones [L, D].

    Clusters: min(L + k, clustering.MAX_GROUPS), which is the authors' bound too. More utterances
    than clusters: a second of each, and so on. Copies tie: utterance order. Looks at `limit` rows
    (2 k if more) and as many labelled ones, drawn at random, and for neighbours at REFERENCE
    members of a cluster. Raises ValueError naming a row looked at that is not finite.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points, known = clustering.prepare_both(embeddings, rows, labelled, rng, limit)
    groups = clustering.fit(np.concatenate([points, known]), len(known) + k, rng)
    labels, holds = groups.labels[: len(rows)], groups.labels[len(rows) :]
    sizes = np.bincount(groups.labels, minlength=len(groups))
    has = np.bincount(holds, minlength=len(groups))
    # Groups are numbered from the largest: a stable sort keeps that among equals.
    order = np.argsort(has, kind="stable")
    large = order[sizes[order] > _SMALLEST]
    small = order[sizes[order] <= _SMALLEST]
    chosen: list[int] = []
    for part in (large, small):
        queues = [
            _by_typicality(points, np.flatnonzero(labels == g), neighbours, rng, k) for g in part
        ]
        for turn in range(max((len(queue) for queue in queues), default=0)):
            chosen += [int(queue[turn]) for queue in queues if turn < len(queue)]
            if len(chosen) >= k:
                return rows[chosen[:k]]
    return rows[chosen]


def _by_typicality(
    points: np.ndarray, members: np.ndarray, neighbours: int, rng: np.random.Generator, k: int
) -> np.ndarray:
    """The k most typical members, the most typical first.

    In a cluster of fewer than twice the neighbours, half of it says how typical (the authors').
    """
    if len(members) < 2:
        return members
    among = draw(len(members), 0, rng, REFERENCE)
    count = max(1, min(neighbours, len(members) // 2))
    mean = np.sqrt(nearest(points[members], count, among)[1]).mean(axis=1)
    return members[np.argsort(mean, kind="stable")[:k]]


def _choose(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    return typiclust(pool.need("embeddings"), k, rng, labelled=pool.labelled_embeddings)


STRATEGY = ByBatch(
    "typiclust", frozenset({"embeddings"}), _choose, frozenset({"labelled_embeddings"})
)
