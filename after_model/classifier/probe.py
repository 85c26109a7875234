"""The probe: calibrated multinomial logistic regression on standardised embeddings.

`fit` takes a few labels (soft, some classes may have none) and gives a `Probe`: one affine map from
raw embeddings to logits, temperature folded in, so that a pool of any size is one matrix product.
What cross-validation says of it comes along: metrics, out-of-fold probabilities, and whether
taking off speakers' means helped. No torch; the same input gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from after_model import metrics
from after_model.classifier import softmax as regression
from after_model.classifier.calibration import HIGHEST, absent_logit, fit_temperature
from after_model.classifier.folds import held_out_folds
from after_model.classifier.speakers import SpeakerMeans, SpeakerReport
from after_model.classifier.standardising import BLOCK, Standardiser

FOLD_TOLERANCE = 1e-2
"""How closely cross-validation's fits are solved; a temperature does not see the difference."""
MANY_LABELS = 200
"""From here on half of the folds do: what a fit misses for want of a fifth is little."""


@dataclass(frozen=True)
class ProbeConfig:
    """How the probe is fitted.

    inverse_regularisation: scikit-learn's C; 0.05 to 0.3 differ by 0.02 UA at most.
    states: how many hidden states an embedding [S x R'] holds, one after the other; the probe sees
        the mean of the standardised states. 1: the embedding as it is.
    folds: of cross-validation; half as many from 200 labels on.
    temperature, few_labels, certainty: with n labels the temperature is expected at
        temperature x (1 + few_labels / n), held with the precision `certainty` of its logarithm:
        the fewer labels, the more overconfident a fit is; below 1, since labels asked for in doubt
        are harder than those to come. From EmoDB's and RAVDESS's random and margin's labels.
    smoothing: how much of a label a class without one is given.
    speaker_margin: by how many nats the loss by cross-validation must fall before speakers' means
        are taken off.
    tolerance: of the final fit, see softmax.solve.
    """

    inverse_regularisation: float = 0.1
    states: int = 1
    folds: int = 10
    calibrate: bool = True
    temperature: float = 0.7
    few_labels: float = 34.0
    certainty: float = 10.0
    smoothing: float = 1.0
    speaker_margin: float = 0.01
    tolerance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("inverse_regularisation", "temperature", "certainty", "smoothing"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        if self.states < 1:
            raise ValueError(f"states: expected at least 1, got {self.states}")


@dataclass(frozen=True)
class CrossValidation:
    """What the probe says of labels it was not fitted to; grouped by speaker where known.

    metrics: "ua", "wa", "macro_f1", "ece", "loss" (nats); empty where too few labels could be held
    out. probs float64 [n, C]: calibrated, in the order of the labels; [0, C] where there are none.
    Labels that were asked for because a model was unsure of them make it an underestimate.
    """

    metrics: dict[str, float]
    probs: np.ndarray
    folds: np.ndarray  # int [n], as held_out_folds gave them


@dataclass(frozen=True)
class Probe:
    """Logits = points @ weight.T + bias, with points raw embeddings [M, R].

    weight float64 [C, R], bias [C]: the temperature is in them. Where `speakers.used`, `means` says
    what recordings of known speakers lose first; transductive, see `speakers`.
    """

    weight: np.ndarray
    bias: np.ndarray
    temperature: float
    standardiser: Standardiser
    validation: CrossValidation
    speakers: SpeakerReport = field(default_factory=SpeakerReport)
    means: SpeakerMeans | None = None

    @property
    def cross_validated(self) -> dict[str, float]:
        """The metrics of `validation`."""
        return self.validation.metrics

    def logits(self, points: np.ndarray, speakers: Sequence[str] | None = None) -> np.ndarray:
        """float64 [M, C] of raw embeddings [M, R] of any float type, in blocks.

        speakers: who speaks in each; without it, or where it is "", nobody's mean is taken off.
        """
        if points.ndim != 2 or points.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"points: expected [M, {self.weight.shape[1]}], got {points.shape}; "
                "the probe was fitted to another representation"
            )
        logits = np.empty((len(points), len(self.weight)))
        for rows in _blocks(len(points)):
            logits[rows] = _double(points[rows]) @ self.weight.T
        logits += self.bias
        if self.means is not None and self.speakers.used and speakers is not None:
            logits -= self._shifts(self.means)[self.means.rows(speakers)]
        return logits

    def shifts(self) -> dict[str, np.ndarray]:
        """What each known speaker's logits lose, [C]; empty where no mean is taken off.

        With these a classifier made of the probe, which knows nobody, says what the probe says.
        """
        if self.means is None or not self.speakers.used:
            return {}
        return dict(zip(self.means.names, self._shifts(self.means), strict=False))

    def _shifts(self, means: SpeakerMeans) -> np.ndarray:
        """[speakers + 1, C]; the last is zeros, of who isn't known."""
        return means.offsets() @ self.weight.T

    def probs(self, points: np.ndarray, speakers: Sequence[str] | None = None) -> np.ndarray:
        """float64 [M, C], calibrated; see `logits`."""
        return softmax(self.logits(points, speakers), axis=1)

    def mc_probs(
        self,
        points: np.ndarray,
        samples: int,
        rng: np.random.Generator,
        rate: float = 0.2,
        speakers: Sequence[str] | None = None,
    ) -> np.ndarray:
        """[K, M, C]: each sample drops a share `rate` of the standardised numbers, for all rows.

        A sample is one model (the same mask for every row), as BatchBALD's joint entropies need. A
        dropped number counts as the pool's mean, the rest by 1 / (1 - rate).
        """
        if not 0 <= rate < 1:
            raise ValueError(f"rate: expected a number in [0, 1), got {rate}")
        kept = (rng.random((samples, self.weight.shape[1])) >= rate) / (1 - rate)
        centre = self.weight @ self.standardiser.mean + self.bias
        probs = np.empty((samples, len(points), len(self.weight)))
        for sample, mask in enumerate(kept):
            weight = self.weight * mask
            model = replace(self, weight=weight, bias=centre - weight @ self.standardiser.mean)
            probs[sample] = model.probs(points, speakers)
        return probs


