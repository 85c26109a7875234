"""Is another round worth its labels? Advice from the curve and from how much models still change.

Beyond the paper. Two signals that need no further labels: the agreement of successive models on a
fixed set of recordings (stabilising predictions; Bloodgood and Vijay-Shanker, CoNLL 2009) and the
gain that the learning curve promises, from a fit of validation UA to the logarithm of the labels.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import cohen_kappa_score

from after_model.active_learning.audit import Interval
from after_model.active_learning.hashing import number
from after_model.active_learning.quality import Quality

STABLE = 0.95  # Cohen's kappa of successive models, mean of the last two pairs
STOP_SET = 200  # recordings on which successive models are compared
WORTHWHILE = 0.01  # UA that the next round should promise


@dataclass(frozen=True)
class StoppingAdvice:
    """Whether to stop, why in the user's words, and the two signals (None: not known yet)."""

    stop: bool
    reason: str
    agreement: float | None = None
    expected_gain: float | None = None


def stop_set(ids: Iterable[str], seed: int, size: int = STOP_SET) -> list[str]:
    """Recordings on which successive models are compared, sorted.

    Chosen by a hash of the id, so that a pool that grows keeps most of them.
    """
    return sorted(heapq.nsmallest(size, ids, key=lambda name: number(f"{seed}|{name}")))


def agreement(
    before: Mapping[str, int] | None, after: Mapping[str, int], num_classes: int
) -> float | None:
    """Cohen's kappa of two models' classes by id, on the recordings that both were shown."""
    shared = [key for key in after if key in (before or {})]
    if not before or not shared:
        return None
    return kappa([before[key] for key in shared], [after[key] for key in shared], num_classes)


def kappa(first: Sequence[int], second: Sequence[int], num_classes: int) -> float:
    """Cohen's kappa of two models' predicted classes [N]; 1 when both say one and the same."""
    if len(set(first) | set(second)) < 2:  # scikit-learn divides 0 by 0
        return 1.0
    return float(cohen_kappa_score(first, second, labels=range(num_classes)))


def expected_gain(labelled: Sequence[int], ua: Sequence[float], more: int) -> float:
    """UA that `more` labels promise: least squares of UA on log(labels), the last four rounds."""
    x = np.log(np.asarray(labelled[-4:], dtype=float))
    if np.ptp(x) == 0:  # rounds that had no new labels
        return 0.0
    slope = np.polyfit(x, np.asarray(ua[-4:], dtype=float), 1)[0]
    return float(slope * np.log((labelled[-1] + more) / labelled[-1]))


def advise(
    labelled: Sequence[int],
    ua: Sequence[float | None],
    agreement: Sequence[float],
    *,
    next_labels: int,
    remaining_budget: int,
    quality: Quality | None = None,
) -> StoppingAdvice:
    """Advice after the rounds so far.

    labelled, ua: per round; ua is the validation UA, None where there was no validation set, as in
    first rounds: the others make the curve.
    agreement: kappa of each round's model with the one before (one shorter).
    next_labels: what the next round would ask for. remaining_budget: labels still planned. quality:
    by audit labels; where it knows the gain the curve is not asked, since that is of the labels
    that were doubted.
    """
    measured = [(n, value) for n, value in zip(labelled, ua, strict=True) if value is not None]
    stable = float(np.mean(agreement[-2:])) if len(agreement) >= 2 else None
    gain = None
    if len(measured) >= 3:
        counts, values = zip(*measured, strict=True)
        more = labelled[-1] + max(1, next_labels) - counts[-1]
        gain = expected_gain(counts, values, more)
    by_audit = quality.promised(max(1, next_labels)) if quality is not None else None
    gain = gain if by_audit is None else by_audit
    if remaining_budget <= 0:
        return StoppingAdvice(True, "The planned labels are all given.", stable, gain)
    if stable is None:
        reason = "Too early to tell: three rounds are needed. Keep labelling."
        return StoppingAdvice(False, reason, stable, gain)
    said = f"successive models agree with kappa {stable:.2f}"
    if gain is not None:
        said += f" and {next_labels} more labels promise {100 * gain:+.1f} points of UA"
    if quality is not None and quality.ua is not None:
        said += f"; by {quality.audits} audit labels UA on the rest is {_percent(quality.ua)}"
    if stable >= STABLE and (gain is None or gain < WORTHWHILE):
        return StoppingAdvice(True, f"More labels would change little: {said}.", stable, gain)
    return StoppingAdvice(False, f"More labels are worth it: {said}.", stable, gain)


def _percent(interval: Interval) -> str:
    value, low, high = (f"{100 * x:.0f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} % ({low} to {high})"
