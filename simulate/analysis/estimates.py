"""What repeated runs say: means with intervals, and paired comparisons of two arms.

The repetitions are folds and seeds. Folds share training data, so intervals and p-values that treat
them as independent are somewhat too narrow; a report that shows them has to say so.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

LEVEL = 0.95
ALPHA = 1 - LEVEL
LEAST_PAIRS = 3  # two differences that happen to agree would pass for evidence
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
    """`arm` minus `baseline` over matching repetitions, with two paired tests.

    Tests are None with fewer than three pairs. `p_holm` is `p_t` corrected for all the comparisons
    of the same kind in one experiment (Holm 1979).
    """

    arm: str
    baseline: str
    difference: Estimate
    p_t: float | None = None
    p_wilcoxon: float | None = None
    p_holm: float | None = None

    @property
    def reliable(self) -> bool:
        """Whether the difference survives the correction at the 5 % level."""
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


def compare(
    names: tuple[str, str],
    arm: Mapping[Repetition, float],
    baseline: Mapping[Repetition, float],
) -> Comparison | None:
    """Paired t-test and Wilcoxon's signed-rank test of `arm` against `baseline`.

    Only repetitions that both have count; None where there are none. Equal values throughout are
    no evidence of a difference: p = 1.
    """
    pairs = sorted(arm.keys() & baseline.keys())
    if not pairs:
        return None
    differences = np.array([arm[pair] - baseline[pair] for pair in pairs])
    found = Comparison(*names, estimate(differences.tolist()))
    if len(pairs) < LEAST_PAIRS:
        return found
    spread = float(np.ptp(differences))
    if spread < 1e-12:
        p_t = 1.0 if abs(float(differences[0])) < 1e-12 else 0.0
    else:
        p_t = float(stats.ttest_1samp(differences, 0.0).pvalue)
    if not differences.any():
        return replace(found, p_t=p_t, p_wilcoxon=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few pairs or ties: SciPy says so, the report as well
        p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    return replace(found, p_t=p_t, p_wilcoxon=p_wilcoxon)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with `p_holm`: those without a test stay as they are."""
    tested = sorted(
        (i for i, c in enumerate(comparisons) if c.p_t is not None),
        key=lambda i: comparisons[i].p_t or 0.0,
    )
    result, largest = list(comparisons), 0.0
    for rank, index in enumerate(tested):
        raw = comparisons[index].p_t or 0.0
        largest = max(largest, min(1.0, raw * (len(tested) - rank)))
        result[index] = replace(comparisons[index], p_holm=largest)
    return result


def area(shares: Sequence[float], values: Sequence[float]) -> float:
    """Area under a learning curve over its span of shares: the mean height, by trapezoids."""
    if len(shares) != len(values) or len(shares) == 0:
        raise ValueError(f"{len(shares)} shares for {len(values)} values")
    if len(shares) == 1:
        return float(values[0])
    return float(np.trapezoid(values, shares) / (shares[-1] - shares[0]))
