"""Labels: the classes of a project, and what people answer turned into training targets.

A label is one class name, a weight per class name, or the votes of several annotators, each of
whom may have chosen several classes (eq. 17 of Li et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

Label = str | Mapping[str, float] | Sequence[str | Sequence[str]]
"""A class name; weights by class name; or votes: per annotator a name or a list of names."""


class LabelError(ValueError):
    """A label that its label space can't hold; the message names the label and what is known."""


@dataclass(frozen=True)
class LabelSpace:
    """The C classes of a project; the order of `names` is the order of every [C] axis."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise LabelError(f"names: expected several class names, got the text {self.names!r}")
        object.__setattr__(self, "names", tuple(self.names))
        for position, name in enumerate(self.names):
            if not isinstance(name, str) or not name.strip():
                raise LabelError(f"names[{position}]: expected a non-empty text, got {name!r}")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise LabelError(f"names: {', '.join(map(repr, repeated))} occurs more than once")
        if len(self.names) < 2:
            raise LabelError(f"names: a classifier needs at least 2 classes, got {self.names!r}")

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The position of the class; raises LabelError naming the known classes."""
        try:
            return self.names.index(name)
        except ValueError:
            known = ", ".join(self.names)
            raise LabelError(f"unknown label {name!r}; the labels are: {known}") from None

    def target(self, label: Label) -> np.ndarray:
        """The label as a distribution over the classes, float32 [C], summing to 1.

        A name is one-hot, weights are divided by their sum, votes go through eq. 17.
        Raises LabelError for unknown names, negative or all-zero weights, and no votes.
        """
        if isinstance(label, str):
            target = np.zeros(len(self))
            target[self.index(label)] = 1.0
        elif isinstance(label, Mapping):
            target = self._normalised(label)
        elif isinstance(label, Sequence):
            chosen = [[vote] if isinstance(vote, str) else vote for vote in label]
            target = soft_labels(
                [[self.index(name) for name in vote] for vote in chosen], len(self)
            )
        else:
            raise LabelError(
                f"label {label!r}: expected a name, weights by name, or a list of votes"
            )
        return target.astype(np.float32)

    def _normalised(self, weights: Mapping[str, float]) -> np.ndarray:
        target = np.zeros(len(self))
        for name, weight in weights.items():
            position = self.index(name)
            if not isinstance(weight, Real) or not math.isfinite(weight) or weight < 0:
                raise LabelError(f"label {name!r}: expected a weight of at least 0, got {weight!r}")
            target[position] = float(weight)
        largest = target.max()
        if largest <= 0:
            raise LabelError(f"label {dict(weights)!r}: no class has a weight above 0")
        target /= largest  # first by the largest, so that the sum can't overflow
        return target / target.sum()


def soft_labels(votes: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    """Eq. 17 of Li et al. 2024: the share of the votes that each class got, float64 [C].

    `votes` holds one list of class indices per annotator. Every class that an annotator chose
    counts one vote (Table 9, row 3); one chosen twice by the same annotator still counts once,
    and an annotator who chose nothing counts none.
    Raises LabelError when nobody chose anything or an index is out of range.
    """
    if num_classes < 1:
        raise LabelError(f"num_classes: expected at least 1, got {num_classes}")
    counts = np.zeros(num_classes)
    for annotator, chosen in enumerate(votes):
        for index in chosen:
            if not isinstance(index, Integral) or isinstance(index, bool):
                raise LabelError(f"votes[{annotator}]: {index!r} is no class index")
            if not 0 <= index < num_classes:
                raise LabelError(
                    f"votes[{annotator}]: class index {index} is outside 0..{num_classes - 1}"
                )
        counts[list(set(map(int, chosen)))] += 1.0
    if not counts.any():
        raise LabelError(f"votes {votes!r}: no annotator chose a class")
    return counts / counts.sum()
