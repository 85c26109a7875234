"""Does fine-tuning earn its place? Probe against fine-tuned encoder on labels neither has learnt.

Every part of the labels is predicted by models that learnt from the others: by the probe, which has
done so anyway for its temperature, and by an encoder that was fine-tuned from a probe of those
others. Parts keep speakers together where they are known. The lower loss wins; a winning encoder is
then fine-tuned once more, on all labels, for as many epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from after_model import metrics
from after_model.classifier import EmotionClassifier
from after_model.classifier.calibration import temperature
from after_model.classifier.finetuning import TrainingConfig, TrainingReport, TrainingSet, fit
from after_model.classifier.scoring import score
from after_model.features import FeatureStore
from after_model.progress import Progress, silent

PARTS = 3
"""Trainings that a comparison takes; more are more exact and cost as much again."""


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
    make: Callable[[TrainingSet], EmotionClassifier],
    store: FeatureStore,
    labelled: TrainingSet,
    parts: np.ndarray,
    config: TrainingConfig,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> Outcome:
    """The probe's outcome, with the reason, or that of an encoder that was fine-tuned and is better.

    make: a classifier whose head is the probe of a training set. parts [n]: which of the parts each
    label is in, -1 for none. probe.validation["loss"] is the probe's on the same labels.
    """
    utterances, targets = labelled
    numbers = [int(n) for n in np.unique(parts) if n >= 0]
    if len(numbers) < 2 or "loss" not in probe.validation:
        return replace(probe, reason="Too few labels to compare a fine-tuned encoder by.")
    logits = np.zeros(targets.shape)
    reports = []
    for part in numbers:
        rest, held = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        training = ([utterances[i] for i in rest], targets[rest])
        classifier = make(training)
        reports.append(
            fit(classifier, store, training, None, config, device=device, progress=progress)
        )
        found = score(classifier, store, [utterances[i] for i in held], device=device)
        logits[held] = np.log(np.maximum(found.probs, 1e-12))
    judged = np.flatnonzero(parts >= 0)
    degree = temperature(logits[judged], targets[judged])
    probs = _softmax(logits[judged] / degree)
    loss = float(-(targets[judged] * np.log(np.maximum(probs, 1e-12))).sum(axis=1).mean())
    said = (
        f"loss {loss:.3f} fine-tuned, {probe.validation['loss']:.3f} as a probe, on "
        f"{len(judged)} labels that neither had learnt"
    )
    if loss >= probe.validation["loss"]:
        return replace(probe, reason=f"Fine-tuning did not help: {said}.")
    classifier = make(labelled)
    report = fit(classifier, store, labelled, None, config, device=device, progress=progress)
    classifier.cool(degree)
    validation = metrics.evaluate(targets[judged].argmax(axis=1), probs) | {"loss": loss}
    return Outcome("fine-tuned", f"Fine-tuning helps: {said}.", classifier, validation, report)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)
