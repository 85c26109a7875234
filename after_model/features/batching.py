"""Batches of cached features: grouped by length so that little is padded, read ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from after_model.audio import Utterance

if TYPE_CHECKING:  # the store makes batches too
    from after_model.features import FeatureStore

T = TypeVar("T")
R = TypeVar("R")


def batch_frames(device: torch.device) -> int:
    """Padded frames a batch that suit a device, where nothing is trained.

    4,000 are 80 s of audio, of which 5 % is padding in a corpus like EmoDB (10 % with 8,000). A CPU
    keeps the activations of 1,000 in its cache, and its cores share so many batches evenly.
    """
    return 1_000 if device.type == "cpu" else 4_000


def length_batches(
    frames: np.ndarray,
    *,
    batch_size: int | None = None,
    max_frames: int | None = None,
    rng: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """Indices of utterances of similar length, a batch each, every utterance once.

    frames: [N] lengths. batch_size: utterances a batch, evenly spread (10 in batches of 8 are 5
    and 5, so that no tiny batch is left over). max_frames: padded frames a batch; only an
    utterance that is longer by itself exceeds it. With both, a batch of some utterances that has
    too many frames is split evenly into as few as have not. rng: shuffles which neighbours share a
    batch (lengths are jittered by 5 %) and the batches' order; without it the longest come first,
    so that a batch too large for the memory fails at once.
    """
    frames = np.asarray(frames)
    if len(frames) == 0:
        return []
    if rng is None:
        order = np.argsort(-frames, kind="stable")
    else:
        jitter = 1 + 0.05 * (rng.random(len(frames)) - 0.5)
        order = np.argsort(-frames * jitter, kind="stable")
    if batch_size is not None:
        batches = np.array_split(order, -(-len(order) // batch_size))
        if max_frames is not None:
            batches = [part for batch in batches for part in _split(batch, frames, max_frames)]
    elif max_frames is not None:
        # the longest of all that are left: jittered, it need not be the next
        longest = np.maximum.accumulate(frames[order][::-1])[::-1].tolist()
        batches, start = [], 0
        while start < len(order):
            size = max(1, int(max_frames // longest[start]))
            batches.append(order[start : start + size])
            start += size
    else:
        raise ValueError("length_batches needs batch_size or max_frames")
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    return batches


def _split(batch: np.ndarray, frames: np.ndarray, max_frames: int) -> list[np.ndarray]:
    """A batch in parts of equal size that have no more padded frames than that."""
    fitting = max(1, int(max_frames // frames[batch].max()))
    return np.array_split(batch, -(-len(batch) // fitting))


def padding_factor(frames: np.ndarray, batches: Sequence[np.ndarray]) -> float:
    """Frames computed over frames needed: 1 means no padding."""
    padded = sum(int(frames[batch].max()) * len(batch) for batch in batches)
    return padded / max(1, int(sum(frames[batch].sum() for batch in batches)))


def collate(
    store: FeatureStore, utterances: Sequence[Utterance], indices: Iterable[int]
) -> tuple[Tensor, Tensor]:
    """The CNN features of some utterances: (float32 [B, T, D] zero-padded, frames [B])."""
    rows = [store[utterances[i]] for i in indices]
    frames = torch.tensor([len(row) for row in rows])
    batch = torch.zeros(len(rows), int(frames.max()), rows[0].shape[1])
    for filled, row in zip(batch.numpy(), rows, strict=True):
        filled[: len(row)] = row
    return batch, frames


def read_ahead(make: Callable[[T], R], items: Iterable[T], depth: int = 2) -> Iterator[R]:
    """make(item) for each item in order, up to `depth` of them prepared in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = []
        for item in items:
            pending.append(pool.submit(make, item))
            if len(pending) > depth:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()