@dataclass(frozen=True)
class Heads:
    """Probes that were fitted without a part of the labels each: weight [K, C, D], bias [K, C].

    group int [n]: which of them knows nothing of each label's recording.
    """

    weight: np.ndarray
    bias: np.ndarray
    group: np.ndarray


def cross_fitted(
    inputs: np.ndarray,
    targets: np.ndarray,
    group: np.ndarray,
    temperature: float,
    config: ProbeConfig | None = None,
) -> Heads:
    """A probe for each group 0..K-1 of labels, of all labels but that group's.

    inputs float64 [n, D]: what a probe's regression sees, standardised; temperature: of all.
    """
    config = config or ProbeConfig()
    with threadpool_limits(1):
        rows = regression.prepare(inputs, config.inverse_regularisation)
        known = (group != np.unique(group)[:, None]).astype(float)
        solution = regression.solve(rows, targets, known, tolerance=FOLD_TOLERANCE)
        logits = solution.logits(rows)
        weight = np.stack([solution.weight(rows, fit) for fit in range(len(known))])
    bias = solution.bias.copy()
    for fit in range(len(known)):
        told = bias[fit] > regression.LEFT_OUT / 2
        said = logits[fit][group == fit][:, told]
        said -= said.mean(axis=1, keepdims=True)
        bias[fit, told] -= bias[fit, told].mean()
        weight[fit, ~told] = 0.0
        if not told.all():
            labels = int(known[fit].sum())
            bias[fit, ~told] = absent_logit(said, labels, config.smoothing)
    return Heads(weight / temperature, bias / temperature, group)


