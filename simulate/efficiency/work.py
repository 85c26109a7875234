"""What one process does: the missing runs of one split. A module of its own, since worker processes
import what they call by name.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simulate import data, protocols
from simulate.data import Corpus
from simulate.data.loaders.emodb import CLASSES as EMODB_CLASSES
from simulate.data.loaders.ravdess import CLASSES as RAVDESS_CLASSES
from simulate.efficiency.runs import Arm, Driven, Setting, Split, as_row
from simulate.protocols import Fold
from simulate.runs.execution import Listener
from simulate.task import opened

CLASSES = {"emodb": EMODB_CLASSES, "ravdess": RAVDESS_CLASSES}


@dataclass(frozen=True)
class Task:
    """The runs of a split that are missing. features: the folder that has the embeddings."""

    root: Path
    features: Path
    split: Split
    setting: Setting
    arms: tuple[tuple[str, Arm | None], ...]  # (run id, arm; None: all labels)
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        split = self.split
        return f"{split.corpus}, repetition {split.repetition + 1}, fold {split.fold + 1}"

    @property
    def id(self) -> str:
        return self.title


def work(task: Task, place: Any, listener: Listener) -> dict[str, Any]:
    """Tells the row of each run when it is made: a kill costs the one at hand."""
    split = task.split
    corpus = corpus_of(split.corpus, task.root)
    view, evaluator = opened(corpus, fold_of(corpus, split, transductive=task.setting.speakers))
    with tempfile.TemporaryDirectory() as folder:
        driven = Driven((view, evaluator), task.setting, Path(folder), task.features, split.seed)
        for number, (identity, arm) in enumerate(task.arms):
            listener.stage("runs", number, len(task.arms))
            began, cpu = time.perf_counter(), time.process_time()
            points = [driven.everything()] if arm is None else driven.curve(arm)
            row = as_row(identity, split, arm, points)
            row["pool"], row["tested"] = len(view.items), len(evaluator.items)
            row["seconds"] = round(time.perf_counter() - began, 2)
            row["cpu_seconds"] = round(time.process_time() - cpu, 2)
            listener.point(row)
    return {}


def fold_of(corpus: Corpus, split: Split, transductive: bool = False) -> Fold:
    """A split's pool and test. Nothing is held out: what would be is part of the pool."""
    found = protocols.split(protocols.DEFAULT, corpus, split.folds, seed=split.repetition)
    fold: Fold = found[split.fold]
    pool = np.sort(np.concatenate([fold.train, fold.validation]))
    nothing = fold.validation[:0]
    return replace(fold, train=pool, validation=nothing, transductive=transductive)


@lru_cache(maxsize=2)
def corpus_of(name: str, root: Path) -> Corpus:
    """All classes of a corpus, its folder checked once a process."""
    return data.load(name, root, CLASSES[name])
