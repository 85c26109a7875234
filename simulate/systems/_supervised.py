"""What the compared systems share: features of each recording by itself, cached; labels that are
drawn or asked for; a model learnt anew at every share.

    class Mine(Supervised):                     # or Network (_network.py), or Vectors (_vectors.py)
        def features(self, item): ...           # [K, ...]: K pieces of a recording
        def learn(self, train, validation, place): ...
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from after_model import acquisition
from after_model.acquisition.base import Pool
from after_model.audio import AudioError, Utterance
from after_model.labels import LabelSpace
from simulate.cache import Cache
from simulate.identity import digest
from simulate.systems.base import Context, Cost, Stage, System
from simulate.task import Predicted, TrainView

Pieces = list[np.ndarray]
"""Of N recordings, each [K, ...]: K pieces of it, such as segments; K is 1 for whole recordings."""

Score = Callable[[Pieces], np.ndarray]
"""Probabilities [N, C] of N recordings."""

COMMON, PUBLISHED = "common", "published"


@dataclass(frozen=True)
class Examples:
    """N recordings, what is known of each. targets: [N, C], rows that sum to 1."""

    pieces: Pieces
    targets: np.ndarray
    speakers: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def classes(self) -> np.ndarray:
        """The likeliest class of each, int64 [N]."""
        return self.targets.argmax(axis=1)


@dataclass(frozen=True)
class Place:
    """Where a model is learnt. path: for what a killed run goes on from. seed: of this model."""

    context: Context
    path: Path
    seed: int


@dataclass(frozen=True)
class Learnt:
    """A model, and what else is kept of it."""

    score: Score
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Supervised(System):
    """A system that learns from labels alone, anew at each share.

    strategy: which labels are asked for. "random", or one of after_model.acquisition that needs
    nothing but probabilities, such as "entropy": then by the model of the share before; the first
    share is always random.

    evaluation: "common" looks at the view's validation part, whose labels are counted, and chooses
    the epoch by it. "published" is the system's own recipe as far as a view allows: all of its
    epochs, the last one's weights, no validation labels. What some authors did, choosing the epoch
    on the test part, can't be repeated here: no system sees a test label.
    """

    strategy: str = "random"
    evaluation: str = COMMON

    def __post_init__(self) -> None:
        if self.evaluation not in (COMMON, PUBLISHED):
            raise ValueError(f"evaluation {self.evaluation!r}: use {COMMON!r} or {PUBLISHED!r}")
        if not acquisition.get(self.strategy).needs <= {"probs"}:
            raise ValueError(f"strategy {self.strategy!r} needs more than probabilities")

    @abstractmethod
    def features(self, item: Utterance) -> np.ndarray:
        """[K, ...] of one recording. Raises AudioError for one that can't be used."""

    @abstractmethod
    def front_end(self) -> Any:
        """All that decides features(), so that the cache finds them."""

    @abstractmethod
    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        """A model of these examples; some classes may have none, or all be of one."""

    @property
    def validates(self) -> bool:
        """Whether it looks at the validation part."""
        return self.evaluation == COMMON

    def pieces(
        self, items: Sequence[Utterance], context: Context
    ) -> tuple[list[np.ndarray | None], dict[int, str]]:
        """features() of each, None where they can't be had, and why, by index."""
        name = f"{self.name} features {digest(self.front_end())}"
        return readable(context.cache, name, items, self.features, context.progress)

    def encoding(self) -> str:
        return f"{self.name} {digest(self.front_end())}"

    def encode(self, items: Sequence[Utterance], context: Context) -> None:
        self.pieces(items, context)

    def run(self, view: TrainView, context: Context) -> Iterator[Stage]:
        space = LabelSpace(tuple(view.classes))
        found, broken = self.pieces(view.items, context)
        items = [item for i, item in enumerate(view.items) if i not in broken]
        pieces = dict(zip((u.id for u in view.items), found, strict=True))
        validation = self._validation(view, space, context) if self.validates else None
        order = [item.id for item in context.drawn(items)]
        speakers = {item.id: item.speaker for item in items}
        asked: list[str] = []
        learnt: Learnt | None = None
        asking_s = training_s = 0.0
        for share, total in context.totals(len(items)):
            began = time.perf_counter()
            asked += self._next(order, asked, total, pieces, learnt, context.seed)
            asking_s += time.perf_counter() - began
            labels = view.ask(asked)
            train = Examples(
                [_there(pieces[id_]) for id_ in asked],
                np.array([space.target(labels[id_]) for id_ in asked]),
                [speakers[id_] for id_ in asked],
            )
            began = time.perf_counter()
            learnt = self.learn(
                train, validation, Place(context, context.folder / f"{total}", context.seed)
            )
            training_s += time.perf_counter() - began
            yield Stage(
                share,
                self._predict(learnt.score, len(space), context),
                Cost(0.0, asking_s, training_s),
                {**learnt.notes, "skipped": list(broken.values())},
            )

    def _next(
        self,
        order: Sequence[str],
        asked: Sequence[str],
        total: int,
        pieces: Mapping[str, np.ndarray | None],
        learnt: Learnt | None,
        seed: int,
    ) -> list[str]:
        """Which recordings are asked for next, so that there are `total`."""
        left = [id_ for id_ in order if id_ not in set(asked)]
        if learnt is None or self.strategy == "random":
            return left[: total - len(asked)]
        probs = learnt.score([_there(pieces[id_]) for id_ in left])
        rng = np.random.default_rng([seed, total])
        chosen = acquisition.get(self.strategy).select(Pool(probs=probs), total - len(asked), rng)
        return [left[i] for i in chosen]

    def _validation(self, view: TrainView, space: LabelSpace, context: Context) -> Examples:
        utterances, labels = view.validation()
        found, broken = self.pieces(utterances, context)
        rows = [i for i in range(len(utterances)) if i not in broken]
        if not rows:
            raise ValueError(
                f"{self.name}: the evaluation {COMMON!r} chooses its epoch on validation speakers, "
                f"and this fold has none; use a protocol with a validation part, or {PUBLISHED!r}"
            )
        targets = np.array([space.target(labels[i]) for i in rows])
        return Examples([_there(found[i]) for i in rows], targets)

    def _predict(self, score: Score, classes: int, context: Context) -> Any:
        def predict(items: Sequence[Utterance]) -> Predicted:
            found, broken = self.pieces(items, context)
            probs = np.full((len(items), classes), 1 / classes)
            rows = [i for i in range(len(items)) if i not in broken]
            if rows:
                probs[rows] = score([_there(found[i]) for i in rows])
            return Predicted(probs, broken)

        return predict


def readable(
    cache: Cache,
    name: str,
    items: Sequence[Utterance],
    compute: Callable[[Utterance], np.ndarray],
    progress: Any,
) -> tuple[list[np.ndarray | None], dict[int, str]]:
    """compute(item) of each recording through the cache; broken ones are None and told by index."""
    broken: dict[int, str] = {}
    while True:
        rows = [i for i in range(len(items)) if i not in broken]
        try:
            values = cache.recordings(name, [items[i] for i in rows], compute, progress)
        except AudioError as error:
            bad = {i: str(error) for i in rows if items[i].path == error.path}
            if not bad:
                raise
            broken |= bad
            continue
        found: list[np.ndarray | None] = [None] * len(items)
        for i, value in zip(rows, values, strict=True):
            found[i] = value
        return found, broken


def _there(value: np.ndarray | None) -> np.ndarray:
    assert value is not None
    return value