def fit(
    points: np.ndarray,
    targets: np.ndarray,
    *,
    statistics: Standardiser,
    speakers: Sequence[str] | None = None,
    means: SpeakerMeans | None = None,
    config: ProbeConfig | None = None,
) -> Probe:
    """The probe of labels targets [n, C] (rows sum to 1) of embeddings points [n, R].

    statistics: over the pool. speakers: who speaks in each row; cross-validation then keeps them
    apart. means: of the pool's speakers; then cross-validation by speaker also decides whether they
    are taken off. No label, one label, labels of one class, classes without any: all are normal.
    """
    config = config or ProbeConfig()
    targets = np.asarray(targets, np.float64)
    _check(points, targets, statistics, config)
    with threadpool_limits(1):  # the order of sums is the seed's business alone
        plain = _fit(_inputs(points, statistics, config), targets, speakers, config)
        chosen, report, offsets = plain, SpeakerReport(), None
        if means is not None and speakers is not None and plain.validation.metrics:
            offsets = means.offsets()[means.rows(speakers)]
            centred = _inputs(_double(points) - offsets, statistics, config)
            less = _fit(centred, targets, speakers, config)
            report = _compare(plain.validation, less.validation, speakers, config)
            chosen = less if report.used else plain
    scale = np.tile(chosen.weight, config.states) / config.states
    weight = scale / statistics.deviation
    return Probe(
        weight,
        chosen.bias - weight @ statistics.mean,
        chosen.temperature,
        statistics,
        chosen.validation,
        report,
        means if report.used else None,
    )


@dataclass(frozen=True)
class _Fitted:
    """A probe on what it sees: weight [C, D], bias [C], temperature in both."""

    weight: np.ndarray
    bias: np.ndarray
    temperature: float
    validation: CrossValidation


