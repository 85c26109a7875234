"""What the model that serves says of every recording: one file a project, replaced by every step.

Large and of one shape, so no rows of a database: task ids and, for each question, probabilities. At
100,000 recordings and 7 labels it is 4 MB, written in a few hundredths of a second.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = "scores.npz"  # what serves now
FIXED = "fixed-scores.npz"  # what an order that doesn't change was made from


@dataclass(frozen=True)
class PoolScores:
    """tasks: int64 [N], ascending. probs: float32 [N, C] by control; rows of NaN where a recording
    can't be read or has no audio for the control. version: the order that they belong to. order:
    int64, tasks most wanted first, where something else than confidence decides."""

    version: str
    tasks: np.ndarray
    probs: Mapping[str, np.ndarray]
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def of(self, task: int) -> dict[str, list[float]]:
        """Probabilities by control; empty for a task that has none."""
        at = int(np.searchsorted(self.tasks, task))
        if at == len(self.tasks) or self.tasks[at] != task:
            return {}
        rows = {name: values[at] for name, values in self.probs.items()}
        return {
            name: [round(float(p), 6) for p in row]
            for name, row in rows.items()
            if not np.isnan(row).any()
        }

    def place(self, task: int) -> float | None:
        """Where `order` has the task, from 0 for the first to 1; None where it hasn't."""
        found = np.flatnonzero(self.order == task)
        return float(found[0] / len(self.order)) if len(found) else None

    def ranked(self) -> list[int]:
        """Tasks most wanted first: by `order`, then by rising confidence; others are left out."""
        confidence = self.confidence()
        known = np.flatnonzero(~np.isnan(confidence))
        doubted = self.tasks[known[np.argsort(confidence[known], kind="stable")]]
        return list(dict.fromkeys([*self.order.tolist(), *doubted.tolist()]))

    def confidence(self) -> np.ndarray:
        """1 - H / log C in [0, 1] [N], the mean over the controls; NaN where there is none."""
        parts = [_confidence(values) for values in self.probs.values()]
        if not parts:
            return np.full(len(self.tasks), np.nan)
        known = np.array([~np.isnan(part) for part in parts])
        total = np.nansum(parts, axis=0)
        counts = known.sum(axis=0)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def write(folder: Path, scores: PoolScores, name: str = FILE) -> None:
    """Replace the file; a reader sees the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"probs/{name}": row for name, row in scores.probs.items()}
    arrays |= {"tasks": scores.tasks, "order": scores.order, "version": np.array(scores.version)}
    handle, beside = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(beside, folder / name)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def read(folder: Path, name: str = FILE) -> PoolScores | None:
    """The scores; None before the first. Read once until they change."""
    path = folder / name
    try:
        stat = path.stat()
        return _read(path, stat.st_mtime_ns, stat.st_ino)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=4)
def _read(path: Path, _mtime_ns: int, _inode: int) -> PoolScores:
    with np.load(path, allow_pickle=False) as content:
        probs = {
            name.removeprefix("probs/"): content[name]
            for name in content.files
            if name.startswith("probs/")
        }
        return PoolScores(str(content["version"]), content["tasks"], probs, content["order"])


def _confidence(probs: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probs > 0, probs * np.log(probs), 0 * probs)  # NaN stays
    return np.clip(1 + terms.sum(axis=1) / np.log(max(2, probs.shape[1])), 0, 1)
