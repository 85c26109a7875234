"""Does fine-tuning earn its place? Probe against fine-tuned encoder on labels neither has learnt.

The labels are dealt into parts, speakers kept together where they are known. Each part is predicted
by a probe of the others, and by an encoder that was fine-tuned on the others from that probe. The
lower loss wins; a winning encoder is then fine-tuned once more, on all labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import softmax

from after_model import metrics
from after_model.classifier import EmotionClassifier
from after_model.classifier.calibration import fit_temperature
from after_model.classifier.finetuning import TrainingConfig, TrainingReport, TrainingSet, fit
from after_model.classifier.folds import held_out_folds
from after_model.classifier.scoring import score
from after_model.features import FeatureStore
from after_model.progress import Progress, silent

PROBE, FINE_TUNED = "probe", "fine-tuned"
PARTS = 3
"""Trainings that a comparison takes; more are more exact and cost as much again."""
LEAST = 5
"""Labels a class, on average, below which nothing is compared: parts would say nothing."""
CERTAINTY = 10.0
"""Labels' worth of belief that a fine-tuned model's probabilities are right as they are."""


@dataclass(frozen=True)
class Outcome:
    """What a round made: kept is "probe" or "fine-tuned", and why.

    validation: metrics on labels that it has not learnt from, empty where there were too few.
    """

    kept: str
    reason: str
    classifier: EmotionClassifier
    validation: dict[str, float]
    report: TrainingReport = field(default_factory=TrainingReport)


def compete(
    probe: Outcome,
    from_probe: Callable[[TrainingSet], EmotionClassifier],
    store: FeatureStore,
    labelled: TrainingSet,
    config: TrainingConfig,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> Outcome:
    """The probe's outcome, or that of an encoder that was fine-tuned and is better; and why.

    from_probe: a classifier whose head is the probe of a training set.
    """
    utterances, targets = labelled
    parts = held_out_folds(targets, [u.speaker for u in utterances], PARTS, config.seed)
    if len(targets) < LEAST * targets.shape[1] or parts.max(initial=0) == 0:
        return replace(probe, reason="Too few labels to compare a fine-tuned encoder by.")
    before, after = np.zeros(targets.shape), np.zeros(targets.shape)
    for part in np.unique(parts):
        held = np.flatnonzero(parts == part)
        judged = [utterances[i] for i in held]
        training = _part(labelled, np.flatnonzero(parts != part))
        classifier = from_probe(training)
        before[held] = score(classifier, store, judged, device=device).probs
        fit(classifier, store, training, None, config, device=device, progress=progress)
        after[held] = score(classifier, store, judged, device=device).probs
    temperature = fit_temperature(_log(after), targets, prior=1.0, strength=CERTAINTY)
    after = softmax(_log(after) / temperature, axis=1)
    loss, bar = _loss(after, targets), _loss(before, targets)
    said = f"on {len(targets)} labels that neither had learnt its loss is {loss:.3f}"
    if loss >= bar:
        return replace(probe, reason=f"Fine-tuning did not help: {said}, the probe's {bar:.3f}.")
    classifier = from_probe(labelled)
    report = fit(classifier, store, labelled, None, config, device=device, progress=progress)
    classifier.head.linear.weight.data /= temperature
    classifier.head.linear.bias.data /= temperature
    validation = metrics.evaluate(targets.argmax(axis=1), after) | {"loss": loss}
    reason = f"Fine-tuning helps: {said}, the probe's {bar:.3f}."
    return Outcome(FINE_TUNED, reason, classifier, validation, report)


def _part(labelled: TrainingSet, rows: np.ndarray) -> TrainingSet:
    utterances, targets = labelled
    return [utterances[i] for i in rows], targets[rows]


def _log(probs: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probs, 1e-12))


def _loss(probs: np.ndarray, targets: np.ndarray) -> float:
    """Mean cross-entropy, nats."""
    return float(-(targets * _log(probs)).sum(axis=1).mean())
