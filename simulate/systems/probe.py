"""The floor that everything has to be better than: frozen embeddings, a probe, random labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier import DEFAULT_HEAD
from after_model.classifier import probe as probes
from after_model.classifier.probe import Probe, ProbeConfig
from after_model.classifier.standardising import Standardiser
from after_model.labels import LabelSpace
from simulate.systems._frozen import Frozen, States
from simulate.systems._weights import weights_of
from simulate.systems.base import Context, Cost, Stage, System
from simulate.task import Predict, Predicted, TrainView


@dataclass(frozen=True)
class RandomProbe(System):
    """encoder: a backbone by name. head, states: what of it is pooled, as LearnerConfig says."""

    encoder: str = backbone.DEFAULT
    head: str = DEFAULT_HEAD
    states: States = None

    name: ClassVar[str] = "probe"

    @property
    def title(self) -> str:
        return "probe, random labels"

    @property
    def backbone(self) -> str:
        return self.encoder

    def weights(self) -> str:
        return weights_of(self.encoder)

    def encoding(self) -> str:
        return f"{self.weights()} {self.head} {self.states} True"

    def encode(self, items: Sequence[Utterance], context: Context) -> None:
        frozen = Frozen(self.encoder, self.head, self.states, context)
        frozen.fill(items)
        frozen.of(items)

    def run(self, view: TrainView, context: Context) -> Iterator[Stage]:
        frozen = Frozen(self.encoder, self.head, self.states, context)
        found = frozen.of(view.items)
        readable = np.flatnonzero(found.readable)
        items, space = [view.items[i] for i in readable], LabelSpace(tuple(view.classes))
        row = {item.id: int(i) for item, i in zip(items, readable, strict=True)}
        statistics = Standardiser.of(found.take(readable))
        config = ProbeConfig(states=frozen.states, seed=context.seed)
        order, seconds = context.drawn(items), 0.0
        for share, total in context.totals(len(items)):
            labels = view.ask(item.id for item in order[:total])
            began = time.perf_counter()
            model = probes.fit(
                found.take(np.array([row[id_] for id_ in labels])),
                np.array([space.target(label) for label in labels.values()]),
                statistics=statistics,
                speakers=[item.speaker for item in order[:total]] if items[0].speaker else None,
                config=config,
            )
            seconds += time.perf_counter() - began
            yield Stage(share, _predict(frozen, model), Cost(training_s=seconds))


SYSTEM = RandomProbe


def _predict(frozen: Frozen, model: Probe) -> Predict:
    def predict(items: Sequence[Utterance]) -> Predicted:
        found = frozen.of(items)
        skipped = {i: str(error) for i, error in found.unreadable.items()}
        return Predicted(model.probs(found.take(np.arange(len(items)))), skipped)

    return predict
