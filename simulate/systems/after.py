"""AFTER, and every part of it: the product's own ActiveLearner, driven by a view.

What a run has reached is on disk after every round, so one that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from after_model import acquisition
from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.audio import Utterance
from after_model.device import resolve_device, resolve_precision
from after_model.labels import LabelSpace
from simulate.identity import plain
from simulate.systems._frozen import Frozen
from simulate.systems._weights import loaded, weights_of
from simulate.systems.base import Context, Cost, Stage, System
from simulate.task import Predicted, TrainView


@dataclass(frozen=True)
class After(System):
    """The learner's settings; its seeds are the run's, its shares the context's."""

    learner: LearnerConfig = field(default_factory=LearnerConfig)

    name: ClassVar[str] = "after"

    @property
    def title(self) -> str:
        return "AFTER"

    @property
    def backbone(self) -> str:
        return self.learner.backbone

    @property
    def validates(self) -> bool:
        """The paper's validation set is for early stopping; a learner without it gets none."""
        return self.learner.fine_tuning == "always"

    def resolved(self, device: str) -> After:
        where, learner = resolve_device(device), self.learner
        precision = resolve_precision(where, learner.training.precision)
        learner = replace(learner, training=replace(learner.training, precision=precision))
        if learner.tapt is not None:
            model = loaded(learner.backbone)
            size = sum(p.numel() for p in model.parameters())
            tapt = learner.tapt.resolved(model.family, model.num_layers, size)
            precision = resolve_precision(where, tapt.precision)
            learner = replace(learner, tapt=replace(tapt, precision=precision))
        return replace(self, learner=learner)

    def values(self) -> dict[str, Any]:
        """A backbone that is a folder goes by the folder's name; its weights are named apart."""
        name = self.learner.backbone
        name = Path(name).name if Path(name).is_dir() else name
        learner = plain(replace(self._seeded(0), backbone=name))
        for name in ("seed", "start_share", "shares"):  # the run's
            del learner[name]
        return {"learner": learner}

    def weights(self) -> str:
        return weights_of(self.learner.backbone)

    def check(self, shares: Sequence[float], size: int, classes: int) -> None:
        steps = self._at(shares, 0).schedule(size)[: len(shares)]
        if len(steps) < len(shares):
            raise ValueError(
                f"{len(shares)} shares of {size} training recordings give only {len(steps)} "
                f"different numbers of labels ({', '.join(map(str, steps))}); choose --shares "
                "further apart"
            )
        needs = acquisition.get(self.learner.strategy).needs
        if "surprisal" in needs and self.learner.tapt is None:
            raise ValueError(f"strategy {self.learner.strategy} needs TAPT: leave out --tapt off")

    def encoding(self) -> str:
        """Stem features; embeddings too where a probe reads the backbone as it is."""
        learner = self.learner
        return f"{self.weights()} {learner.head} {learner.states} {self._frozen}"

    def encode(self, items: Sequence[Utterance], context: Context) -> None:
        learner = self.learner
        frozen = Frozen(learner.backbone, learner.head, learner.states, context)
        frozen.fill(items)
        if self._frozen:
            frozen.of(items)

    def preparation(self, seed: int) -> Any:
        return self._seeded(seed).tapt

    def prepare(self, items: Sequence[Utterance], context: Context) -> None:
        """TAPT on the training recordings, by the first of the runs that share it."""
        self._learner(items, ("any", "other"), context, None).adapt()

    def run(self, view: TrainView, context: Context) -> Iterator[Stage]:
        validation = None
        if self.validates:
            utterances, labels = view.validation()
            validation = (utterances, labels) if len(utterances) else None
        learner = self._learner(view.items, view.classes, context, validation)
        learner.adapt()
        view.ask(learner.labelled)  # an interrupted run had asked for these before
        if learner.curve:
            yield self._stage(learner, context)
        while len(learner.curve) < len(context.shares) and _label(learner, view):
            learner.train()
            yield self._stage(learner, context)

    def _stage(self, learner: ActiveLearner, context: Context) -> Stage:
        """The learner after its last round."""
        record, curve = learner.curve[-1], learner.curve
        size = round(record.labelled / record.share)
        asking, training = (
            sum(getattr(one, name) for one in curve) for name in ("select_seconds", "train_seconds")
        )
        return Stage(
            _target(context.shares, record.labelled, size),
            lambda items: _predicted(learner, items),
            Cost(learner.tapt_seconds, asking, training),
            {
                "round": record.round,
                "validation_ua": record.validation.get("ua"),
                "best_epoch": record.best_epoch,
                "skipped": [str(error) for error in learner.skipped],
            },
        )

    def _learner(
        self,
        items: Sequence[Utterance],
        classes: Sequence[str],
        context: Context,
        validation: Any,
    ) -> ActiveLearner:
        return ActiveLearner(
            items,
            LabelSpace(tuple(classes)),
            self._at(context.shares, context.seed),
            context.folder,
            validation=validation,
            store_folder=context.cache.features,
            tapt_folder=context.prepared,
            device=context.device,
            progress=context.progress,
        )

    @property
    def _frozen(self) -> bool:
        return self.learner.tapt is None and self.learner.fine_tuning != "always"

    def _at(self, shares: Sequence[float], seed: int) -> LearnerConfig:
        return replace(self._seeded(seed), start_share=shares[0], shares=tuple(shares[1:]))

    def _seeded(self, seed: int) -> LearnerConfig:
        """TAPT has the run's seed as well, so that it is repeated with every seed."""
        tapt = self.learner.tapt
        if tapt is not None:
            tapt = replace(tapt, seed=seed)
        return replace(self.learner, seed=seed, tapt=tapt)


SYSTEM = After


def _label(learner: ActiveLearner, view: TrainView) -> bool:
    """Ask and answer a round's labels, step by step; False when nothing is left to train on."""
    while wanted := learner.ask():
        learner.tell(view.ask(wanted))
    trained = learner.curve[-1].labelled if learner.curve else 0
    return len(learner.labelled) > trained  # also after a kill between the answers and training


def _predicted(learner: ActiveLearner, items: Sequence[Utterance]) -> Predicted:
    """Of the readable ones alone: a recording's result must not depend on a broken one's."""
    broken = {error.path: str(error) for error in learner.store.fill(items, learner.progress)}
    skipped = {i: broken[u.path] for i, u in enumerate(items) if u.path in broken}
    rows = [i for i in range(len(items)) if i not in skipped]
    found = learner.predict([items[i] for i in rows]).probs
    probs = np.full((len(items), found.shape[1]), 1 / found.shape[1], found.dtype)
    probs[rows] = found
    return Predicted(probs, skipped)


def _target(shares: Sequence[float], labelled: int, pool: int) -> float:
    """The share that a round stands for: the largest that its labels reach, or the start's.

    A start that has to be larger than its share may reach the next ones as well.
    """
    return max((s for s in shares if int(s * pool + 1e-9) <= labelled), default=shares[0])
