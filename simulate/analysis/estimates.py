"""What repeated runs say: means with intervals, and paired comparisons of two arms.

The repetitions are folds and seeds. Seeds of one fold are tested on the same recordings: they are
averaged first, and the folds count. Folds share training data: comparisons are corrected for it
(statistics.resampled); the intervals of single means are not, and are somewhat too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from simulate.analysis.statistics import holm, not_worse, resampled

LEVEL = 0.95
ALPHA = 1 - LEVEL
LEAST_PAIRS = 3  # folds: two differences that happen to agree would pass for evidence
Repetition = tuple[int, int]
"""(fold, seed): what pairs the runs of two arms."""


@dataclass(frozen=True)
class Estimate:
    """Mean of n repetitions, their standard deviation, and the mean's 95 % t interval.

    With one repetition there is neither deviation nor interval: sd, low and high are None.
    """

    n: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """`arm` minus `baseline` over the folds that both have, with a corrected resampled t-test.

    p_t is None with fewer than three folds; `p_holm` is p_t corrected for all the comparisons of
    one claim (Holm 1979). smallest: the difference that would have been found with a power of 80 %,
    before that correction. margin: None, or by how much the arm may be worse: then the p-values are
    those of the claim that it is not worse than that.
    """

    arm: str
    baseline: str
    difference: Estimate
    p_t: float | None = None
    p_holm: float | None = None
    smallest: float | None = None
    margin: float | None = None

    @property
    def reliable(self) -> bool:
        """Whether the claim survives the correction at the 5 % level."""
        return self.p_holm is not None and self.p_holm < ALPHA


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, standard deviation (n - 1) and interval of at least one finite value."""
    sample = np.asarray(values, dtype=float)
    if len(sample) == 0 or not np.isfinite(sample).all():
        raise ValueError(f"an estimate needs finite values, got {values}")
    mean = float(sample.mean())
    if len(sample) == 1:
        return Estimate(1, mean)
    sd = float(sample.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(sample) - 1)) * sd / math.sqrt(len(sample))
    return Estimate(len(sample), mean, sd, mean - half, mean + half)


def by_fold(values: Mapping[Repetition, float]) -> dict[int, float]:
    """The mean over the seeds of each fold."""
    folds: dict[int, list[float]] = {}
    for (fold, _), value in sorted(values.items()):
        folds.setdefault(fold, []).append(value)
    return {fold: float(np.mean(found)) for fold, found in folds.items()}


def compare(
    names: tuple[str, str],
    arm: Mapping[Repetition, float],
    baseline: Mapping[Repetition, float],
    test_share: float,
    margin: float | None = None,
) -> Comparison | None:
    """`arm` against `baseline` on the repetitions that both have; None where there are none.

    test_share: recordings tested by recordings to learn from, of a fold. Equal values throughout
    are no evidence of a difference: p = 1.
    """
    pairs = arm.keys() & baseline.keys()
    if not pairs:
        return None
    differences = list(by_fold({pair: arm[pair] - baseline[pair] for pair in pairs}).values())
    if len(differences) < LEAST_PAIRS:
        return Comparison(*names, estimate(differences), margin=margin)
    found = resampled(differences, test_share)
    spread = float(np.std(differences, ddof=1))
    difference = Estimate(found.splits, found.mean, spread, found.low, found.high)
    p = found.p if margin is None else not_worse(differences, test_share, margin)
    return Comparison(*names, difference, p, smallest=found.smallest, margin=margin)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with `p_holm`: those without a test stay as they are."""
    tested = [i for i, comparison in enumerate(comparisons) if comparison.p_t is not None]
    result = list(comparisons)
    raw = [comparisons[i].p_t or 0.0 for i in tested]
    for i, p in zip(tested, holm(raw).tolist(), strict=True):
        result[i] = replace(comparisons[i], p_holm=p)
    return result


def area(shares: Sequence[float], values: Sequence[float]) -> float:
    """Area under a learning curve over its span of shares: the mean height, by trapezoids."""
    if len(shares) != len(values) or len(shares) == 0:
        raise ValueError(f"{len(shares)} shares for {len(values)} values")
    if len(shares) == 1:
        return float(values[0])
    return float(np.trapezoid(values, shares) / (shares[-1] - shares[0]))
