"""Which labels are held out together: every class in every fold, no speaker in two.

Shared by the probe's cross-validation and by what competes with it, so that both are judged on the
same labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold


def held_out_folds(
    targets: np.ndarray, speakers: Sequence[str] | None, folds: int, seed: int
) -> np.ndarray:
    """The fold 0..F-1 of each row of targets [n, C], int [n]; F <= folds, as labels allow.

    Classes (the largest weight, the first of equals) are spread over the folds as evenly as can be.
    Where two speakers or more are known, no speaker is in two folds; who has no name ("") counts as
    a speaker of one recording. No class has to be in every fold, so F is at most the size of the
    largest class, and the number of speakers. All zeros (F = 1) where nothing can be held out.
    """
    if folds < 2:
        raise ValueError(f"folds: expected at least 2, got {folds}")
    classes = targets.argmax(axis=1)
    assigned = np.zeros(len(classes), int)
    splits = min(folds, int(np.bincount(classes).max()) if len(classes) else 0)
    groups = _groups(speakers, len(classes))
    if groups is not None:
        splits = min(splits, int(groups.max()) + 1)
    if splits < 2:
        return assigned
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer labels than folds is normal here
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(splitter.split(targets, classes, groups)):
            assigned[held] = number
    # large speakers can leave a fold without any recording: numbers have no gaps all the same
    return np.unique(assigned, return_inverse=True)[1]


def _groups(speakers: Sequence[str] | None, count: int) -> np.ndarray | None:
    """Speakers as numbers, one of its own for each unknown; None where fewer than two are named."""
    if speakers is None:
        return None
    if len(speakers) != count:
        raise ValueError(f"speakers: expected one a label ({count}), got {len(speakers)}")
    if len({name for name in speakers if name}) < 2:
        return None
    names = [name or ("", row) for row, name in enumerate(speakers)]
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])
