"""What every acquisition strategy is made of: the pool it sees, its interface, the true top k,
and how many candidates one that is not linear in the pool looks at."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

CANDIDATES = 10_000
"""How many utterances a strategy that is not linear in the pool looks at (or twice k, if more)."""

SUM_TOLERANCE = 1e-3
"""How far the probabilities of one row may be from summing to 1 (half precision needs it)."""


@dataclass(frozen=True)
class Pool:
    """The unlabelled utterances as the current model sees them, row i = utterance i.

    Fill the fields that the strategy `needs`, and those that it `uses` where there are any; the
    others stay None. A strategy that needs none (random) takes `Pool(size=N)`.

    An array may be lazily readable: a memory map, or any object with len, shape, dtype and
    x[rows] for an integer array of rows. Strategies read the rows that they look at, no others.
    """

    probs: np.ndarray | None = None  # [N, C]
    embeddings: np.ndarray | None = None  # [N, H], pooled representation of the current model
    mc_probs: np.ndarray | None = None  # [K, N, C], the same dropout masks for all utterances
    cnn_embeddings: np.ndarray | None = None  # [N, D], pooled CNN-encoder output
    surprisal: np.ndarray | None = None  # [N, S], pre-training loss per frame position
    size: int | None = None  # N, where no array says it
    labelled_embeddings: np.ndarray | None = None  # [L, H], of what is labelled already
    labelled_targets: np.ndarray | None = None  # [L, C], their (soft) labels

    def __post_init__(self) -> None:
        lengths = self._lengths()
        if not lengths:
            raise ValueError("an empty Pool says nothing: give an array or size=N")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the pool's arrays disagree on the number of utterances: {lengths}")
        labelled = [
            np.shape(value)[0]
            for value in (self.labelled_embeddings, self.labelled_targets)
            if value is not None
        ]
        if len(set(labelled)) > 1:
            raise ValueError(f"labelled_embeddings and labelled_targets differ in rows: {labelled}")

    def __len__(self) -> int:
        return next(iter(self._lengths().values()))

    def need(self, name: str) -> np.ndarray:
        """The field `name`; ValueError if the pool was scored without it."""
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"this strategy needs Pool.{name}, which the pool was built without")
        return value if hasattr(value, "shape") else np.asarray(value)

    def _lengths(self) -> dict[str, int]:
        lengths = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or field.name.startswith("labelled_"):
                continue
            if field.name == "size":
                lengths["size"] = value
            else:
                lengths[field.name] = np.shape(value)[1 if field.name == "mc_probs" else 0]
        return lengths


class Strategy(Protocol):
    """Chooses the utterances to label next."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]:
        """Names of the Pool fields it reads; empty = the pool needs no scoring."""

    @property
    def uses(self) -> frozenset[str]:
        """Names of the Pool fields that it also reads where the pool has them."""

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [min(k, N)]: distinct indices into the pool, most wanted first."""


@dataclass(frozen=True)
class ByScore:
    """A strategy that gives every utterance its own score [N] and asks for the k highest."""

    name: str
    needs: frozenset[str]
    score: Callable[[Pool], np.ndarray]
    uses: frozenset[str] = frozenset()

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        return top_k(self.score(pool), k)


@dataclass(frozen=True)
class ByBatch:
    """A strategy that chooses its k utterances together: `choose(pool, k, rng)` -> [min(k, N)]."""

    name: str
    needs: frozenset[str]
    choose: Callable[[Pool, int, np.random.Generator], np.ndarray]
    uses: frozenset[str] = frozenset()

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> np.ndarray:
        return self.choose(pool, k, rng)


def wanted(k: int, available: int) -> int:
    """min(k, available); ValueError for a negative k, TypeError for one that is not whole."""
    k = operator.index(k)
    if k < 0:
        raise ValueError(f"k must not be negative, got {k}")
    return min(k, available)


def draw(size: int, k: int, rng: np.random.Generator, limit: int = CANDIDATES) -> np.ndarray:
    """int64, rising: the rows 0 .. size - 1 to choose k from, all of them or a random sample.

    The sample has `limit` rows, or 2 k if that is more; rng is used only where there is one.
    """
    count = max(limit, 2 * k)
    return np.arange(size) if size <= count else np.sort(rng.choice(size, count, replace=False))


def agreeing_samples(strategy: str) -> ValueError:
    """What to raise when all MC samples say the same of every utterance: nothing can be ranked."""
    return ValueError(
        f"{strategy}: the MC samples agree on every utterance, so there is nothing to choose by; "
        "it needs at least two samples with dropout. The backbone or the classifier has no "
        "dropout that is active: set a dropout above 0, or take a strategy that reads probs alone "
        "(entropy, margin, cluster-entropy)"
    )


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


def probabilities(probs: np.ndarray, dimensions: int = 2, first: int = 0) -> np.ndarray:
    """float64 copy of [..., C] with rows that sum to 1 exactly (to rounding).

    A block of a larger array says which row it begins with, for messages: `first`.

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
        named = [*row[:-1], row[-1] + first]
        raise ValueError(f"probs{named} is no distribution: {values[row].tolist()}")
    values /= sums[..., None]
    return values
