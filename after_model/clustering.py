"""K-means: groups, the elbow that says how many, and the members nearest to the centres.

Distances are Euclidean on the embeddings as they come (Li et al. 2024, section 3.4): features
are not standardised. `prepare` only moves and scales all features together, which changes no
comparison of two distances and keeps very large or very small embeddings out of overflow.

K-means takes time in proportion to points * groups * features. Callers bound the points
(`acquisition.base.draw`), `fit` the groups (MAX_GROUPS) and the features: with more than
DIMENSIONS of them, groups are found in the points' principal DIMENSIONS (Cohen et al. 2015: the
cost of every grouping is kept up to what the components left out hold) and settled by Lloyd steps
in all features.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from after_model.neighbours import one_thread, squared_distances

MAX_CLUSTERS = 10
"""Where the elbow is looked for: 1 to this many clusters (the published script tries 1 to 8)."""

MAX_GROUPS = 500
"""Most groups that k-means is asked for; a batch larger than that takes several of each."""

ELBOW_SAMPLE = 5_000
"""Points used for the inertia curve; its shape needs no more, and the final fit uses all."""

DIMENSIONS = 64
"""Principal components in which groups are found where there are more features."""

_RESTARTS = 5
_FEW = 32  # up to here k-means is restarted; beyond, one k-means++ start is as good and enough
_SETTLE = 5  # Lloyd steps in all features after the fit in few; 2 or 3 change anything
_LEARN = 512  # points from which the principal components are taken
_NOTHING = 1e-10  # below this share of the largest (a fourth power), a component holds nothing
_BLOCK = 2**22  # numbers in the largest intermediate array


_SHORT = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True)
class Clusters:
    """M groups of N points, numbered from the largest; equal sizes by their first member."""

    labels: np.ndarray  # int64 [N], 0 .. M - 1, none empty
    centres: np.ndarray  # [M, D], of the points' type
    distances: np.ndarray  # float64 [N], squared Euclidean distance to the own centre

    def __len__(self) -> int:
        return len(self.centres)


def prepare(embeddings: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Centred copy of [N, D], or of its `rows`, with entries in [-1, 1]; one factor for all.

    float64 for float64, float32 for what is shorter. Raises ValueError for another number of
    dimensions and, naming the row, for a value that is not finite. Rows that are not asked for
    are not read.
    """
    if rows is not None:
        if len(np.shape(embeddings)) != 2:
            raise ValueError(f"embeddings must be [N, D], got shape {np.shape(embeddings)}")
        embeddings = embeddings[rows]
    dtype = np.float32 if getattr(embeddings, "dtype", None) in _SHORT else np.float64
    points: np.ndarray = np.array(embeddings, dtype=dtype, order="C")
    if points.ndim != 2:
        raise ValueError(f"embeddings must be [N, D], got shape {points.shape}")
    broken = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(broken):
        row = broken[0] if rows is None else rows[broken[0]]
        raise ValueError(f"embeddings[{row}] has a value that is not finite")
    if points.size == 0:
        return points
    largest = np.abs(points).max()
    if largest > np.sqrt(np.finfo(dtype).max):
        points /= largest  # or the difference of two values could overflow
    points -= points.mean(axis=0, dtype=np.float64).astype(dtype)
    largest = np.abs(points).max()
    if largest > 0:
        points /= largest
    points += 0.0  # -0.0 becomes 0.0, so that equal rows are equal bytes
    return points


