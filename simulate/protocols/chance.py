"""Folds that disregard speakers, stratified by class."""

from __future__ import annotations

import numpy as np

from simulate.data import Corpus
from simulate.protocols.base import Division, Protocol, check_arguments


def divide(corpus: Corpus, protocol: Protocol) -> list[Division]:
    check_arguments(corpus, protocol)
    rng = np.random.default_rng([protocol.seed, 0])
    labels = np.array(corpus.labels)
    dealt = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == label)) for label in corpus.classes]
    )
    folds = protocol.folds
    return [Division(f"fold-{n + 1}", np.sort(dealt[n::folds])) for n in range(folds)]


def hold_out(rest: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A random `share` of the positions, sorted; at least one, never all."""
    size = min(max(1, round(share * len(rest))), len(rest) - 1)
    return np.sort(rng.choice(rest, size=size, replace=False))
