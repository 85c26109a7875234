"""Embeddings by a backbone as it is, on disk where learners look for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier.embedding import Embedder
from after_model.device import resolve_device
from after_model.features import Embeddings, FeatureStore, embed
from after_model.features.pool_embeddings import PoolEmbeddings
from simulate.systems.base import Context

States = tuple[int, ...] | str | None


class Frozen:
    """A backbone's embeddings, computed once per recording and then read."""

    def __init__(self, name: str, head: str, states: States, context: Context) -> None:
        encoder = backbone.load(name).to(resolve_device(context.device))
        self._context = context
        self._embedder = Embedder(encoder, head, states)
        self._store = FeatureStore(context.cache.features, encoder)
        self.states = len(self._embedder.states)

    def fill(self, items: Sequence[Utterance]) -> None:
        """Stem features alone."""
        self._store.fill(items, self._context.progress)

    def of(self, items: Sequence[Utterance]) -> PoolEmbeddings:
        """Of these recordings, in their order; unreadable ones are told."""
        embedder = self._embedder
        folder = self._store.root / "embeddings"
        disk = Embeddings(folder, embedder.name, embedder.width)

        def compute(missing: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return embedder.compute(self._store, missing, self._context.device)

        keys = self._store.keys(items)
        return embed(items, keys, disk, compute, progress=self._context.progress)
