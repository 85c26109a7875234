"""How good the model is on what nobody has labelled, by a few labels that were drawn at random.

Labels that a model asked for because it was unsure say nothing of the rest: on EmoDB their
cross-validated UA is 0.3 too low. Audit labels are drawn uniformly from the unlabelled pool and are
not learnt from. Each says more together with what the model believes of every other recording
(model-assisted survey estimation: Särndal, Swensson and Wretman 1992; Lehtonen and Veijanen 1998,
"Logistic generalized regression estimators"; "prediction-powered inference", Angelopoulos et al.
2023). Beliefs needn't be right: audit labels correct them, and intervals hold for any.

The belief that a prediction is right is tilted: its odds by one factor exp(d) everywhere. An
estimate is what the rest is worth under the tilt at which audit labels are as often right as
expected; its interval takes in every tilt at which what was seen is no surprise (a score interval;
Wilson's, where the model believes the same of every recording).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from after_model.classifier.calibration import class_offsets, fit_temperature

LEAST = 10
"""Audit labels from which accuracy and UA are told: with fewer the interval is all there is."""
LEAST_OF_CLASS = 5
"""Audit labels of a class, as many as are expected, from which its recall is told."""
OFFSETS = 3.0
"""Labels' worth of belief that the model's shares of the classes are right."""
CERTAINTY = 10.0
"""Labels' worth of belief that the model is as sure as it ought to be."""
BELIEF = 1.0
"""Audit labels that the model's own belief counts as: five right of five are not 100 %."""
POINT = 0.01
"""UA that a point is."""
MOST = math.log(100)
"""More than hundred times the labels there are is no number to tell."""
TILTS = np.concatenate(
    [np.linspace(-8, -3, 6), np.linspace(-2.75, 4, 28), np.linspace(4.5, 12, 16)]
)
"""Logarithms of the factor, ascending; what is between them is interpolated."""


