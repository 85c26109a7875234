"""Squared Euclidean distances and nearest neighbours of bounded sets, by brute force in blocks.

Quadratic in the points it is given: whoever calls it bounds them (`base.draw`). Runs on one
thread: sums over threads round differently, and the same seed must give the same selection.
"""

from __future__ import annotations

import functools
import sys
from contextlib import AbstractContextManager

import numpy as np
from threadpoolctl import ThreadpoolController

REFERENCE = 2_000
"""Points among which neighbours are looked for; from there on, a random sample of so many."""

_BLOCK = 2**22  # distances held at once, 16 to 32 MiB
_ROUNDING = 32  # times eps times the two squared norms: below it, a distance is a rounding error


def one_thread() -> AbstractContextManager[None]:
    """Within it, BLAS and OpenMP use one thread, as threadpool_limits(1) has it but at once.

    Looking for the loaded libraries takes longer than a small k-means, so it is done again only
    when something was imported since: that is what loads them.
    """
    return _controller(len(sys.modules)).limit(limits=1)


@functools.lru_cache(maxsize=1)
def _controller(modules: int) -> ThreadpoolController:
    return ThreadpoolController()


def squared_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M] for floats [N, D] and [M, D]; rounding errors of zero are zero, so that copies tie."""
    with one_thread():
        inner = points @ others.T
    both = _squares(points)[:, None] + _squares(others)
    inner *= -2
    inner += both
    both *= _ROUNDING * np.finfo(both.dtype).eps
    inner[inner < both] = 0
    return inner


def nearest(
    points: np.ndarray, count: int, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [N, n] of the nearest others of points [N, D] and squared distances [N, n].

    Looked for in the rows `among` (all by default); a point is not its own neighbour. n =
    min(count, number of others that every point has). Nearest first; equal distances: row order.
    """
    among = np.arange(len(points)) if among is None else among
    count = max(0, min(count, len(among) - 1))
    rows = np.zeros((len(points), count), dtype=np.int64)
    squared = np.zeros((len(points), count), dtype=points.dtype)
    if count == 0:
        return rows, squared
    place = np.full(len(points), -1)
    place[among] = np.arange(len(among))
    others = points if len(among) == len(points) else points[among]
    step = max(1, _BLOCK // len(among))
    for start in range(0, len(points), step):
        block = slice(start, start + step)
        # The same array twice, where it is: BLAS then computes half of the products.
        distance = squared_distances(points if step >= len(points) else points[block], others)
        own = np.flatnonzero(place[block] >= 0)
        distance[own, place[block][own]] = np.inf
        near = np.sort(np.argpartition(distance, count - 1, axis=1)[:, :count], axis=1)
        values = np.take_along_axis(distance, near, axis=1)
        order = np.argsort(values, axis=1, kind="stable")
        rows[block] = among[np.take_along_axis(near, order, axis=1)]
        squared[block] = np.take_along_axis(values, order, axis=1)
    return rows, squared


def _squares(points: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", points, points)
