"""Does training earn its place? Probe against challenger on labels that neither has learnt.

The labels are dealt into parts, speakers kept together where they are known. Each part is predicted
by a probe of the others, and by what the challenger makes of that probe with the others. The
challenger is kept only where its loss is lower by more than chance moves it; then it is trained
once more, on all labels. What challenges is in challengers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from scipy.special import log_softmax, softmax

from after_model import metrics
from after_model.classifier import EmotionClassifier
from after_model.classifier.calibration import fit_temperature
from after_model.classifier.finetuning import TrainingReport
from after_model.classifier.folds import held_out_folds

PROBE, FINE_TUNED = "probe", "fine-tuned"
PARTS = 3
"""Trainings that a comparison takes; more are more exact and cost as much again."""
LEAST = 5
"""Labels a class, on average, below which nothing is compared: parts would say nothing."""
CERTAINTY = 10.0
"""Labels' worth of belief, in the comparison, that probabilities are right as they are."""
MARGIN = 1.0
"""Standard errors by which the loss has to be lower."""
LEAST_GAIN = 0.005
"""Nats by which it has to be lower in any case."""


@dataclass(frozen=True)
class Outcome:
    """What a round made: kept is "probe" or "fine-tuned", and why.

    validation: metrics on labels that it has not learnt from, empty where there were too few.
    shifts: what the logits of known speakers lose, [C] each (see Probe.shifts).
    """

    kept: str
    reason: str
    classifier: EmotionClassifier
    validation: dict[str, float]
    report: TrainingReport = field(default_factory=TrainingReport)
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)


class Challenger(Protocol):
    """What would replace the probe of some labels, by their numbers.

    certainty: labels' worth of belief that its probabilities are right as they are.
    """

    name: str
    certainty: float

    def judged(self, known: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [M, C] of the held labels' recordings by probe and challenger of the known.

        NaN for recordings that can't be read.
        """

    def trained(self) -> tuple[EmotionClassifier, TrainingReport]:
        """The challenger of all labels."""


@dataclass(frozen=True)
class Comparison:
    """Losses [M] of both on labels that neither has learnt, cross-entropies in nats.

    Of logits divided by a temperature each, fitted to these labels: what is compared is what they
    hear, not how sure they are of it. targets [M, C]. temperature: what the challenger's logits are
    divided by where it serves; logits: what it then says of these labels, [M, C].
    """

    probe: np.ndarray
    challenger: np.ndarray
    targets: np.ndarray
    temperature: float
    logits: np.ndarray

    @property
    def gain(self) -> float:
        """By how much the challenger's loss is lower, on average."""
        return float((self.probe - self.challenger).mean())

    @property
    def error(self) -> float:
        """The standard error of the gain."""
        return float((self.probe - self.challenger).std(ddof=1) / np.sqrt(len(self.targets)))

    @property
    def helps(self) -> bool:
        """Whether the gain is more than what chance moves it by, and worth a round."""
        return self.gain > max(LEAST_GAIN, MARGIN * self.error)


def compete(
    probe: Outcome,
    challenger: Challenger,
    targets: np.ndarray,
    speakers: list[str],
    *,
    seed: int,
) -> Outcome:
    """The probe's outcome, or that of a challenger that is better; and why.

    targets [n, C] and speakers of all labels, as the challenger numbers them.
    """
    found = compare(challenger, targets, speakers, seed=seed)
    if found is None:
        return replace(probe, reason="Too few labels to compare a fine-tuned model by.")
    said = (
        f"on {len(found.targets)} labels that neither had learnt the loss of {challenger.name} is "
        f"{found.challenger.mean():.3f}, the probe's {found.probe.mean():.3f}"
    )
    if not found.helps:
        return replace(probe, reason=f"Fine-tuning does not help: {said}.")
    classifier, report = challenger.trained()
    classifier.head.linear.weight.data /= found.temperature
    classifier.head.linear.bias.data /= found.temperature
    probs = softmax(found.logits, axis=1)
    validation = metrics.evaluate(found.targets.argmax(axis=1), probs)
    validation["loss"] = float(_losses(found.logits, found.targets).mean())
    return Outcome(FINE_TUNED, f"Fine-tuning helps: {said}.", classifier, validation, report)


def compare(
    challenger: Challenger, targets: np.ndarray, speakers: list[str], *, seed: int
) -> Comparison | None:
    """Cross-validation of both; None where there are too few labels, or none can be read."""
    parts = held_out_folds(targets, speakers, PARTS, seed)
    if len(targets) < LEAST * targets.shape[1] or parts.max(initial=0) == 0:
        return None
    before, after = np.zeros(targets.shape), np.zeros(targets.shape)
    for part in np.unique(parts):
        known, held = np.flatnonzero(parts != part), np.flatnonzero(parts == part)
        before[held], after[held] = challenger.judged(known, held)
    kept = ~np.isnan(before + after).any(axis=1)
    if kept.sum() < 2:
        return None
    before, after, targets = before[kept], after[kept], targets[kept]
    own, other, temperature = (
        fit_temperature(said, targets, prior=1.0, strength=certainty)
        for said, certainty in (
            (before, CERTAINTY),
            (after, CERTAINTY),
            (after, challenger.certainty),
        )
    )
    return Comparison(
        probe=_losses(before / own, targets),
        challenger=_losses(after / other, targets),
        targets=targets,
        temperature=temperature,
        logits=after / temperature,
    )


def _losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropies in nats [n]."""
    return -(targets * log_softmax(logits, axis=1)).sum(axis=1)
