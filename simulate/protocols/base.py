"""What every protocol gives: folds whose parts are disjoint, speakers and groups included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulate.data import Corpus, Item, some

NO_PART: frozenset[str] = frozenset()
NOT_TEST = frozenset({"train", "validation"})
EVERY_PART = frozenset({"train", "validation", "test"})


class ProtocolError(ValueError):
    """A split that a corpus doesn't allow, or one that lets a speaker into two parts."""


@dataclass(frozen=True)
class Protocol:
    """How a corpus is divided; every value is part of what a result is called by.

    The folds stay the same for every seed of a system. folds: where the protocol leaves the number
    open. validation_share: of what is left beside the test part. tested: corpora whose recordings
    are tested, the others only train; empty: those that the corpus says, else all. transductive: a
    model may tell which unlabelled recordings are of one test speaker, to take that speaker's mean
    off; off in the paper. files: the folder of fold files, for the protocols that read them.
    """

    name: str = "speaker-independent"
    folds: int = 5
    validation_share: float = 0.1
    seed: int = 0
    tested: tuple[str, ...] = ()
    transductive: bool = False
    files: Path | None = None

    @property
    def title(self) -> str:
        """`session, tested on iemocap, transductive`."""
        words = [self.name]
        if self.tested:
            words.append(f"tested on {', '.join(self.tested)}")
        if self.transductive:
            words.append("transductive")
        return ", ".join(words)


@dataclass(frozen=True)
class Fold:
    """One split of a corpus: positions of recordings, sorted, disjoint.

    Recordings in none of the parts are unused. transductive: see Protocol.
    """

    name: str
    train: np.ndarray  # int64
    validation: np.ndarray  # int64
    test: np.ndarray  # int64
    transductive: bool = False

    def parts(self) -> dict[str, np.ndarray]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def unused(self, size: int) -> np.ndarray:
        """Positions, of a corpus of so many recordings, that are in no part."""
        return np.setdiff1d(np.arange(size), np.concatenate(list(self.parts().values())))


@dataclass(frozen=True)
class Division:
    """A test part, and the parts that a protocol names; None: everything else, none yet."""

    name: str
    test: np.ndarray
    train: np.ndarray | None = None
    validation: np.ndarray | None = None


@dataclass(frozen=True)
class Kind:
    """A protocol: `divide` gives the test parts of a corpus (of its tested recordings).

    summary: what it does, in a line.
    shared: parts among which speakers and groups may occur together, which its name has to say.
    by_speaker: whether validation takes whole speakers, and not a random share.
    """

    summary: str
    divide: Callable[[Corpus, Protocol], Sequence[Division]]
    shared: frozenset[str]
    by_speaker: bool = False


def speaker_of(item: Item) -> tuple[str, str] | None:
    """Who speaks; two corpora may give different people one name. None where nobody is named."""
    return (item.corpus, item.speaker) if item.speaker else None


def group_of(item: Item) -> tuple[str, str] | None:
    """Who was recorded together, such as a session."""
    return (item.corpus, item.group) if item.group else None


def check_disjoint(corpus: Corpus, fold: Fold, shared: frozenset[str] = NO_PART) -> None:
    """Raises `ProtocolError` where two parts of a fold share recordings, speakers or groups.

    `shared` names the parts among which a protocol lets them occur together; it says so by its own
    name. Recordings are never shared. Where speakers are to be kept apart everybody has a name,
    unless nobody has.
    """
    parts = list(fold.parts().items())
    for position, (first, first_indices) in enumerate(parts):
        for second, second_indices in parts[position + 1 :]:
            between = f"{corpus.name} {fold.name}: {first} and {second} share"
            twice = np.intersect1d(first_indices, second_indices)
            if len(twice):
                raise ProtocolError(f"{between} {some(corpus.items[i].id for i in twice)}")
            if first in shared and second in shared:
                continue
            for what, of in (("speakers", speaker_of), ("groups", group_of)):
                found = _names(corpus, first_indices, of) & _names(corpus, second_indices, of)
                if found:
                    names = some(name for _, name in sorted(found))
                    raise ProtocolError(
                        f"{between} the {what} {names}; give each to one part, or choose a "
                        "protocol that allows it by name"
                    )


def check_arguments(corpus: Corpus, protocol: Protocol) -> None:
    """Raises ProtocolError for numbers that no corpus of this size can be divided by."""
    if protocol.folds < 2:
        raise ProtocolError(f"folds={protocol.folds}: at least 2")
    if len(corpus) < protocol.folds:
        raise ProtocolError(
            f"{corpus.name}: {len(corpus)} utterances are too few for {protocol.folds} folds"
        )


def filled(corpus: Corpus, fold: Fold, validated: bool) -> Fold:
    """The fold, if each of its parts has recordings; a corpus may be too small for that.

    validated: whether it is to have a validation part.
    """
    parts = fold.parts().items()
    empty = [p for p, indices in parts if not len(indices) and (validated or p != "validation")]
    if empty:
        raise ProtocolError(
            f"{corpus.name} {fold.name}: nothing is left for {' and '.join(empty)}: "
            f"{len(corpus)} utterances of {len(corpus.speakers)} speakers; use more folds, or "
            "more data"
        )
    return fold


def _names(
    corpus: Corpus, indices: np.ndarray, of: Callable[[Item], tuple[str, str] | None]
) -> set[tuple[str, str]]:
    return {name for i in indices if (name := of(corpus.items[i])) is not None}
