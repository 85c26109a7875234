"""CNN+DTPM+SVM (Zhang et al. 2018, TMM 20(6)): discriminant temporal pyramid matching.

The CNN of cnn_svm_zhang.py; a recording's fc7 vectors are pooled over all of it, its halves and its
quarters, and the seven vectors, weighted, are one for a linear SVM. The pooling's power is the one
that parts the classes best [read: tzaiyang/SpeechEmoRec, which only sketches that].

Published, on BAUM-1s (six classes, speakers kept apart): 44.67.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics import pairwise_distances

from simulate.systems._cnn import CnnVector
from simulate.systems._supervised import Examples
from simulate.systems._vectors import svm

LEVELS = ((1, 1 / 4), (2, 1 / 4), (4, 1 / 2))
"""Cells, and the level's weight [read]."""
NEIGHBOURS = 20  # [read]
POWERS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, np.inf)
"""Among which the best is taken: from the mean to the largest (the paper solves for it)."""


@dataclass(frozen=True)
class CnnDtpmSvm(CnnVector):
    """The SVM's C is 1, LIBSVM's default (assumption)."""

    name: ClassVar[str] = "cnn-dtpm-svm"
    published: ClassVar[str] = "CNN+DTPM+SVM (100)"

    def pooled(self, train: Examples) -> Any:
        best = max(
            POWERS,
            key=lambda p: scatter(np.stack([pyramid(x, p) for x in train.pieces]), train.classes),
        )
        return lambda fc7: pyramid(fc7, best)

    def estimator(self, train: Examples) -> Any:
        return svm(kernel="linear")


def pyramid(vectors: np.ndarray, power: float) -> np.ndarray:
    """fc7 [K, D] in time -> [7 * D]; cells share a vector where there are fewer than cells."""
    found = []
    for cells, weight in LEVELS:
        for cell in range(cells):
            begin = cell * len(vectors) // cells
            end = max(begin + 1, -(-(cell + 1) * len(vectors) // cells))
            found.append(weight * lp_pool(vectors[begin:end], power))
    return np.concatenate(found)


def lp_pool(vectors: np.ndarray, power: float) -> np.ndarray:
    """(mean of |x|^p)^(1/p) over the first axis; infinity: the largest."""
    sizes = np.abs(vectors)
    largest = sizes.max(axis=0)
    if np.isinf(power):
        return largest
    scale = np.maximum(largest, 1e-12)  # x^10 would leave float32
    return scale * ((sizes / scale) ** power).mean(axis=0) ** (1 / power)


def scatter(vectors: np.ndarray, classes: np.ndarray) -> float:
    """Squared distances to the 20 nearest of other classes, over those to the 20 nearest of one's
    own: [N, D], [N] -> how far the classes are apart."""
    distances = pairwise_distances(vectors, metric="sqeuclidean")
    np.fill_diagonal(distances, np.inf)
    same = classes[:, None] == classes
    between, within = (
        np.sort(np.where(kind, distances, np.inf), axis=1)[:, :NEIGHBOURS] for kind in (~same, same)
    )
    apart, near = (values[np.isfinite(values)] for values in (between, within))
    return float(apart.mean() / max(near.mean(), 1e-12)) if len(apart) and len(near) else 0.0


SYSTEM = CnnDtpmSvm
