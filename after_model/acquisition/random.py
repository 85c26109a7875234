"""Random choice, the baseline of every comparison. Needs no scoring."""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import ByBatch, Pool, wanted


def _choose(pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(len(pool))[: wanted(k, len(pool))]


STRATEGY = ByBatch("random", frozenset(), _choose)
