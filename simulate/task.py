"""All that a system gets to see of a fold: recordings and, by asking, labels that are counted.

    view, evaluator = opened(corpus, fold)
    for stage in system.run(view, context):         # asks the view, never the corpus
        tested = evaluator.test(stage.predict)      # the runner's part

The view holds the labels of the training and the validation part, behind questions; the evaluator
holds those of the test part. No system is given the evaluator, a corpus or a fold, so none can
learn from a test label or choose its epoch by one. That is as far as one process can be kept
honest: a system is handed paths, and some corpora name the emotion in the file's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from after_model import metrics
from after_model.audio import Utterance
from after_model.labels import Label
from simulate.data import Corpus, some
from simulate.data.policies import SOFT
from simulate.protocols import Fold


class TaskError(ValueError):
    """A question about a recording that is not in the part that was opened."""


@dataclass(frozen=True)
class Predicted:
    """What a model says of N recordings.

    probs: float [N, C], classes in the view's order. skipped: why nothing is known of a recording,
    by its index; its row does not count.
    """

    probs: np.ndarray
    skipped: Mapping[int, str] = field(default_factory=dict)


Predict = Callable[[Sequence[Utterance]], Predicted]


@dataclass(frozen=True)
class Tested:
    """Predictions of one stage for the test part, and what they are worth.

    ids [N] and truth (class indices) [N] of the recordings that count, probs [N, C]; scores: of
    after_model.metrics.evaluate, and its calibration_bins as "calibration".
    """

    ids: tuple[str, ...]
    truth: np.ndarray
    probs: np.ndarray
    scores: dict[str, Any]
    skipped: tuple[str, ...]


class TrainView:
    """The training part of a fold, without its labels, and the only way to them.

    items: the recordings. asked: ids in the order in which labels were first asked for, the
    labelling effort. repeated: ids asked again; that costs nothing, but none should need it.
    validated: validation labels that were looked at.
    """

    def __init__(self, corpus: Corpus, fold: Fold) -> None:
        self.classes = corpus.classes
        self.items: tuple[Utterance, ...] = tuple(corpus.pick(fold.train))
        self.repeated = 0
        self.validated = 0
        self._validation = tuple(corpus.pick(fold.validation))
        parts = (*fold.train, *fold.validation)
        self._labels = {corpus.utterances[i].id: _label(corpus, i) for i in parts}
        self._given: dict[tuple[str, str | None], None] = {}
        self._ids = {item.id for item in self.items}
        said = ((rater, corpus.said_by(rater)) for rater in corpus.raters)
        self._said = {
            rater: {id_: labels for id_, labels in answers.items() if id_ in self._ids}
            for rater, answers in said
        }

    @property
    def asked(self) -> tuple[str, ...]:
        """Ids in the order in which they were first asked for, once for each rater asked."""
        return tuple(id_ for id_, _ in self._given)

    @property
    def raters(self) -> tuple[str, ...]:
        """Who can be asked by name; empty where the corpus names nobody."""
        return tuple(self._said)

    def rated_by(self, rater: str) -> tuple[str, ...]:
        """Ids that a rater can be asked about."""
        return tuple(self._said[rater])

    def ask(self, ids: Iterable[str], rater: str | None = None) -> dict[str, Label]:
        """Labels by id, in the order asked: by the corpus's policy, or what one rater said.

        A class; by a soft policy the weight of each class; of a rater the classes chosen, which may
        be none. Raises TaskError for a recording outside the training part, or one that the rater
        was not given: then nothing is answered or counted.
        """
        wanted = list(ids)
        self._check(wanted)
        answers: Mapping[str, Label] = self._labels if rater is None else self._said.get(rater, {})
        unrated = [id_ for id_ in wanted if id_ not in answers]
        if unrated:
            raise TaskError(f"rater {rater} was not given {some(unrated)}")
        keys = [(id_, rater) for id_ in wanted]
        self.repeated += len(keys) - len(set(keys) - self._given.keys())
        self._given.update(dict.fromkeys(keys))
        return {id_: answers[id_] for id_ in wanted}

    def ask_all(self) -> dict[str, Label]:
        """Every label of the training part, counted."""
        return self.ask(item.id for item in self.items)

    def validation(self) -> tuple[tuple[Utterance, ...], tuple[Label, ...]]:
        """The validation part with its labels, counted as soon as anybody looks; may be empty."""
        self.validated = len(self._validation)
        return self._validation, tuple(self._labels[item.id] for item in self._validation)

    def _check(self, ids: Sequence[str]) -> None:
        outside = [id_ for id_ in ids if id_ not in self._ids]
        if outside:
            raise TaskError(
                f"{len(outside)} ids outside the training part of {len(self.items)}: "
                + some(f"{id_} ({self._part(id_)})" for id_ in outside)
            )

    def _part(self, id_: str) -> str:
        return "validation" if id_ in self._labels else "test or unknown"


class Evaluator:
    """The test part of a fold: its recordings go to a model, its labels to nobody.

    items: without their speakers, unless the fold allows that unlabelled recordings of a test
    speaker are told from others' (transductive).
    """

    def __init__(self, corpus: Corpus, fold: Fold) -> None:
        self.classes = corpus.classes
        found = corpus.pick(fold.test)
        self.items: tuple[Utterance, ...] = tuple(
            item if fold.transductive else replace(item, speaker="") for item in found
        )
        number = {label: index for index, label in enumerate(corpus.classes)}
        self._truth = {corpus.utterances[i].id: number[corpus.labels[i]] for i in fold.test}

    def test(self, predict: Predict) -> Tested:
        """Has the test part predicted. Raises TaskError for probabilities that are none."""
        found = predict(self.items)
        if found.probs.shape != (len(self.items), len(self.classes)):
            wanted = (len(self.items), len(self.classes))
            raise TaskError(f"probs has shape {found.probs.shape}; wanted {wanted}")
        rows = [i for i in range(len(self.items)) if i not in found.skipped]
        ids = tuple(self.items[i].id for i in rows)
        probs = found.probs[rows]
        scores = self.evaluate(ids, probs)
        skipped = tuple(found.skipped[i] for i in sorted(found.skipped))
        return Tested(ids, np.array([self._truth[id_] for id_ in ids]), probs, scores, skipped)

    def evaluate(self, ids: Sequence[str], probs: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions, and their metrics.calibration_bins as "calibration".

        probs is [N, C] in the order of `ids` and of `classes`. Raises TaskError for an id outside
        the test part, one given twice, none at all, or probabilities of another shape.
        """
        outside = [id_ for id_ in ids if id_ not in self._truth]
        if outside:
            part = f"outside the test part of {len(self.items)}"
            raise TaskError(f"{len(outside)} ids {part}: {some(outside)}")
        if len(set(ids)) != len(ids) or not ids:
            raise TaskError(f"each test id once, at least one: {len(ids)}, {len(set(ids))} differ")
        if probs.shape != (len(ids), len(self.classes)) or not np.isfinite(probs).all():
            raise TaskError(
                f"probs has shape {probs.shape}; wanted finite numbers in "
                f"{(len(ids), len(self.classes))}: ids by classes"
            )
        truth = np.array([self._truth[id_] for id_ in ids])
        bins = metrics.calibration_bins(truth, probs)
        return {**metrics.evaluate(truth, probs), "calibration": bins.tolist()}


def opened(corpus: Corpus, fold: Fold) -> tuple[TrainView, Evaluator]:
    """A fold's two sides."""
    return TrainView(corpus, fold), Evaluator(corpus, fold)


def _label(corpus: Corpus, index: int) -> Label:
    """What the policy says of an item: a class or, where it is soft, the weight of each."""
    if corpus.policy != SOFT:
        return corpus.labels[index]
    return dict(zip(corpus.classes, corpus.targets[index].tolist(), strict=True))
