"""The first utterances to label, chosen before there is any label (sections 3.4 and 5.1 of
Li et al. 2024): k-means with the elbow, which is the paper's, and DACS, BMAL, random to compare.
Beyond the paper, three strategies that need no label: TypiClust, ProbCover and core-set.

    get("kmeans").select(embeddings, k, rng) -> int64 [min(k, N)], distinct, most wanted first

Embeddings are any [N, D], say one pooled stem output per utterance, or the probe's; distances are
Euclidean on the features as they come. Equal scores: utterance order. A row that is not finite
raises ValueError naming it.

Every start but random looks at no more than `limit` rows (2 k if more), a random sample of the
pool; no others are read, so that embeddings may be a memory map of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, draw, probabilities, top_k, wanted
from after_model.acquisition.coreset import coreset
from after_model.acquisition.probcover import probcover
from after_model.acquisition.typiclust import typiclust
from after_model.neighbours import REFERENCE, nearest, squared_distances

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
    limit: int = CANDIDATES,
) -> np.ndarray:
    """The paper's start: k utterances of embeddings [N, D] that are nearest to k-means centres.

    The number of clusters is at the elbow of the inertia curve over 1 to max_clusters, and k when
    k is smaller. "1 % of samples closest to the cluster centers" is read as that share of every
    cluster: each gives at least one, and as many as its size entitles it to.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points = clustering.prepare(embeddings, rows)
    count = clustering.elbow(points, rng, max_clusters)
    return rows[clustering.spread(clustering.fit(points, min(count, k), rng), k)]


def least(embeddings: np.ndarray, rng: np.random.Generator, *, limit: int = CANDIDATES) -> int:
    """The smallest start that has one utterance of every cluster: the elbow's number of them.

    Whatever the start, a run asks for at least so many, so that starts compare at one size.
    """
    rows = draw(len(embeddings), 0, rng, limit)
    return clustering.elbow(clustering.prepare(embeddings, rows), rng)


def dacs(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    neighbours: int = NEIGHBOURS,
    limit: int = CANDIDATES,
    reference: int = REFERENCE,
) -> np.ndarray:
    """Eq. 10 as section 5.1 uses it (after Kim and Shin 2022): the k of [N, D] with the largest
    mean squared distance to their nearest neighbours, that is from the sparsest regions.

    "Selecting the top 1 % of samples with the highest scores" is all the paper says; the grouping
    by density and the k-centre search of the original DACS are not part of it. Neighbours are
    looked for among `reference` rows. Deterministic while the pool has no more than that.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    among = draw(len(rows), 0, rng, reference)
    return rows[top_k(_sparsity(clustering.prepare(embeddings, rows), neighbours, among), k)]


def bmal(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    probs: np.ndarray | None = None,
    neighbours: int = NEIGHBOURS,
    limit: int = CANDIDATES,
    reference: int = REFERENCE,
) -> np.ndarray:
    """Eq. 11 as section 5.1 uses it (after Chakraborty et al. 2015): the k of [N, D] whose class
    probabilities diverge most from those of their nearest neighbours.

    A sample's score is its mean divergence (eq. 11, a symmetric KL) from its neighbours in the
    embeddings, the "similar neighboring instances" of the text; the k highest are taken. Before
    the first label there is no classifier: without probs [N, C], P(y|x) is a soft k-means
    assignment, exp(-|x - c|^2 / s) normalised, with the elbow's number of clusters (at least two)
    and s = the mean squared distance to the nearest centre. Neighbours are looked for among
    `reference` rows.
    """
    if probs is not None and len(probs) != len(embeddings):
        raise ValueError(f"{len(probs)} rows of probs but {len(embeddings)} of embeddings")
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points = clustering.prepare(embeddings, rows)
    values = _soft_assignment(points, rng) if probs is None else probabilities(probs[rows])
    near = nearest(points, neighbours, draw(len(rows), 0, rng, reference))[0]
    scores = np.zeros(len(points))
    for column in near.T:
        scores += symmetric_kl(values, values[column])
    return rows[top_k(scores / max(1, near.shape[1]), k)]


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
    sample: 0. Of all rows against all: quadratic, `dacs` bounds it.
    """
    return _sparsity(clustering.prepare(embeddings), neighbours)


def symmetric_kl(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Eq. 11: sum_j (p_j - q_j) log(p_j / q_j) for rows of [N, C], nats, [N], never negative.

    As printed the bracket around the difference is missing; with it, this is KL(p|q) + KL(q|p).
    Zeros count as 1e-12.
    """
    p = np.maximum(first, _SMALLEST)
    q = np.maximum(second, _SMALLEST)
    return ((p - q) * (np.log(p) - np.log(q))).sum(axis=1)


def _sparsity(points: np.ndarray, neighbours: int, among: np.ndarray | None = None) -> np.ndarray:
    squared = nearest(points, neighbours, among)[1]
    return squared.sum(axis=1, dtype=np.float64) / max(1, squared.shape[1])


def _soft_assignment(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """P(cluster | x), [N, M]."""
    if len(points) == 0:
        return np.zeros((0, 1))
    groups = clustering.fit(points, max(2, clustering.elbow(points, rng)), rng)
    squared = squared_distances(points.astype(np.float64), groups.centres)
    closest = squared.min(axis=1, keepdims=True)
    scale = closest.mean()
    if scale == 0:  # every point is a centre: the assignment is certain
        return np.eye(len(groups))[groups.labels]
    weights = np.exp(-(squared - closest) / scale)
    return weights / weights.sum(axis=1, keepdims=True)


_STARTS = {
    start.name: start
    for start in (
        Start("kmeans", kmeans),
        Start("dacs", dacs),
        Start("bmal", bmal),
        Start("random", random),
        Start("typiclust", typiclust),
        Start("probcover", probcover),
        Start("coreset", coreset),
    )
}
