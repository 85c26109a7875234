"""What repeated splits of one corpus can show: pure functions of arrays.

Splits of the same recordings share training and test data, so their results are not independent and
the variance of their mean is underestimated by s^2 / J. Nadeau and Bengio (2003, "Inference for the
generalization error") correct it to (1/J + n_test / n_train) s^2; everything here that gives an
interval or a p-value does so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from sklearn.isotonic import isotonic_regression

LEVEL = 0.95
POWER = 0.8

_QUANTILES = (np.arange(1_000) + 0.5) / 1_000  # midpoints: an integral over a distribution


@dataclass(frozen=True)
class Resampled:
    """The mean of J splits' values with its corrected 95 % interval.

    p: two-sided, that the mean is 0. smallest: the mean that would have been found with a
    probability of 80 % at the 5 % level, uncorrected for other tests. Equal values have no spread
    to test by: then p is a sign test's, 2 / 2^J for J that are not 0.
    """

    splits: int
    mean: float
    low: float
    high: float
    p: float
    smallest: float


def resampled(values: Sequence[float] | np.ndarray, test_share: float) -> Resampled:
    """Corrected resampled t-test of values [J], J >= 2, one a split.

    test_share: n_test / n_train, the recordings tested on by those that labels were chosen from.
    Raises ValueError for fewer than two values or one that is not finite.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(f"values: expected at least two finite numbers, got {values}")
    if not test_share >= 0:
        raise ValueError(f"test_share: expected a number from 0, got {test_share}")
    mean, deviation = float(sample.mean()), float(sample.std(ddof=1))
    if deviation <= 1e-12 * max(1.0, abs(mean)):  # equal to rounding: no spread to test by
        p = 1.0 if abs(mean) < 1e-12 else 2.0 ** (1 - len(sample))
        return Resampled(len(sample), mean, mean, mean, p, 0.0)
    error = math.sqrt(1 / len(sample) + test_share) * deviation
    freedom = len(sample) - 1
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Resampled(
        len(sample), mean, mean - half, mean + half, p, smallest_difference(error, freedom)
    )


def not_worse(values: Sequence[float] | np.ndarray, test_share: float, margin: float) -> float:
    """One-sided p that the mean of paired differences [J] is -margin or less: non-inferiority.

    By the same corrected test; equal values above -margin have a sign test's p, 1 / 2^J.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected a number above 0, got {margin}")
    sample = np.asarray(values, dtype=float) + margin
    found = resampled(sample, test_share)
    return found.p / 2 if found.mean > 0 else 1 - found.p / 2


def smallest_difference(error: float, freedom: int, power: float = POWER) -> float:
    """The difference that a two-sided t-test finds with this power at the level of 5 %.

    error: standard error of the mean difference; freedom: degrees of freedom, at least 1. By the
    noncentral t distribution, found with the right sign.
    """
    limit = float(stats.t.ppf((1 + LEVEL) / 2, freedom))

    def missing(shift: float) -> float:
        # P(Z + shift > limit * sqrt(chi2 / freedom)): SciPy's own nct is NaN for large shifts
        spread = np.sqrt(stats.chi2.ppf(_QUANTILES, freedom) / freedom)
        return float(stats.norm.cdf(shift - limit * spread).mean()) - power

    return error * float(optimize.brentq(missing, 0.0, 4 * limit + 10))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's (1979) corrected p-values [M] of one family, in the order given."""
    raw = np.asarray(p_values, dtype=float)
    order = np.argsort(raw, kind="stable")
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    result = np.empty(len(raw))
    result[order] = np.minimum(stepped, 1.0)
    return result


def labels_needed(
    labels: Sequence[int] | np.ndarray, ua: Sequence[float] | np.ndarray, target: float
) -> float:
    """The number of labels at which a curve first reaches the target, between points by a line.

    labels [M] ascending, ua [M]. A single lucky point is no arrival: the curve is first made to
    rise (isotonic regression, each point weighing the same). NaN where it does not get there; the
    first number of labels where it is there from the beginning.
    """
    counts, values = np.asarray(labels, float), np.asarray(ua, float)
    if len(counts) != len(values) or len(counts) == 0 or (np.diff(counts) <= 0).any():
        raise ValueError("labels and ua: expected as many of each, labels ascending")
    rising = isotonic_regression(values)
    there = np.flatnonzero(rising >= target - 1e-12)
    if len(there) == 0:
        return math.nan
    after = int(there[0])
    if after == 0:
        return float(counts[0])
    before = after - 1
    part = (target - rising[before]) / (rising[after] - rising[before])
    return float(counts[before] + part * (counts[after] - counts[before]))
