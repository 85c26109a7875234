"""ProbCover: the batch whose balls of radius delta cover most of the pool
(Yehuda, Dekel, Hacohen and Weinshall 2022, "Active learning through a covering lens").

Greedily: the next utterance is the one with most uncovered ones within delta of it. Delta is the
largest radius at which a share ALPHA of all balls is pure, that is holds one pseudo-label only;
pseudo-labels are k-means clusters, as many as there are classes.
"""

from __future__ import annotations

import numpy as np

from after_model import clustering
from after_model.acquisition.base import CANDIDATES, ByBatch, Pool, draw, wanted
from after_model.neighbours import REFERENCE, squared_distances

ALPHA = 0.95
"""Share of pure balls (as in the paper)."""

_BLOCK = 2**22  # distances held at once


def probcover(
    embeddings: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    classes: int | None = None,
    labelled: np.ndarray | None = None,
    limit: int = CANDIDATES,
    reference: int = REFERENCE,
) -> np.ndarray:
    """int64 [min(k, N)], distinct, for embeddings [N, D] and those of the labelled ones [L, D].

    Without `classes`, the elbow says how many pseudo-labels. Equal cover: utterance order. When
    everything is covered, covering begins anew with what isn't chosen. Candidates are `limit` rows
    (2 k if more) drawn at random; what they are to cover, and what delta is measured on, are
    `reference` of them: time and memory O(limit * reference). Raises ValueError naming a row
    looked at that is not finite.
    """
    k = wanted(k, len(embeddings))
    rows = draw(len(embeddings), k, rng, limit)
    points, known = clustering.prepare_both(embeddings, rows, labelled, rng, limit)
    drawn = draw(len(points), 0, rng, reference)
    targets = points[drawn]
    squared = squared_distances(targets, targets)
    count = clustering.elbow(targets, rng) if classes is None else classes
    pseudo = clustering.fit(targets, max(2, count), rng).labels
    within = squared_radius(squared, pseudo)
    covers = np.empty((len(points), len(targets)), dtype=bool)
    covers[drawn] = squared <= within
    others = np.setdiff1d(np.arange(len(points)), drawn)
    covers[others] = _within(points[others], targets, within)
    still_open = np.logical_not(np.logical_or.reduce(_within(known, targets, within), axis=0))
    return rows[_greedy(covers, still_open, k)]


def squared_radius(squared: np.ndarray, labels: np.ndarray, alpha: float = ALPHA) -> float:
    """The square of the largest delta at which a share `alpha` of all balls is pure, for squared
    distances [N, N] and labels [N].

    A ball is pure below the distance to the nearest point with another label, so delta is a
    quantile of those distances; balls are closed, so it is just below it. inf if all agree.
    """
    if len(squared) == 0:
        return np.inf
    other = np.sort(np.where(labels[:, None] == labels, np.inf, squared).min(axis=1))
    # The i-th smallest is impure from there on: i balls may be, so that N - i >= alpha N are not.
    impure = int(np.floor((1 - alpha) * len(other) + 1e-9))
    return np.nextafter(other[min(impure, len(other) - 1)], 0)


def _within(points: np.ndarray, targets: np.ndarray, squared: float) -> np.ndarray:
    """bool [N, T]: which targets are at most sqrt(squared) from which points."""
    near = np.zeros((len(points), len(targets)), dtype=bool)
    step = max(1, _BLOCK // max(1, len(targets)))
    for start in range(0, len(points), step):
        block = slice(start, start + step)
        near[block] = squared_distances(points[block], targets) <= squared
    return near


def _greedy(covers: np.ndarray, still_open: np.ndarray, k: int) -> np.ndarray:
    """int64 [k]: rows of covers [n, T], each covering most of what is still open [T]."""
    free = np.ones(len(covers), dtype=bool)
    gain = covers[:, still_open].sum(axis=1)
    chosen: list[int] = []
    while len(chosen) < k:
        pick = int(np.where(free, gain, -1).argmax())
        if gain[pick] == 0 and not still_open.all():
            still_open = np.ones_like(still_open)
            gain = covers.sum(axis=1)
            continue
        chosen.append(pick)
        free[pick] = False
        new = covers[pick] & still_open
        gain = gain - covers[:, new].sum(axis=1)
        still_open = still_open & ~new
    return np.array(chosen, dtype=np.int64)


def _choose(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    known = pool.labelled_targets if pool.labelled_targets is not None else pool.probs
    return probcover(
        pool.need("embeddings"),
        k,
        rng,
        classes=None if known is None else known.shape[1],
        labelled=pool.labelled_embeddings,
    )


STRATEGY = ByBatch(
    "probcover",
    frozenset({"embeddings"}),
    _choose,
    frozenset({"probs", "labelled_embeddings", "labelled_targets"}),
)
