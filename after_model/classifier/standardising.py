"""Mean and deviation of every number of an embedding over a pool, computed in blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

BLOCK = 8_192
"""Rows that are turned to double precision at a time: 64 MB at 1,024 numbers."""


@dataclass(frozen=True)
class Standardiser:
    """mean and deviation, float64 [R] each. A number that never changes has a deviation of 1."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, points: np.ndarray, block: int = BLOCK) -> Standardiser:
        """Of points [N, R] of any float type, a memory map too: labelled and unlabelled alike."""
        if not len(points):
            raise ValueError("points: there is nothing to standardise by (0 recordings)")
        scaler = StandardScaler()
        for start in range(0, len(points), block):
            scaler.partial_fit(np.asarray(points[start : start + block], np.float64))
        return cls(scaler.mean_, scaler.scale_)
