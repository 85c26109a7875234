"""Frozen embeddings of a corpus, computed once for all runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier.embedding import Embedder
from after_model.features import Embeddings, FeatureStore, embed
from simulate.corpora import Corpus, CorpusError, some
from simulate.plan import digest


@dataclass(frozen=True)
class Embedded:
    """Where a corpus's embeddings are: an .npy file, float32 [N, S * R], in the corpus's order.

    name: of what determines them: encoder, pooling, states. states: how many there are, S.
    """

    path: Path
    name: str
    states: int


def load_embeddings(
    corpus: Corpus, model: str, states: Sequence[int] | None, folder: Path
) -> Embedded:
    """Embeddings by the backbone `model`; states None: those that the backbone pools by default.

    Computed where the folder does not have them. Raises CorpusError for recordings that can't be
    read: an experiment without them would be another one.
    """
    encoder = backbone.load(model)
    embedder = Embedder(encoder, states=states)
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
    return Embedded(path, f"{model} {embedder.name}", len(embedder.states))
