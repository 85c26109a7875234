"""Cluster-Margin: small margins, spread over the clusters of an average-linkage tree
(Citovsky et al. 2021, "Batch active learning at scale").

The BETA * k utterances with the smallest margins, in clusters of the whole set; then in turn one at
random of each cluster, the cluster with the fewest of them first, so that rare regions are heard
before large ones are heard twice. The paper builds the tree once. Here it is built from the pool
and what is labelled together, which is the same set in every round: no state, the same tree.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, Pool, draw, top_k, wanted
from after_model.acquisition.margin import margin
from after_model.neighbours import REFERENCE, squared_distances

BETA = 10
"""Candidates per utterance asked for, the paper's k_m / k_t where batches are large."""

CLUSTER_SIZE = 10
"""Mean size of the tree's clusters; the paper tunes the cutting height, which has a unit."""


def cluster_margin(
    probs: np.ndarray,
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    labelled: np.ndarray | None = None,
    limit: int = CANDIDATES,
    reference: int = REFERENCE,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for probs [N, C], embeddings [N, H], labelled ones' [L, H].

    The tree is built on `reference` rows of pool and labelled together, drawn at random where
    there are more; other candidates join the cluster with the nearest centre. Above `limit`
    candidates there are `limit` of them (2 k if more). No other embeddings are read. Raises
    ValueError naming a row that is no distribution, or one looked at that is not finite.
    """
    scores = margin(probs)
    if len(embeddings) != len(scores):
        raise ValueError(f"{len(scores)} rows of probs but {len(embeddings)} of embeddings")
    k = wanted(k, len(scores))
    candidates = top_k(scores, min(BETA * k, max(limit, 2 * k)))
    share = len(scores) / (len(scores) + (0 if labelled is None else len(labelled)) or 1)
    drawn = draw(len(scores), 0, rng, max(1, int(np.ceil(reference * share))))
    rows = np.union1d(drawn, candidates)
    points, known = clustering.prepare_both(
        embeddings, rows, labelled, rng, max(1, int(reference * (1 - share)))
    )
    tree = np.concatenate([points[np.searchsorted(rows, drawn)], known])
    own = points[np.searchsorted(rows, candidates)]
    labels = tree_clusters(tree)
    place = np.searchsorted(drawn, candidates)
    place[place == len(drawn)] = 0
    inside = drawn[place] == candidates
    groups = np.empty(len(candidates), dtype=np.int64)
    groups[inside] = labels[place[inside]]
    if not inside.all():
        sums = np.zeros((labels.max() + 1, tree.shape[1]), dtype=tree.dtype)
        np.add.at(sums, labels, tree)
        centres = sums / np.bincount(labels)[:, None].astype(tree.dtype)
        groups[~inside] = squared_distances(own[~inside], centres).argmin(axis=1)
    return candidates[round_robin(groups, k, rng)]


def tree_clusters(points: np.ndarray) -> np.ndarray:
    """int64 [N]: clusters of CLUSTER_SIZE on average, from the average-linkage tree of [N, D]."""
    if len(points) < 2:
        return np.zeros(len(points), dtype=np.int64)
    distance = np.sqrt(squared_distances(points, points).astype(np.float64))
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    count = max(1, round(len(points) / CLUSTER_SIZE))
    return fcluster(tree, count, criterion="maxclust").astype(np.int64) - 1


def round_robin(groups: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [min(k, n)]: one at random of each group [n] in turn, the smallest group first.

    Groups of one size come in the order of their first member.
    """
    shuffled = rng.permutation(len(groups))
    _, first, labels, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    begin = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0, np.int64)
    turn = np.empty(len(groups), dtype=np.int64)
    turn[order] = np.arange(len(groups)) - begin[labels[order]]
    return np.lexsort((first[labels], sizes[labels], turn))[:k]


def _choose(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    return cluster_margin(
        pool.need("probs"), pool.need("embeddings"), k, rng, labelled=pool.labelled_embeddings
    )


STRATEGY = ByBatch(
    "cluster-margin",
    frozenset({"probs", "embeddings"}),
    _choose,
    frozenset({"labelled_embeddings"}),
)
