"""Frozen embeddings of a corpus, computed once for all runs, where learners look for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier.embedding import Embedder
from after_model.features import Embeddings, FeatureStore, embed
from simulate.data import Corpus, CorpusError, some


def encode(corpus: Corpus, model: str, states: Sequence[int] | None, features: Path) -> str:
    """Embeds what the folder `features` does not have; returns the name of what determines them.

    By the backbone `model`; states None: those that the backbone pools by default. Raises
    CorpusError for recordings that can't be read: an experiment without them would be another one.
    """
    encoder = backbone.load(model)
    embedder = Embedder(encoder, states=states)
    store = FeatureStore(features, encoder)
    disk = Embeddings(features / "embeddings", embedder.name, embedder.width)

    def compute(missing: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return embedder.compute(store, missing)

    lost = list(store.fill(corpus.utterances))
    found = embed(corpus.utterances, store.keys(corpus.utterances), disk, compute)
    lost += found.unreadable.values()
    if lost:
        raise CorpusError(f"{corpus.name}: {len(lost)} can't be read: {some(lost, 3)}")
    return f"{model} {embedder.name}"
