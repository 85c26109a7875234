"""Frozen embeddings of a corpus as arrays, and a split's part of them: for experiments on what a
probe is told, which need no learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier.embedding import Embedder
from after_model.features import Embeddings, FeatureStore, embed
from simulate.data import Corpus, CorpusError, some
from simulate.efficiency.runs import Split
from simulate.efficiency.work import fold_of
from simulate.identity import digest


@dataclass(frozen=True)
class Recordings:
    """Of the pool to be labelled and of the recordings to be tested on.

    points: raw embeddings float [N, R] and [M, R]. labels: class indices.
    """

    points: np.ndarray
    labels: np.ndarray
    test_points: np.ndarray
    test_labels: np.ndarray
    classes: int


def embedded(corpus: Corpus, folder: Path) -> tuple[Path, int]:
    """(.npy of float32 [N, S * R] in the corpus's order, hidden states S) by the default backbone.

    Computed where the folder does not have it. Raises CorpusError for recordings that can't be
    read: an experiment without them would be another one.
    """
    encoder = backbone.load(backbone.DEFAULT)
    embedder = Embedder(encoder)
    store = FeatureStore(folder / "features", encoder)
    disk = Embeddings(folder / "embeddings", embedder.name, embedder.width)

    def compute(missing: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return embedder.compute(store, missing)

    keys = store.keys(corpus.utterances)
    found = embed(corpus.utterances, keys, disk, compute)
    if found.unreadable:
        errors = some(found.unreadable.values(), 3)
        raise CorpusError(f"{corpus.name}: {len(found.unreadable)} can't be read: {errors}")
    path = folder / f"{corpus.name}-{digest([embedder.name, keys])}.npy"
    if not path.exists():
        unfinished = path.with_suffix(".new.npy")
        np.save(unfinished, found.take(np.arange(len(keys))))
        unfinished.replace(path)
    return path, len(embedder.states)


def divided(corpus: Corpus, points: np.ndarray, split: Split) -> Recordings:
    """A split's pool and test, points [N, R] in the corpus's order. Nothing is held out."""
    fold = fold_of(corpus, split)
    number = {label: index for index, label in enumerate(corpus.classes)}
    rows, tested = fold.train, fold.test
    labels = np.array([number[label] for label in corpus.labels])
    return Recordings(
        points[rows], labels[rows], points[tested], labels[tested], len(corpus.classes)
    )
