"""The embeddings of a whole pool: what is on disk is read, what is missing is computed once.

    known = embed(utterances, store.keys(utterances), Embeddings(...), compute)

compute(utterances) runs the encoder and yields (indices [n], embeddings [n, R]) batch by batch, in
any order, without those that can't be read.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from after_model.audio import AudioError, Utterance
from after_model.features.embeddings import Embeddings
from after_model.progress import Progress, silent

Compute = Callable[[Sequence[Utterance]], Iterable[tuple[np.ndarray, np.ndarray]]]

GROUP = 512
"""Recordings that are computed before their rows are written: what a kill may cost."""


@dataclass(frozen=True)
class PoolEmbeddings:
    """Embeddings of N utterances, in their order, without holding them in memory.

    matrix [M, R] float16, on disk; spare [K, R] float16, rows that the disk limit left out; rows
    [N]: the row of either, one after the other, or -1: computed whenever it is asked for, or, for
    one that can't be read (in `unreadable`, by its index), zeros.
    """

    matrix: np.ndarray
    spare: np.ndarray
    rows: np.ndarray
    utterances: Sequence[Utterance]
    compute: Compute
    unreadable: dict[int, AudioError]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def readable(self) -> np.ndarray:
        """bool [N]."""
        mask = np.ones(len(self.rows), bool)
        mask[list(self.unreadable)] = False
        return mask

    def take(self, indices: np.ndarray) -> np.ndarray:
        """float32 [n, R] of some utterances."""
        rows = self.rows[indices]
        size, first = len(rows), int(rows[0]) if len(rows) else 0
        stored = len(self.matrix)
        if 0 <= first <= stored - size and np.array_equal(rows, np.arange(first, first + size)):
            return self.matrix[first : first + size].astype(np.float32)
        values = np.zeros((size, self.matrix.shape[1]), np.float32)
        on_disk, in_memory = (rows >= 0) & (rows < stored), rows >= stored
        values[on_disk] = self.matrix[rows[on_disk]]
        values[in_memory] = self.spare[rows[in_memory] - stored]
        wanted = [
            (position, self.utterances[index])
            for position, index in zip(np.flatnonzero(rows < 0), indices[rows < 0], strict=True)
            if int(index) not in self.unreadable
        ]
        positions = np.array([position for position, _ in wanted], dtype=np.int64)
        if wanted:
            for batch, computed in self.compute([utterance for _, utterance in wanted]):
                values[positions[batch]] = computed
        return values

    def blocks(self, size: int) -> Iterator[tuple[slice, np.ndarray]]:
        """(which utterances, float32 [<= size, R]) one after the other: memory is that of one."""
        for start in range(0, len(self.rows), size):
            stop = min(start + size, len(self.rows))
            yield slice(start, stop), self.take(np.arange(start, stop))
            if isinstance(self.matrix.base, mmap.mmap):  # pages that were read count as memory
                self.matrix.base.madvise(mmap.MADV_DONTNEED)


def embed(
    utterances: Sequence[Utterance],
    keys: Sequence[str],
    embeddings: Embeddings,
    compute: Compute,
    *,
    memory_bytes: int = 2**28,
    progress: Progress = silent,
) -> PoolEmbeddings:
    """Compute the missing rows and write them, in the pool's order.

    keys: of the utterances in their present versions, see FeatureStore.keys. memory_bytes: for
    rows that the disk limit leaves out; beyond it they are computed whenever they are asked for.
    """
    embeddings.refresh()
    rows = embeddings.rows(keys)
    first = {keys[i]: int(i) for i in reversed(np.flatnonzero(rows < 0))}
    missing = sorted(first.values())
    unreadable: dict[str, AudioError] = {}
    spare: dict[str, np.ndarray] = {}
    room = memory_bytes // (2 * embeddings.width)
    for start in range(0, len(missing), GROUP):
        group = missing[start : start + GROUP]
        values, errors = _computed([utterances[i] for i in group], compute, embeddings.width)
        unreadable.update((keys[group[i]], error) for i, error in errors.items())
        good = [i for i in range(len(group)) if i not in errors]
        names = [keys[group[i]] for i in good]
        embeddings.append(names, values[good])
        left_out = np.flatnonzero(embeddings.rows(names) < 0)
        limit = np.finfo(np.float16).max
        for i in left_out[: room - len(spare)]:
            row = np.clip(values[good[i]], -limit, limit)
            spare[names[i]] = row.astype(np.float16)
        progress("embeddings", min(start + GROUP, len(missing)), len(missing))
        if len(left_out) and len(spare) >= room:
            break  # there is nowhere to keep more
    rows = embeddings.rows(keys)
    number = {key: len(embeddings) + i for i, key in enumerate(spare)}
    for i in np.flatnonzero(rows < 0):
        rows[i] = number.get(keys[i], -1)
    return PoolEmbeddings(
        matrix=embeddings.matrix,
        spare=np.stack(list(spare.values())) if spare else np.zeros((0, embeddings.width), "f2"),
        rows=rows,
        utterances=utterances,
        compute=compute,
        unreadable={
            int(i): AudioError(utterances[i].path, unreadable[keys[i]].reason)
            for i in np.flatnonzero(rows < 0)
            if keys[i] in unreadable
        },
    )


def _computed(
    utterances: Sequence[Utterance], compute: Compute, width: int
) -> tuple[np.ndarray, dict[int, AudioError]]:
    """float32 [n, R], and what is wrong with those that have no row to trust, by their index."""
    values = np.full((len(utterances), width), np.nan, np.float32)
    given = np.zeros(len(utterances), bool)
    for indices, computed in compute(utterances):
        values[indices], given[indices] = computed, True
    return values, {
        int(i): AudioError(
            utterances[i].path,
            "has an embedding that is not finite" if given[i] else "could not be embedded",
        )
        for i in np.flatnonzero(~np.isfinite(values).all(axis=1))
    }
