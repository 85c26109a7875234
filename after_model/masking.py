"""Span masks over time or channels: SpecAugment in fine-tuning, masked frames in pre-training."""

from __future__ import annotations

import numpy as np


def span_mask(
    lengths: np.ndarray, size: int, share: float, span: int, rng: np.random.Generator
) -> np.ndarray:
    """Random masks, bool [B, size], of utterances with lengths [B] frames, exact in their share.

    An utterance of n frames gets floor(share * n) or one more masked frames, drawn so that the
    expectation is share * n exactly: "15 % of the frames" is the share that results. They form
    spans of about `span` frames (a shorter one where that is all there is) that don't overlap but
    may touch. Nothing beyond an utterance's length is masked.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    batch = len(lengths)
    wanted = np.floor(share * lengths + rng.random(batch)).astype(np.int64)
    spans = np.where(wanted > 0, np.maximum(1, np.rint(wanted / span).astype(np.int64)), 0)
    most = int(spans.max(initial=0))
    if most == 0:
        return np.zeros((batch, size), dtype=bool)
    # Lengths as equal as they can be; which spans are the longer ones is drawn too.
    present = np.arange(most) < spans[:, None]
    short, longer = np.divmod(wanted, np.maximum(spans, 1))
    rank = np.argsort(np.argsort(np.where(present, rng.random((batch, most)), 2.0), 1), 1)
    sizes = (short[:, None] + (rank < longer[:, None])) * present
    # Each span is put between two of the unmasked frames, and moved on by the spans before it.
    gaps = (lengths - wanted + 1)[:, None]
    cuts = np.sort(np.where(present, np.floor(rng.random((batch, most)) * gaps), np.inf), 1)
    rows, columns = np.nonzero(present)
    ends = np.cumsum(sizes, 1)[present] + cuts[present].astype(np.int64)
    edges = np.zeros((batch, size + 1), dtype=np.int64)
    np.add.at(edges, (rows, ends - sizes[rows, columns]), 1)
    np.add.at(edges, (rows, ends), -1)
    return np.cumsum(edges, 1)[:, :size] > 0
