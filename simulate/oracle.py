"""The oracle: the only way from an experiment to the hidden labels, and it counts them.

The learner gets labels of the training pool by asking, the validation labels as one block, and
test labels never: it hands its probabilities over and gets metrics back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from after_model import metrics
from after_model.audio import Utterance
from simulate.data import Corpus, some
from simulate.protocols import Fold


class OracleError(ValueError):
    """A question about an utterance that the oracle wasn't opened for."""


@dataclass(frozen=True)
class Question:
    """One call of `Oracle.ask`: how many ids were new and how many had been asked before."""

    new: int
    repeated: int


@dataclass(frozen=True)
class Evaluation:
    """One call of `Oracle.evaluate`: how many of the test utterances were scored."""

    scored: int
    of: int


class Oracle:
    """The labels of one corpus as one fold may use them."""

    def __init__(self, corpus: Corpus, fold: Fold) -> None:
        self.classes = corpus.classes
        self.pool: tuple[Utterance, ...] = tuple(corpus.pick(fold.train))
        self.test: tuple[Utterance, ...] = tuple(corpus.pick(fold.test))
        self.questions: list[Question] = []
        self.evaluations: list[Evaluation] = []
        self._validation = tuple(corpus.pick(fold.validation))
        self._labels = dict(zip((u.id for u in corpus.utterances), corpus.labels, strict=True))
        self._pool_ids = {u.id for u in self.pool}
        self._test_ids = {u.id for u in self.test}
        self._asked: set[str] = set()

    @property
    def asked(self) -> int:
        """How many different utterances of the pool have been labelled: the labelling effort."""
        return len(self._asked)

    @property
    def repeated(self) -> int:
        """How many ids were asked again; they cost nothing, but a learner shouldn't need it."""
        return sum(question.repeated for question in self.questions)

    def ask(self, ids: Iterable[str]) -> dict[str, str]:
        """Labels of utterances of the training pool, by id, in the order asked.

        An id outside the pool raises `OracleError`, and then nothing is answered or counted.
        """
        wanted = list(ids)
        outside = [id_ for id_ in wanted if id_ not in self._pool_ids]
        if outside:
            raise OracleError(
                f"{len(outside)} ids outside the training pool of {len(self.pool)}: "
                + some(f"{id_} ({self._part(id_)})" for id_ in outside)
            )
        new = len(set(wanted) - self._asked)
        self.questions.append(Question(new=new, repeated=len(wanted) - new))
        self._asked.update(wanted)
        return {id_: self._labels[id_] for id_ in wanted}

    def validation(self) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
        """The validation utterances and their labels, for early stopping; not part of `asked`."""
        return self._validation, tuple(self._labels[u.id] for u in self._validation)

    def evaluate(self, ids: Sequence[str], probs: np.ndarray) -> dict[str, Any]:
        """Metrics of predictions for test utterances, and their metrics.calibration_bins as
        "calibration"; the labels themselves stay here.

        `probs` is [N, C] in the order of `ids` and of `classes`. Utterances that couldn't be read
        may be left out: `evaluations` keeps how many were scored. Raises `OracleError` for an id
        outside the test part, one given twice, or probabilities of another shape.
        """
        outside = [id_ for id_ in ids if id_ not in self._test_ids]
        if outside:
            raise OracleError(
                f"{len(outside)} ids outside the test part of {len(self.test)}: "
                + some(f"{id_} ({self._part(id_)})" for id_ in outside)
            )
        if len(set(ids)) != len(ids) or not ids:
            raise OracleError(
                f"each test id once, at least one: {len(ids)}, {len(set(ids))} differ"
            )
        if probs.shape != (len(ids), len(self.classes)) or not np.isfinite(probs).all():
            raise OracleError(
                f"probs has shape {probs.shape}; wanted finite numbers in "
                f"{(len(ids), len(self.classes))}: ids by classes"
            )
        y_true = np.array([self.classes.index(self._labels[id_]) for id_ in ids])
        self.evaluations.append(Evaluation(scored=len(ids), of=len(self.test)))
        bins = metrics.calibration_bins(y_true, probs)
        return {**metrics.evaluate(y_true, probs), "calibration": bins.tolist()}

    def _part(self, id_: str) -> str:
        if id_ not in self._labels:
            return "unknown"
        if id_ in self._pool_ids:
            return "training"
        return "test" if id_ in self._test_ids else "validation"