def prepare_both(
    embeddings: np.ndarray,
    rows: np.ndarray,
    labelled: np.ndarray | None,
    rng: np.random.Generator,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """`rows` of embeddings [N, D] and at most `limit` random ones of labelled [L, D], prepared
    together, so that their distances compare. Nothing labelled: none, [0, D]."""
    points = prepare(embeddings, rows)
    if labelled is None or len(labelled) == 0:
        return points, points[:0]
    some: np.ndarray = np.arange(len(labelled))
    if len(some) > limit:
        some = np.sort(rng.choice(len(some), limit, replace=False))
    try:
        prepare(labelled, some)
    except ValueError as error:
        raise ValueError(f"labelled_{error}") from None
    both = prepare(np.concatenate([embeddings[rows], labelled[some]]))
    return both[: len(rows)], both[len(rows) :]


def fit(
    points: np.ndarray,
    clusters: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> Clusters:
    """K-means of prepared points [N, D] with at most `clusters` groups, optionally weighted.

    No more than MAX_GROUPS. Points with fewer distinct rows than clusters give one group per
    distinct row. Runs on one thread: sums over threads round differently, and the same seed must
    give the same groups.
    """
    if len(points) == 0 or clusters < 1:
        nothing = np.zeros(0, dtype=np.int64)
        return Clusters(nothing, np.zeros((0, points.shape[1])), np.zeros(0))
    seed = int(rng.integers(2**31))  # drawn first: whoever draws next doesn't depend on the data
    clusters = min(clusters, MAX_GROUPS)
    # float32 halves the time; distances are settled in the points' own type afterwards.
    coarse = points.astype(np.float32, copy=False)
    groups = _distinct(coarse)
    if groups.max() < clusters:
        return _numbered(points, groups)
    model = _kmeans(_reduced(coarse), clusters, seed, weights)
    if points.shape[1] <= DIMENSIONS:
        return _numbered(points, model.labels_, model.cluster_centers_)
    return _numbered(points, *_settled(coarse, model.labels_, weights))


def elbow(points: np.ndarray, rng: np.random.Generator, most: int = MAX_CLUSTERS) -> int:
    """The number of clusters at the elbow of the inertia curve (Kneedle, Satopaa et al. 2011).

    A curve in which Kneedle finds none gives its point farthest below the straight line between
    the ends. No more than the number of distinct points; 0 without points. Looks at ELBOW_SAMPLE
    of the points.
    """
    if len(points) > ELBOW_SAMPLE:
        points = points[np.sort(rng.choice(len(points), ELBOW_SAMPLE, replace=False))]
    if len(points) == 0:
        return 0
    coarse = points.astype(np.float32, copy=False)
    most = min(most, int(_distinct(coarse).max()) + 1)
    if most < 3:
        return most
    counts = np.arange(1, most + 1)
    # What the components left out hold is (nearly) the same for every number of clusters, and a
    # constant doesn't move the elbow.
    coarse = _reduced(coarse)
    inertia = np.array([_kmeans(coarse, int(m), int(rng.integers(2**31))).inertia_ for m in counts])
    inertia = np.minimum.accumulate(inertia)  # a local optimum may rise; the true curve doesn't
    from kneed import KneeLocator  # here: importing it takes seconds

    knee = KneeLocator(counts, inertia, curve="convex", direction="decreasing").knee
    if knee is None:
        chord = np.interp(counts, [1, most], [inertia[0], inertia[-1]])
        return int(counts[np.argmax(chord - inertia)])
    return int(knee)


def spread(clusters: Clusters, k: int) -> np.ndarray:
    """Indices int64 [min(k, N)] of members nearest to their centre, spread over the clusters.

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


def _kmeans(
    coarse: np.ndarray, clusters: int, seed: int, weights: np.ndarray | None = None
) -> KMeans:
    model = KMeans(
        clusters, n_init=_RESTARTS if clusters <= _FEW else 1, max_iter=100, random_state=seed
    )
    with one_thread(), warnings.catch_warnings():
        # Near copies can leave a cluster empty; _numbered drops it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(coarse, sample_weight=weights)


@functools.cache
def _directions(features: int) -> np.ndarray:
    """float32 [D, DIMENSIONS]: fixed random directions from which the principal ones are found."""
    return np.random.default_rng(0).standard_normal((features, DIMENSIONS), dtype=np.float32)


def _reduced(points: np.ndarray) -> np.ndarray:
    """[N, min(D, DIMENSIONS)]: points in (nearly) their principal components.

    Randomised range finder with one power iteration (Halko et al. 2011) on at most _LEARN points.
    Up to DIMENSIONS points, every distance is kept.
    """
    if points.shape[1] <= DIMENSIONS:
        return points
    sample = points[:: -(-len(points) // _LEARN)]
    with one_thread():
        range_ = (sample.T @ (sample @ _directions(points.shape[1]))).astype(np.float64)
        # Orthonormal columns by way of their 64 x 64 products: five times as fast as QR.
        values, vectors = np.linalg.eigh(range_.T @ range_)
        kept = values > _NOTHING * values[-1]
        basis = range_ @ (vectors[:, kept] / np.sqrt(values[kept]))
        return points @ basis.astype(np.float32)


def _settled(
    points: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and centres after Lloyd steps in all features; a group left empty keeps its centre."""
    mass = np.ones(len(points), dtype=points.dtype)
    if weights is not None:
        mass = weights.astype(points.dtype)
    centres = np.zeros((int(labels.max()) + 1, points.shape[1]), dtype=points.dtype)
    for _ in range(_SETTLE):
        heavy = np.bincount(labels, mass, len(centres))
        member = csr_array((mass, (labels, np.arange(len(labels)))), (len(centres), len(labels)))
        kept = heavy > 0
        centres[kept] = (member @ points)[kept] / heavy[kept, None].astype(points.dtype)
        before, labels = labels, squared_distances(points, centres).argmin(axis=1)
        if (labels == before).all():
            break
    return labels, centres


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
    middle = (points[first] if centres is None else centres[kept])[order].astype(points.dtype)
    distances = np.empty(len(points))
    step = max(1, _BLOCK // max(1, points.shape[1]))
    for start in range(0, len(points), step):
        # The difference itself, not |x|^2 - 2xc + |c|^2: equal rows must get equal distances.
        block = slice(start, start + step)
        apart = points[block] - middle[labels[block]]
        distances[block] = np.einsum("ij,ij->i", apart, apart)
    return Clusters(labels, middle, distances)
