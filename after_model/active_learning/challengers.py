"""What competes with the probe in a round: an adapter on a frozen encoder, or its upper layers.

Both begin as the probe of the labels they may know, and number labels as their training set does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from after_model.active_learning.competition import Challenger
from after_model.active_learning.config import LearnerConfig
from after_model.active_learning.serving import ServingProbe
from after_model.classifier import EmotionClassifier
from after_model.classifier.adapting import (
    AdapterConfig,
    Frames,
    fit_adapter,
    judge,
    represent,
)
from after_model.classifier.finetuning import TrainingConfig, TrainingReport, TrainingSet, fit
from after_model.classifier.folds import held_out_folds
from after_model.classifier.probe import Heads, Probe, ProbeConfig, cross_fitted
from after_model.classifier.scoring import score
from after_model.features import FeatureStore
from after_model.progress import Progress, silent

FitProbe = Callable[[np.ndarray], tuple[Probe, EmotionClassifier]]
"""The probe of labels by their numbers, and the classifier that says what it says."""


def challenger_of(
    serving: ServingProbe, labelled: TrainingSet, config: LearnerConfig, *, seed: int
) -> Challenger:
    """What the configuration lets compete with the probe of a training set."""
    utterances, targets = labelled

    def fit_probe(rows: np.ndarray) -> tuple[Probe, EmotionClassifier]:
        probe = serving.fit({utterances[i].id: targets[i].tolist() for i in rows})
        return probe, serving.classifier(probe)

    if config.adapter is None:
        training = replace(config.training, seed=seed)
        return LayersChallenger(
            fit_probe, serving.store, labelled, training, serving.device, serving.progress
        )
    return AdapterChallenger(
        fit_probe,
        lambda: serving.frames(utterances),
        targets,
        [u.speaker for u in utterances],
        config.adapter,
        serving.settings,
        seed,
        serving.device,
        serving.progress,
    )


@dataclass(frozen=True)
class AdapterChallenger:
    """An adapter on the frames of a frozen encoder, which is run once.

    read: gives the frames of the labelled recordings.
    """

    fit_probe: FitProbe
    read: Callable[[], Frames]
    targets: np.ndarray
    speakers: list[str]
    config: AdapterConfig
    probe_config: ProbeConfig
    seed: int
    device: str = "auto"
    progress: Progress = silent
    name = "an adapter"
    certainty = 100.0  # its probe is calibrated; a temperature of few labels did harm, of many good

    @cached_property
    def frames(self) -> Frames:
        return self.read()

    def judged(self, known: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probe, classifier = self.fit_probe(known)
        readable = self.frames.readable[held]
        before, after = np.full((2, len(held), self.targets.shape[1]), np.nan)
        before[readable] = judge(classifier, self.frames, held[readable])
        self._adapt(probe, classifier, known)
        after[readable] = judge(classifier, self.frames, held[readable])
        return before, after

    def trained(self) -> tuple[EmotionClassifier, TrainingReport]:
        everything = np.arange(len(self.targets))
        probe, classifier = self.fit_probe(everything)
        report = self._adapt(probe, classifier, everything)
        return classifier, report

    def _adapt(
        self, probe: Probe, classifier: EmotionClassifier, known: np.ndarray
    ) -> TrainingReport:
        known = known[self.frames.readable[known]]
        return fit_adapter(
            classifier,
            self.frames,
            known,
            self.targets[known],
            self._heads(probe, classifier, known),
            self.config,
            seed=self.seed,
            device=self.device,
            progress=self.progress,
        )

    def _heads(
        self, probe: Probe, classifier: EmotionClassifier, known: np.ndarray
    ) -> Heads | None:
        """Probes that know nothing of a part of the speakers each; None for too few labels."""
        if len(known) < self.config.heads_from:
            return None
        targets, speakers = self.targets[known], [self.speakers[i] for i in known]
        group = held_out_folds(targets, speakers, self.config.heads, self.seed)
        if group.max() == 0:
            return None
        inputs = represent(classifier, self.frames, known).astype(np.float64)
        return cross_fitted(inputs, targets, group, probe.temperature, self.probe_config)


@dataclass(frozen=True)
class LayersChallenger:
    """An encoder that is fine-tuned as TrainingConfig says; minutes."""

    fit_probe: FitProbe
    store: FeatureStore
    labelled: TrainingSet
    config: TrainingConfig
    device: str = "auto"
    progress: Progress = silent
    name = "a fine-tuned encoder"
    certainty = 10.0

    def judged(self, known: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, classifier = self.fit_probe(known)
        before = self._log_probs(classifier, held)
        self._fit(classifier, known)
        return before, self._log_probs(classifier, held)

    def trained(self) -> tuple[EmotionClassifier, TrainingReport]:
        everything = np.arange(len(self.labelled[1]))
        _, classifier = self.fit_probe(everything)
        return classifier, self._fit(classifier, everything)

    def _fit(self, classifier: EmotionClassifier, known: np.ndarray) -> TrainingReport:
        utterances, targets = self.labelled
        given = [utterances[i] for i in known], targets[known]
        return fit(
            classifier, self.store, given, None, self.config,
            device=self.device, progress=self.progress,
        )  # fmt: skip

    def _log_probs(self, classifier: EmotionClassifier, rows: np.ndarray) -> np.ndarray:
        utterances = [self.labelled[0][i] for i in rows]
        found = score(classifier, self.store, utterances, device=self.device)
        said = np.log(np.maximum(found.probs, 1e-12))
        said[~found.readable] = np.nan
        return said
