"""How far results depend on which speakers were recorded: a bootstrap over speakers.

Folds are parts of one set of recordings; new recordings would be of new speakers. So speakers are
drawn anew, with all their recordings (Efron and Tibshirani 1993, chapter 8: the unit that is
independent), and the metric is computed of all test recordings together. It doesn't ask what other
training data would have given: the corrected resampled t-test does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 5_000
LEAST_SPEAKERS = 5  # fewer give too few different draws for an interval
LEVEL = 0.95


@dataclass(frozen=True)
class Bootstrapped:
    """A difference with its percentile interval. p: two-sided, at least 1 / draws."""

    speakers: int
    mean: float
    low: float
    high: float
    p: float


def counts(
    speakers: Sequence[str], truth: np.ndarray, predicted: np.ndarray, names: Sequence[str], c: int
) -> np.ndarray:
    """Confusion matrices [S, C, C] (truth by prediction) of each of the named speakers.

    speakers [N] and class indices truth [N], predicted [N]. Those that aren't named are left out.
    """
    number = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(names), c, c))
    known = [i for i, speaker in enumerate(speakers) if speaker in number]
    rows = np.array([number[speakers[i]] for i in known], dtype=int)
    np.add.at(found, (rows, np.asarray(truth)[known], np.asarray(predicted)[known]), 1)
    return found


def ua(confusion: np.ndarray) -> np.ndarray:
    """Mean recall [...] of confusion matrices [..., C, C], over the classes that occur."""
    total = confusion.sum(axis=-1)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = np.divide(right, total, out=np.full(total.shape, np.nan), where=total > 0)
    return np.asarray(np.nanmean(recall, axis=-1))


def wa(confusion: np.ndarray) -> np.ndarray:
    """Accuracy [...] of confusion matrices [..., C, C]."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(right / confusion.sum(axis=(-2, -1)))


METRICS = {"ua": ua, "wa": wa}


def difference(
    arm: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    rng: np.random.Generator,
    metric: str = "ua",
    draws: int = DRAWS,
) -> Bootstrapped | None:
    """Arm minus baseline by the same draws of speakers; None for too few speakers.

    arm, baseline: confusion matrices [S, C, C] of each seed, speakers in one order; the metric is
    the mean over seeds.
    """
    speakers = len(arm[0])
    if speakers < LEAST_SPEAKERS:
        return None
    measure = METRICS[metric]
    weights = rng.multinomial(speakers, np.full(speakers, 1 / speakers), draws)
    weights = np.concatenate([np.ones((1, speakers), int), weights])  # the first: as measured

    def values(seeds: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean([measure(np.tensordot(weights, one, axes=1)) for one in seeds], axis=0)

    found = values(arm) - values(baseline)
    mean, drawn = found[0], found[1:]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    below = int(np.sum(drawn <= 0))
    above = int(np.sum(drawn >= 0))
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    return Bootstrapped(speakers, float(mean), float(low), float(high), float(p))


def by_seed(
    parts: Mapping[int, Sequence[np.ndarray]],
) -> list[np.ndarray]:
    """The sum over folds of confusion matrices [S, C, C], for each seed in order."""
    return [np.sum(parts[seed], axis=0) for seed in sorted(parts)]
