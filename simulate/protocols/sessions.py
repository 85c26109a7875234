"""Leave one group out: each session of IEMOCAP is the test part once (section 4.1)."""

from __future__ import annotations

import numpy as np

from simulate.data import Corpus, some
from simulate.protocols.base import Division, Protocol, ProtocolError


def divide(corpus: Corpus, protocol: Protocol) -> list[Division]:
    """A fold a group, in the order of their names; `ProtocolError` where a recording has none."""
    ungrouped = [item.id for item in corpus.items if not item.group]
    if ungrouped:
        raise ProtocolError(
            f"{corpus.name}: {len(ungrouped)} of {len(corpus)} recordings belong to no session "
            f"({some(ungrouped, 3)}); choose protocol='speaker-independent'"
        )
    groups = np.array([item.group for item in corpus.items])
    if len(set(groups)) < 2:
        raise ProtocolError(f"{corpus.name}: one session ({groups[0]}) can't be left out")
    return [Division(str(name), np.flatnonzero(groups == name)) for name in np.unique(groups)]
