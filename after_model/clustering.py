"""K-means: groups, the elbow that says how many, and the members nearest to the centres.

Distances are Euclidean on the embeddings as they come (Li et al. 2024, section 3.4): features
are not standardised. `prepare` only moves and scales all features together, which changes no
comparison of two distances and keeps very large or very small embeddings out of overflow.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

MAX_CLUSTERS = 10
"""Where the elbow is looked for: 1 to this many clusters (the published script tries 1 to 8)."""

ELBOW_SAMPLE = 5_000
"""Points used for the inertia curve; its shape needs no more, and the final fit uses all."""

_RESTARTS = 5
_FEW = 32  # up to here k-means is restarted; beyond, one k-means++ start is as good and enough


@dataclass(frozen=True)
class Clusters:
    """M groups of N points, numbered from the largest; equal sizes by their first member."""

    labels: np.ndarray  # int64 [N], 0 .. M - 1, none empty
    centres: np.ndarray  # float64 [M, D]
    distances: np.ndarray  # float64 [N], squared Euclidean distance to the own centre

    def __len__(self) -> int:
        return len(self.centres)


def prepare(embeddings: np.ndarray) -> np.ndarray:
    """Centred float64 copy of [N, D] with entries in [-1, 1]; one factor for all features.

    Raises ValueError for another number of dimensions and, naming the row, for a value that is
    not finite.
    """
    points = np.array(embeddings, dtype=np.float64, order="C")
    if points.ndim != 2:
        raise ValueError(f"embeddings must be [N, D], got shape {points.shape}")
    broken = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(broken):
        raise ValueError(f"embeddings[{broken[0]}] has a value that is not finite")
    if points.size == 0:
        return points
    points -= points.mean(axis=0)
    largest = np.abs(points).max()
    if largest > 0:
        points /= largest
    return points + 0.0  # -0.0 becomes 0.0, so that equal rows are equal bytes


def fit(
    points: np.ndarray,
    clusters: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> Clusters:
    """K-means of prepared points [N, D] with at most `clusters` groups, optionally weighted.

    Points with fewer distinct rows than clusters give one group per distinct row. Runs on one
    thread: sums over threads round differently, and the same seed must give the same groups.
    """
    if len(points) == 0 or clusters < 1:
        nothing = np.zeros(0, dtype=np.int64)
        return Clusters(nothing, np.zeros((0, points.shape[1])), np.zeros(0))
    seed = int(rng.integers(2**31))  # drawn first: whoever draws next doesn't depend on the data
    # float32 halves the time; members and distances are settled in float64 afterwards.
    coarse = points.astype(np.float32)
    groups = _distinct(coarse)
    if groups.max() < clusters:
        return _numbered(points, groups)
    model = KMeans(
        clusters, n_init=_RESTARTS if clusters <= _FEW else 1, max_iter=100, random_state=seed
    )
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Near copies can leave a cluster empty; _numbered drops it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(coarse, sample_weight=weights)
    return _numbered(points, model.labels_, model.cluster_centers_)


def elbow(points: np.ndarray, rng: np.random.Generator, most: int = MAX_CLUSTERS) -> int:
    """The number of clusters at the elbow of the inertia curve (Kneedle, Satopaa et al. 2011).

    A curve in which Kneedle finds none gives its point farthest below the straight line between
    the ends. No more than the number of distinct points; 0 without points.
    """
    if len(points) > ELBOW_SAMPLE:
        points = points[np.sort(rng.choice(len(points), ELBOW_SAMPLE, replace=False))]
    if len(points) == 0:
        return 0
    most = min(most, int(_distinct(points.astype(np.float32)).max()) + 1)
    if most < 3:
        return most
    counts = np.arange(1, most + 1)
    inertia = np.array([fit(points, int(m), rng).distances.sum() for m in counts])
    inertia = np.minimum.accumulate(inertia)  # a local optimum may rise; the true curve doesn't
    from kneed import KneeLocator  # here: importing it takes seconds

    knee = KneeLocator(counts, inertia, curve="convex", direction="decreasing").knee
    if knee is None:
        chord = np.interp(counts, [1, most], [inertia[0], inertia[-1]])
        return int(counts[np.argmax(chord - inertia)])
    return int(knee)


def spread(clusters: Clusters, k: int) -> np.ndarray:
    """Indices [min(k, N)] of members nearest to their centre, spread over the clusters.

    First the nearest member of every cluster (largest cluster first), then the next nearest of
    the cluster that is furthest behind its share of the points (Sainte-Laguë), so that every
    prefix of the result is spread as well. Equal distances: utterance order.
    """
    sizes = np.bincount(clusters.labels, minlength=len(clusters))
    members = [_nearest_first(clusters, label) for label in range(len(clusters))]
    taken = np.zeros(len(clusters), dtype=np.int64)
    chosen: list[int] = []
    for _ in range(min(k, len(clusters.labels))):
        behind = np.where(taken == 0, np.inf, sizes / (2 * taken + 1))
        label = int(np.argmax(np.where(taken < sizes, behind, -np.inf)))
        chosen.append(int(members[label][taken[label]]))
        taken[label] += 1
    return np.array(chosen, dtype=np.int64)


def _nearest_first(clusters: Clusters, label: int) -> np.ndarray:
    members = np.flatnonzero(clusters.labels == label)
    return members[np.argsort(clusters.distances[members], kind="stable")]


def _distinct(points: np.ndarray) -> np.ndarray:
    """int64 [N]: equal rows share a number, numbered by first appearance."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in points])


def _numbered(
    points: np.ndarray, groups: np.ndarray, centres: np.ndarray | None = None
) -> Clusters:
    """Clusters from any numbering; without centres, each group's first member is its centre."""
    kept, first, labels, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    labels = rank[labels]
    middle = points[first] if centres is None else centres[kept].astype(np.float64)
    middle = middle[order]
    distances = np.empty(len(points))
    for label, centre in enumerate(middle):
        # The difference itself, not |x|^2 - 2xc + |c|^2: equal rows must get equal distances.
        mine = labels == label
        distances[mine] = ((points[mine] - centre) ** 2).sum(axis=1)
    return Clusters(labels, middle, distances)
