"""What a corpus is: recordings in a fixed order, and the labels that people gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from after_model.audio import Utterance


class CorpusError(ValueError):
    """A corpus that can't be read as it is; says what is wrong, where, and how to mend it."""


@dataclass(frozen=True)
class Corpus:
    """A labelled corpus. `labels` is aligned with `utterances` and is for the oracle only.

    Utterances are in a fixed order (by id), whatever order the file system lists them in.
    """

    name: str
    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.utterances) != len(self.labels):
            raise CorpusError(
                f"{self.name}: {len(self.utterances)} utterances but {len(self.labels)} labels"
            )
        repeated = [id_ for id_, n in Counter(u.id for u in self.utterances).items() if n > 1]
        if repeated:
            raise CorpusError(f"{self.name}: ids that occur more than once: {some(repeated)}")
        unknown = sorted(set(self.labels) - set(self.classes))
        if unknown:
            raise CorpusError(
                f"{self.name}: labels outside the classes {', '.join(self.classes)}: "
                f"{some(unknown)}"
            )

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers' names, sorted; empty where the corpus names no speakers."""
        return tuple(sorted({u.speaker for u in self.utterances if u.speaker}))

    def pick(self, indices: Iterable[int] | np.ndarray) -> list[Utterance]:
        """The utterances at these positions, in the order of the indices; no labels."""
        return [self.utterances[int(i)] for i in indices]

    def counts(self) -> dict[str, int]:
        """How many utterances each class has, in the order of the classes."""
        found = Counter(self.labels)
        return {label: found[label] for label in self.classes}


def chosen_classes(
    name: str, known: Sequence[str], classes: Sequence[str] | None, default: Sequence[str]
) -> tuple[str, ...]:
    """The classes to use, in the caller's order; an unknown or repeated name is an error."""
    if classes is None:
        return tuple(default)
    unknown = [c for c in classes if c not in known]
    if unknown:
        raise CorpusError(f"{name}: no class {some(unknown)}; classes: {', '.join(known)}")
    if len(set(classes)) != len(classes) or not classes:
        raise CorpusError(f"{name}: classes must be named once each and not be empty: {classes}")
    return tuple(classes)


def some(items: Iterable[object], limit: int = 8) -> str:
    """`a, b, c and 5 more`: enough of a list to recognise it."""
    texts = [str(item) for item in items]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")
