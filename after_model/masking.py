"""Span masks over time or channels: SpecAugment in fine-tuning, masked frames in pre-training."""

from __future__ import annotations

import numpy as np


def span_mask(
    lengths: np.ndarray, size: int, share: float, span: int, rng: np.random.Generator
) -> np.ndarray:
    """Boolean [B, size]: spans of `span` positions that cover about `share` of each row's length.

    lengths: [B] valid positions a row; nothing beyond them is masked. Span starts are uniform;
    their number is chosen so that the share is met in expectation, overlaps counted: n spans of
    length m in a row of length L cover about L * (1 - (1 - m/L)^n). Rows shorter than a span get
    spans as long as fit the share. Spans at the edges are cut, not moved.
    """
    lengths = np.asarray(lengths)
    mask = np.zeros((len(lengths), size + 1), dtype=np.int64)
    if share <= 0 or len(lengths) == 0:
        return mask[:, :size].astype(bool)
    span_of = np.minimum(span, np.maximum(1, np.round(share * lengths)).astype(int))
    # a start may lie before the row, so that every position is covered equally often
    starts_of = lengths + span_of - 1
    missed = np.clip(1 - span_of / starts_of, 1e-9, 1 - 1e-9)
    wanted = np.log(max(1 - share, 1e-9)) / np.log(missed)
    counts = np.floor(wanted + rng.random(len(lengths))).astype(int)
    rows = np.repeat(np.arange(len(lengths)), counts)
    starts = (rng.random(len(rows)) * starts_of[rows]).astype(int) - span_of[rows] + 1
    stops = np.minimum(starts + span_of[rows], lengths[rows])
    np.add.at(mask, (rows, np.maximum(starts, 0)), 1)
    np.add.at(mask, (rows, stops), -1)
    return np.cumsum(mask, axis=1)[:, :size] > 0
