"""The first utterances to label, chosen before there is any label (sections 3.4 and 5.1 of
Li et al. 2024): k-means with the elbow, which is the paper's, and DACS, BMAL, random to compare.

    get("kmeans").select(embeddings, k, rng) -> int64 [min(k, N)], distinct, most wanted first

Embeddings are [N, D], one pooled CNN-encoder output per utterance; distances are Euclidean on the
features as they come. Equal scores: utterance order. A row that is not finite raises ValueError
naming it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from after_model import clustering
from after_model.acquisition.base import probabilities, top_k, wanted

NEIGHBOURS = 10
"""Neighbours in eq. 10 and 11; the paper refers to its sources' defaults and prints no number."""

_SMALLEST = 1e-12  # keeps the logarithms of eq. 11 finite where a probability is 0


@dataclass(frozen=True)
class Start:
    """A named way to choose the first utterances."""

    name: str
    select: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def kmeans(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    max_clusters: int = clustering.MAX_CLUSTERS,
) -> np.ndarray:
    """The paper's start: k utterances of embeddings [N, D] that are nearest to k-means centres.

    The number of clusters is at the elbow of the inertia curve over 1 to max_clusters, and k when
    k is smaller. "1 % of samples closest to the cluster centers" is read as that share of every
    cluster: each gives at least one, and as many as its size entitles it to.
    """
    points = clustering.prepare(embeddings)
    k = wanted(k, len(points))
    count = clustering.elbow(points, rng, max_clusters)
    return clustering.spread(clustering.fit(points, min(count, k), rng), k)


def least(embeddings: np.ndarray, rng: np.random.Generator) -> int:
    """The smallest start that has one utterance of every cluster: the elbow's number of them.

    Whatever the start, a run asks for at least so many, so that starts compare at one size.
    """
    return clustering.elbow(clustering.prepare(embeddings), rng)


def dacs(
    embeddings: np.ndarray, k: int, rng: np.random.Generator, *, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Eq. 10 as section 5.1 uses it (after Kim and Shin 2022): the k of [N, D] with the largest
    mean squared distance to their nearest neighbours, that is from the sparsest regions.

    "Selecting the top 1 % of samples with the highest scores" is all the paper says; the grouping
    by density and the k-centre search of the original DACS are not part of it. Deterministic.
    """
    return top_k(sparsity(embeddings, neighbours), k)


def bmal(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    probs: np.ndarray | None = None,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Eq. 11 as section 5.1 uses it (after Chakraborty et al. 2015): the k of [N, D] whose class
    probabilities diverge most from those of their nearest neighbours.

    A sample's score is its mean divergence (eq. 11, a symmetric KL) from its neighbours in the
    embeddings, the "similar neighboring instances" of the text; the k highest are taken. Before
    the first label there is no classifier: without probs [N, C], P(y|x) is a soft k-means
    assignment, exp(-|x - c|^2 / s) normalised, with the elbow's number of clusters (at least two)
    and s = the mean squared distance to the nearest centre.
    """
    points = clustering.prepare(embeddings)
    if probs is None:
        probs = _soft_assignment(points, rng)
    values = probabilities(probs)
    if len(values) != len(points):
        raise ValueError(f"{len(values)} rows of probs but {len(points)} of embeddings")
    near = _neighbours(points, neighbours)
    scores = np.zeros(len(points))
    for column in near.T:
        scores += symmetric_kl(values, values[column])
    return top_k(scores / max(1, near.shape[1]), k)


def random(embeddings: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k of the N rows, each set equally likely."""
    return rng.permutation(len(embeddings))[: wanted(k, len(embeddings))]


def names() -> list[str]:
    """Names of all starts, sorted."""
    return sorted(_STARTS)


def get(name: str) -> Start:
    """The start called `name`; ValueError listing the known names for another."""
    if name not in _STARTS:
        raise ValueError(f"unknown start {name!r}; known: {', '.join(names())}")
    return _STARTS[name]


def sparsity(embeddings: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Eq. 10: mean squared Euclidean distance to the nearest neighbours, [N], up to one factor.

    The sample itself is not its neighbour. Fewer than `neighbours` others: all of them; no other
    sample: 0.
    """
    points = clustering.prepare(embeddings)
    near = _neighbours(points, neighbours)
    total = np.zeros(len(points))
    for column in near.T:
        # The difference itself, so that copies are at distance 0 and equal distances tie.
        total += ((points - points[column]) ** 2).sum(axis=1)
    return total / max(1, near.shape[1])


def symmetric_kl(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Eq. 11: sum_j (p_j - q_j) log(p_j / q_j) for rows of [N, C], nats, [N], never negative.

    As printed the bracket around the difference is missing; with it, this is KL(p|q) + KL(q|p).
    Zeros count as 1e-12.
    """
    p = np.maximum(first, _SMALLEST)
    q = np.maximum(second, _SMALLEST)
    return ((p - q) * (np.log(p) - np.log(q))).sum(axis=1)


def _neighbours(points: np.ndarray, neighbours: int) -> np.ndarray:
    """int64 [N, n]: the n nearest other points, n = min(neighbours, N - 1)."""
    count = min(neighbours, len(points) - 1)
    if count < 1:
        return np.zeros((len(points), 0), dtype=np.int64)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points)
    with threadpool_limits(limits=1):  # sums over threads round differently
        return search.kneighbors(return_distance=False)  # without arguments: not itself


def _soft_assignment(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """P(cluster | x), [N, M]."""
    if len(points) == 0:
        return np.zeros((0, 1))
    groups = clustering.fit(points, max(2, clustering.elbow(points, rng)), rng)
    squared = np.stack([((points - centre) ** 2).sum(axis=1) for centre in groups.centres], axis=1)
    nearest = squared.min(axis=1, keepdims=True)
    scale = nearest.mean()
    if scale == 0:  # every point is a centre: the assignment is certain
        return np.eye(len(groups))[groups.labels]
    weights = np.exp(-(squared - nearest) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


_STARTS = {
    start.name: start
    for start in (
        Start("kmeans", kmeans),
        Start("dacs", dacs),
        Start("bmal", bmal),
        Start("random", random),
    )
}