def _fit(
    inputs: np.ndarray, targets: np.ndarray, speakers: Sequence[str] | None, config: ProbeConfig
) -> _Fitted:
    classes = targets.shape[1]
    labels = len(targets)
    present = targets.sum(axis=0) > 0
    nothing = CrossValidation({}, np.zeros((0, classes)), np.zeros(0, int))
    if present.sum() < 2:
        bias = np.zeros(classes)
        if present.any():
            bias[~present] = absent_logit(np.zeros((1, 1)), labels, config.smoothing)
        return _Fitted(np.zeros((classes, inputs.shape[1])), bias, 1.0, nothing)
    rows = regression.prepare(inputs, config.inverse_regularisation)
    everything = np.ones((1, labels))
    solution = regression.solve(rows, targets, everything, tolerance=config.tolerance)
    # by speaker it is pessimistic for the pool, whose speakers have labels, and the more so where
    # labels were asked for in doubt; otherwise optimistic for new speakers: half each
    ways = [None] if speakers is None or len(set(speakers) - {""}) < 2 else [speakers, None]
    count = config.folds if labels < MANY_LABELS else -(-config.folds // 2)
    splits = [held_out_folds(targets, way, max(count, 2), config.seed) for way in ways]
    splits = [split for split in splits if split.max() > 0] if _enough(targets) else []
    held = _held_out(rows, targets, solution, splits, config.smoothing) if splits else []
    temperature = _temperature(held, targets, config)
    weight = solution.weight(rows) / temperature
    bias = np.where(present, solution.bias[0], 0.0) / temperature
    bias[present] -= bias[present].mean()
    weight[~present] = 0.0
    if not present.all():
        said = (held[0] if held else solution.logits(rows)[0])[:, present]
        said = (said - said.mean(axis=1, keepdims=True)) / temperature
        bias[~present] = absent_logit(said, labels, config.smoothing)
    validation = nothing
    if held:
        validation = _validation(softmax(held[0] / temperature, axis=1), targets, splits[0])
    return _Fitted(weight, bias, temperature, validation)


def _held_out(
    rows: regression.Rows,
    targets: np.ndarray,
    start: regression.Solution,
    splits: Sequence[np.ndarray],
    smoothing: float,
) -> list[np.ndarray]:
    """Logits [n, C] of each split, by fits that did not know the row.

    A class that a fit knew no label of gets its share there too: that it will be missed is
    part of how sure the probe may be.
    """
    known = np.concatenate([split != np.unique(split)[:, None] for split in splits])
    solution = regression.solve(
        rows, targets, known.astype(float), start=start, tolerance=FOLD_TOLERANCE
    )
    logits, held, first = solution.logits(rows), [], 0
    for split in splits:
        own = np.empty(targets.shape)
        for fold in range(int(split.max()) + 1):
            members = split == fold
            told = solution.bias[first + fold] > regression.LEFT_OUT / 2
            said = logits[first + fold][members]
            said -= said[:, told].mean(axis=1, keepdims=True)
            labels = len(split) - int(members.sum())
            said[:, ~told] = absent_logit(said[:, told], labels, smoothing)
            own[members] = said
        held.append(own)
        first += int(split.max()) + 1
    return held


def _temperature(held: Sequence[np.ndarray], targets: np.ndarray, config: ProbeConfig) -> float:
    """Of all ways of holding out together, each label counted once; the prior without any."""
    if not config.calibrate:
        return 1.0
    nothing = np.zeros((0, targets.shape[1]))
    return fit_temperature(
        np.concatenate([nothing, *held]),
        np.concatenate([nothing, *[targets / len(held) for _ in held]]),
        prior=min(config.temperature * (1 + config.few_labels / len(targets)), HIGHEST),
        strength=config.certainty,
    )


def _enough(targets: np.ndarray) -> bool:
    """Whether two classes have a label to learn from beside one to be judged by."""
    counts = np.bincount(targets.argmax(axis=1))
    return int((counts >= 2).sum()) >= 2


def _validation(said: np.ndarray, targets: np.ndarray, split: np.ndarray) -> CrossValidation:
    found = metrics.evaluate(targets.argmax(axis=1), said)
    found["loss"] = float(_losses(said, targets).mean())
    return CrossValidation(found, said, split)


def _losses(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropies in nats [n]."""
    return -(targets * np.log(np.maximum(probs, 1e-12))).sum(axis=1)


def _compare(
    plain: CrossValidation, less: CrossValidation, speakers: Sequence[str], config: ProbeConfig
) -> SpeakerReport:
    """Both ways side by side; used where the loss falls by the margin, by speaker."""
    if len(set(speakers) - {""}) < 2:
        return SpeakerReport()
    gain = plain.metrics["loss"] - less.metrics["loss"]
    return SpeakerReport(
        used=bool(gain > config.speaker_margin),
        with_loss=less.metrics["loss"],
        without_loss=plain.metrics["loss"],
        with_ua=less.metrics["ua"],
        without_ua=plain.metrics["ua"],
    )


def _inputs(points: np.ndarray, statistics: Standardiser, config: ProbeConfig) -> np.ndarray:
    """What the regression sees, float64 [n, R / S]: the mean of the S standardised states."""
    scaled = (_double(points) - statistics.mean) / statistics.deviation
    return scaled.reshape(len(points), config.states, scaled.shape[1] // config.states).mean(axis=1)


def _double(points: np.ndarray) -> np.ndarray:
    return np.asarray(points, np.float64)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def _check(
    points: np.ndarray, targets: np.ndarray, statistics: Standardiser, config: ProbeConfig
) -> None:
    if points.ndim != 2 or targets.ndim != 2 or len(points) != len(targets):
        raise ValueError(
            "points and targets: expected shapes [n, R] and [n, C], "
            f"got {points.shape} and {targets.shape}"
        )
    if points.shape[1:] != statistics.mean.shape:
        raise ValueError(
            f"statistics: expected those of {points.shape[1]} numbers, got {statistics.mean.shape}"
        )
    if points.shape[1] % config.states:
        raise ValueError(
            f"states: {points.shape[1]} numbers are not {config.states} states of one size"
        )
    if not np.allclose(targets.sum(axis=1), 1.0, atol=1e-3) or (targets < 0).any():
        raise ValueError("targets: every row must be a distribution over the classes")
