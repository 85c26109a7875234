"""What one process does: the missing runs of one split. A module of its own, since worker processes
import what they call by name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from simulate import corpora, protocols
from simulate.corpora import Corpus
from simulate.corpora.emodb import CLASSES as EMODB_CLASSES
from simulate.corpora.ravdess import CLASSES as RAVDESS_CLASSES
from simulate.efficiency.runs import Arm, Recordings, Setting, Split, as_row, curve, everything
from simulate.results import Row

CLASSES = {"emodb": EMODB_CLASSES, "ravdess": RAVDESS_CLASSES}


@dataclass(frozen=True)
class Task:
    """The runs of a split that are missing; `points`: the .npy file of the corpus's embeddings."""

    root: Path
    points: Path
    split: Split
    setting: Setting
    arms: tuple[tuple[str, Arm | None], ...]  # (run id, arm; None: all labels)


def work(task: Task) -> list[Row]:
    """The rows of a task."""
    corpus = corpus_of(task.split.corpus, task.root)
    recordings = divided(corpus, np.load(task.points), task.split)
    rows = []
    for identity, arm in task.arms:
        began = time.perf_counter()
        if arm is None:
            points = [everything(recordings, task.setting)]
        else:
            rng = np.random.default_rng([task.split.repetition, task.split.fold])
            points = curve(recordings, task.setting, arm, rng)
        row = as_row(identity, task.split, arm, points)
        row["pool"], row["tested"] = len(recordings.labels), len(recordings.test_labels)
        row["seconds"] = round(time.perf_counter() - began, 2)
        rows.append(row)
    return rows


def divided(corpus: Corpus, points: np.ndarray, split: Split) -> Recordings:
    """A split's pool and test, points [N, R] in the corpus's order. Nothing is held out."""
    found = protocols.split(protocols.DEFAULT, corpus, split.folds, seed=split.repetition)
    fold = found[split.fold]
    pool = np.sort(np.concatenate([fold.train, fold.validation]))
    index = {label: number for number, label in enumerate(corpus.classes)}
    labels = np.array([index[label] for label in corpus.labels])
    speakers = [u.speaker or "" for u in corpus.utterances]
    return Recordings(
        points[pool],
        labels[pool],
        tuple(speakers[i] for i in pool),
        points[fold.test],
        labels[fold.test],
        tuple(speakers[i] for i in fold.test),
        len(corpus.classes),
    )


@lru_cache(maxsize=2)
def corpus_of(name: str, root: Path) -> Corpus:
    """All classes of a corpus, its folder checked once a process."""
    return corpora.load(name, root, CLASSES[name])
