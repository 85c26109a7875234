"""The split that a corpus is released with."""

from __future__ import annotations

import numpy as np

from simulate.data import Corpus
from simulate.protocols.base import Division, Protocol, ProtocolError

PARTS = ("train", "validation", "test")


def divide(corpus: Corpus, protocol: Protocol) -> list[Division]:
    """One fold. Recordings of any other part are unused; a corpus without a test part of its own
    (or whose is kept back) is tested on its validation part."""
    found = np.array([item.split for item in corpus.items])
    at = {part: np.flatnonzero(found == part) for part in PARTS}
    if not len(at["train"]) or not (len(at["test"]) or len(at["validation"])):
        names = ", ".join(sorted(set(found) - {""})) or "none"
        raise ProtocolError(
            f"{corpus.name}: its recordings name no training and test part (parts: {names}); "
            "choose protocol='speaker-independent'"
        )
    if not len(at["test"]):
        return [Division("official", at["validation"], train=at["train"])]
    return [Division("official", at["test"], at["train"], at["validation"])]