@dataclass(frozen=True)
class Interval:
    """A number in [0, 1] and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """What audit labels say of the rest of the pool.

    accuracy, ua: None below LEAST labels. recalls [C]: None below LEAST_OF_CLASS expected labels of
    the class; those that came by chance would choose which recalls are told. missing,
    missing_of_class [C]: audit labels still needed for these, 0 where they are there.
    """

    labels: int
    accuracy: Interval | None
    ua: Interval | None
    recalls: tuple[Interval | None, ...]
    missing: int
    missing_of_class: tuple[int, ...]


@dataclass(frozen=True)
class Needed:
    """Labels still needed, and between what they are with 95 % confidence.

    None: no such number; more labels may gain nothing.
    """

    value: int | None
    low: int | None
    high: int | None


def judge(
    rest: np.ndarray, audited: np.ndarray, classes: np.ndarray, known: np.ndarray | None = None
) -> Judgement:
    """Accuracy, UA and recalls of a model on the rest of a pool.

    rest: its probabilities [M, C] of unlabelled recordings, or of a random part of them.
    audited, classes: probabilities [n, C] and true class indices [n] of the audit labels, which
    were drawn uniformly from the same recordings and which it has not learnt from. known: bool [C],
    the classes that UA is the mean of (default: all). Raises ValueError for other shapes.
    """
    _check(rest, audited, classes)
    count, n = rest.shape[1], len(classes)
    known = np.ones(count, bool) if known is None else known
    missing = max(0, LEAST - n)
    shares = rest.mean(axis=0) if len(rest) else np.full(count, 1 / count)
    short = tuple(max(missing, math.ceil(LEAST_OF_CLASS / max(s, 1e-6)) - n) for s in shares)
    if missing or not len(rest):
        nothing: tuple[Interval | None, ...] = (None,) * count
        return Judgement(n, None, None, nothing, missing, short)
    ours = _Tilted(*_recalibrated(rest, audited, classes), classes)
    every = np.ones(count)
    of_class = np.eye(count)
    return Judgement(
        n,
        ours.interval(every, whole=True),
        ours.interval(known / max(1, known.sum())),
        tuple(None if lack else ours.interval(of_class[c]) for c, lack in enumerate(short)),
        missing,
        short,
    )


def gained(
    rest: np.ndarray,
    before: np.ndarray,
    audited: np.ndarray,
    audited_before: np.ndarray,
    classes: np.ndarray,
    known: np.ndarray | None = None,
) -> Interval | None:
    """What UA on the rest a model gained over one of fewer labels, in [-1, 1]; None below LEAST.

    rest [M, C], audited [n, C], classes [n], known: as in judge(). before [M], audited_before [n]:
    the classes that the earlier model predicts there. Both are judged by the same labels, so what
    both get right or wrong adds nothing to the interval.
    """
    _check(rest, audited, classes)
    n, size, count = len(classes), len(rest), rest.shape[1]
    if n < LEAST or not size:
        return None
    known = np.ones(count, bool) if known is None else known
    ours, theirs = _recalibrated(rest, audited, classes)
    belief, said = ours.whole(), theirs.whole()
    sizes = np.maximum(belief.sum(axis=0), 1e-12)
    weights = known / max(1, known.sum()) * size / sizes
    change = np.zeros((2, size, count))
    rows = np.arange(size)
    change[0, rows, ours.chosen] += 1
    change[1, rows, before] += 1
    recall = (belief * (change[0] - change[1])).sum(axis=0) / sizes
    worth = weights * (change[0] - change[1] - recall)
    mean = (belief * worth).sum(axis=1)
    spread = ((belief * worth**2).sum(axis=1) - mean**2).mean()
    rows = np.arange(n)
    here = (theirs.chosen[:, None] == np.arange(count)) * 1.0
    here -= audited_before[:, None] == np.arange(count)
    worth = weights * (here - recall)
    surplus = worth[rows, classes] - (said * worth).sum(axis=1)
    value = float((recall * known).sum() / max(1, known.sum()) + surplus.mean())
    half = float(student.ppf(0.975, n - 1) * np.sqrt(spread * _noise(n, size)))
    return Interval(value, value - half, value + half)


def promised(gain: Interval, labels: int, before: int, more: int) -> float:
    """UA that `more` labels promise if it grows with the logarithm of their number; see above."""
    return gain.value * math.log(1 + more / labels) / math.log(labels / before)


def next_point(labels: int, before: int, gain: Interval) -> Needed:
    """Labels that the next point of UA takes, if UA grows with the logarithm of their number.

    gain: what `labels` labels gained over `before` of them, fewer and at least 1.
    """
    if not 1 <= before < labels:
        raise ValueError(f"before: expected 1 to {labels - 1} labels, got {before}")
    steps = [POINT * math.log(labels / before) / g if g > 0 else math.inf for g in
             (gain.value, gain.high, gain.low)]  # fmt: skip
    value, low, high = (math.ceil(labels * math.expm1(x)) if x < MOST else None for x in steps)
    return Needed(value, low, high)


@dataclass(frozen=True)
class Beliefs:
    """chosen [n]: the class predicted; right [n]: that it is right; others [n, C]: that it is
    another class, 0 at the predicted one."""

    chosen: np.ndarray
    right: np.ndarray
    others: np.ndarray

    def whole(self) -> np.ndarray:
        """Probabilities [n, C], the predicted class's among them."""
        return self.others + self.right[:, None] * np.eye(self.others.shape[1])[self.chosen]

    def tilted(self, tilts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(that the prediction is right, what the others are multiplied by), [T, n] each."""
        odds = np.exp(tilts)[:, None]
        scale = 1 / (1 - self.right + self.right * odds)
        return self.right * odds * scale, scale


class _Tilted:
    """Estimates at every tilt. A measure is a weighted mean of recalls, or the share that is right:
    M recordings of which D_c are expected to be of class c weigh M weight_c / D_c each, or 1.
    """

    def __init__(self, rest: Beliefs, audited: Beliefs, classes: np.ndarray) -> None:
        self._rest, self._audited, self._classes = rest, audited, classes
        self._right, self._scale = rest.tilted(TILTS)
        self._audited_at = audited.tilted(TILTS)
        self._hits = self._right @ np.eye(rest.others.shape[1])[rest.chosen]  # [T, C]
        self._sizes = np.maximum(self._scale @ rest.others + self._hits, 1e-12)

    def interval(self, weights: np.ndarray, whole: bool = False) -> Interval:
        """Of the mean of recalls with these weights [C]; whole: of the share that is right."""
        values, surplus, spread, held = self._at_every_tilt(weights, whole)
        n = len(self._classes)
        value = _crossing(values, surplus * n + BELIEF * held)
        bound = student.ppf(0.975, n - 1) * np.sqrt(spread * _noise(n, len(self._rest.chosen)))
        inside = np.flatnonzero(np.abs(surplus) <= bound)
        if not len(inside):
            return Interval(value, 0.0, 1.0)
        low, high = 0.0, 1.0
        if inside[0] > 0:
            low = _crossing(values, (surplus - bound)[: inside[0] + 1])
        if inside[-1] < len(TILTS) - 1:
            first = inside[-1]
            high = _crossing(values[first:], (surplus + bound)[first:])
        return Interval(value, min(low, value), max(high, value))

    def _at_every_tilt(self, weights: np.ndarray, whole: bool) -> tuple[np.ndarray, ...]:
        """The measure; what the audit saw beyond it; the variance of one label; what the belief
        without a tilt sees beyond it. [T] each."""
        rest, audited = self._rest, self._audited
        recalls = self._hits / self._sizes
        gain = np.ones_like(recalls) if whole else len(rest.chosen) * weights / self._sizes
        loss = np.zeros_like(recalls) if whole else gain * recalls
        mean, square = _moments(rest, self._right, self._scale, gain, loss)
        expected, _ = _moments(audited, *self._audited_at, gain, loss)
        seen = gain[:, self._classes] * (audited.chosen == self._classes) - loss[:, self._classes]
        before, _ = _moments(rest, rest.right[None], np.ones((1, 1)), gain, loss)
        return (
            self._right.mean(axis=1) if whole else recalls @ weights,
            (seen - expected).mean(axis=1),
            (square - mean**2).mean(axis=1),
            (before - mean).mean(axis=1),
        )


def _noise(audits: int, rest: int) -> float:
    """Variance of what audits say of the rest, of one recording's: both are parts of one pool."""
    return 1 / audits + 1 / rest


def _moments(
    beliefs: Beliefs, right: np.ndarray, scale: np.ndarray, gain: np.ndarray, loss: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and mean square [T, n] of gain_y [y is predicted] - loss_y over the classes y believed.

    right, scale: as tilted; gain, loss: [T, C].
    """
    chosen = (gain - loss)[:, beliefs.chosen]
    mean = right * chosen - scale * (loss @ beliefs.others.T)
    return mean, right * chosen**2 + scale * (loss**2 @ beliefs.others.T)


def _recalibrated(
    rest: np.ndarray, audited: np.ndarray, classes: np.ndarray
) -> tuple[Beliefs, Beliefs]:
    """Beliefs as sure, and with such shares of the classes, as audit labels say; the predicted
    classes stay the model's."""
    logs = [np.log(np.maximum(probs, 1e-9)) for probs in (rest, audited)]
    targets = np.eye(rest.shape[1])[classes]
    temperature = fit_temperature(logs[1], targets, prior=1.0, strength=CERTAINTY)
    logs = [log / temperature for log in logs]
    offsets = class_offsets(logs[1], targets, strength=OFFSETS)
    found = []
    for probs, log in zip((rest, audited), logs, strict=True):
        chosen = probs.argmax(axis=1)
        said = np.exp(log + offsets)
        said /= said.sum(axis=1, keepdims=True)
        rows = np.arange(len(said))
        right = said[rows, chosen]
        said[rows, chosen] = 0.0
        found.append(Beliefs(chosen, right, said))
    return found[0], found[1]


def _crossing(values: np.ndarray, falling: np.ndarray) -> float:
    """The value where a falling curve crosses 0, by a line between its neighbours; else an end."""
    below = np.flatnonzero(falling <= 0)
    if not len(below) or not below[0]:
        return float(values[0] if len(below) else values[len(falling) - 1])
    k = below[0]
    part = falling[k - 1] / (falling[k - 1] - falling[k])
    return float(values[k - 1] + part * (values[k] - values[k - 1]))


def _check(rest: np.ndarray, audited: np.ndarray, classes: np.ndarray) -> None:
    if rest.ndim != 2 or audited.ndim != 2 or rest.shape[1] != audited.shape[1]:
        raise ValueError(
            "rest and audited: expected probabilities [M, C] and [n, C], "
            f"got {rest.shape} and {audited.shape}"
        )
    if classes.shape != audited.shape[:1]:
        raise ValueError(f"classes: expected {len(audited)} of them, got {classes.shape}")
