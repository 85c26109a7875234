"""What every acquisition strategy is made of: the pool it sees, its interface, the true top k."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

SUM_TOLERANCE = 1e-3
"""How far the probabilities of one row may be from summing to 1 (half precision needs it)."""


@dataclass(frozen=True)
class Pool:
    """The unlabelled utterances as the current model sees them, row i = utterance i.

    Fill the fields that the strategy `needs`; the others stay None. A strategy that needs none
    (random) takes `Pool(size=N)`.
    """

    probs: np.ndarray | None = None  # [N, C]
    embeddings: np.ndarray | None = None  # [N, H], pooled representation of the current model
    mc_probs: np.ndarray | None = None  # [K, N, C], the same dropout masks for all utterances
    cnn_embeddings: np.ndarray | None = None  # [N, D], pooled CNN-encoder output
    surprisal: np.ndarray | None = None  # [N, S], pre-training loss per frame position
    size: int | None = None  # N, where no array says it

    def __post_init__(self) -> None:
        lengths = self._lengths()
        if not lengths:
            raise ValueError("an empty Pool says nothing: give an array or size=N")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the pool's arrays disagree on the number of utterances: {lengths}")

    def __len__(self) -> int:
        return next(iter(self._lengths().values()))

    def need(self, name: str) -> np.ndarray:
        """The field `name`; ValueError if the pool was scored without it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"this strategy needs Pool.{name}, which the pool was built without")
        return np.asarray(value)

    def _lengths(self) -> dict[str, int]:
        lengths = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "size" and value is not None:
                lengths["size"] = value
            elif value is not None:
                lengths[field.name] = np.shape(value)[1 if field.name == "mc_probs" else 0]
        return lengths


class Strategy(Protocol):
    """Chooses the utterances to label next."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]:
        """Names of the Pool fields it reads; empty = the pool needs no scoring."""

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [min(k, N)]: distinct indices into the pool, most wanted first."""


@dataclass(frozen=True)
class ByScore:
    """A strategy that gives every utterance its own score [N] and asks for the k highest."""

    name: str
    needs: frozenset[str]
    score: Callable[[Pool], np.ndarray]

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        return top_k(self.score(pool), k)


@dataclass(frozen=True)
class ByBatch:
    """A strategy that chooses its k utterances together: `choose(pool, k, rng)` -> [min(k, N)]."""

    name: str
    needs: frozenset[str]
    choose: Callable[[Pool, int, np.random.Generator], np.ndarray]

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        return self.choose(pool, k, rng)


def wanted(k: int, available: int) -> int:
    """min(k, available); ValueError for a negative k, TypeError for one that is not whole."""
    k = operator.index(k)
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    return min(k, available)


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """int64 [min(k, N)]: indices of the k highest of scores [N], highest first.

    Equal scores come in utterance order. ValueError for a score that is NaN, naming the row.
    """
    scores = np.asarray(scores, dtype=np.float64)
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise ValueError(f"scores[{missing[0]}] is NaN")
    # A stable sort of everything: argpartition is faster but neither ordered nor stable.
    return np.argsort(-scores, kind="stable")[: wanted(k, len(scores))]


def probabilities(probs: np.ndarray, dimensions: int = 2) -> np.ndarray:
    """float64 copy of [..., C] with rows that sum to 1 exactly (to rounding).

    ValueError, naming the row, for a NaN, a negative value or a sum further from 1 than
    SUM_TOLERANCE; ValueError for another number of dimensions or no class.
    """
    values = np.array(probs, dtype=np.float64, order="C")
    if values.ndim != dimensions or values.shape[-1] == 0:
        raise ValueError(f"probs must have {dimensions} dimensions and a class, got {values.shape}")
    sums = values.sum(axis=-1)
    # Written so that NaN fails: every comparison with it is false.
    broken = ~((np.abs(sums - 1) <= SUM_TOLERANCE) & (values.min(axis=-1) >= 0))
    if broken.any():
        row = tuple(int(i) for i in np.argwhere(broken)[0])
        raise ValueError(f"probs{list(row)} is no distribution: {values[row].tolist()}")
    values /= sums[..., None]
    return values
