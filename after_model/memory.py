"""Batches that fit into memory: as large as allowed, halved when it runs out.

    room = Room(max_frames=8_000)
    room.fit(lengths, lambda parts: ...)    # parts of the batch, anew with smaller ones if need be

Lengths are in frames; what a part costs is its padded frames, utterances times the longest.

    give_back()                             # what is freed, to the system
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

R = TypeVar("R")

_log = logging.getLogger(__name__)
_SIGNS = (
    "can't allocate memory",  # torch's CPU allocator
    "CUDA out of memory",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what cuDNN says of a workspace that does not fit
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on a card or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


class Room:
    """How many padded frames are computed at once. What was too much once is not tried again."""

    def __init__(self, max_frames: int | None = None) -> None:
        self.max_frames = max_frames

    def parts(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Positions in a batch of [B] lengths, in order, in parts that fit; at least one a part."""
        if self.max_frames is None or len(lengths) * lengths.max() <= self.max_frames:
            return [np.arange(len(lengths))]
        parts: list[np.ndarray] = []
        start, longest = 0, 0
        for i, length in enumerate(lengths):
            longest = max(longest, int(length))
            if i > start and (i - start + 1) * longest > self.max_frames:
                parts.append(np.arange(start, i))
                start, longest = i, int(length)
        return [*parts, np.arange(start, len(lengths))]

    def fit(self, lengths: np.ndarray, compute: Callable[[list[np.ndarray]], R]) -> R:
        """compute(parts of the batch), anew with half the frames while memory runs out.

        compute undoes at its beginning what a failed try of it has left. Raises what it raises
        when that is something else, or when a single utterance is too much.
        """
        while True:
            parts = self.parts(lengths)
            try:
                return compute(parts)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or len(parts) == len(lengths):
                    raise
                largest = max(len(part) * int(lengths[part].max()) for part in parts)
                reason = str(error).partition("\n")[0]
            # here the error and all that it held are gone
            self.max_frames = min(self.max_frames or largest, largest) // 2
            _log.warning("out of memory frames=%d now=%d: %s", largest, self.max_frames, reason)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def give_back() -> None:
    """Return what is freed to the system, where the C library keeps it (glibc; else nothing).

    Every batch has other lengths, so that the holes which one leaves between what lives on don't
    fit the next: after three epochs of after-tiny on 160 recordings of EmoDB a process held
    1.28 GB, of which 0.48 GB were left after one call. A call took 0.1 s on a busy machine.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return None
