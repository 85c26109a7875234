"""What a corpus is: recordings in a fixed order, and apart from them what people said of each.

`Item` and `Annotation` are what a release holds; a `Corpus` is what a run uses of it: the
recordings that have a label under a policy (`simulate/data/policies.py`), in the chosen classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from after_model.audio import Utterance
from simulate.data import policies
from simulate.data.errors import CorpusError, some
from simulate.data.policies import RELEASE, Annotation


@dataclass(frozen=True)
class Item:
    """One recording, and what its release says of it apart from the emotion.

    group: recordings that belong together whoever speaks, such as a conversation's session; a
    group is never divided between training and test. split: the official part (train,
    validation, test). text: which sentence is said, where names tell. Empty where unknown.
    """

    id: str
    path: Path
    corpus: str = ""
    speaker: str = ""
    group: str = ""
    split: str = ""
    text: str = ""

    @property
    def utterance(self) -> Utterance:
        """The recording as the method takes it."""
        return Utterance(self.id, self.path, self.speaker)


@dataclass(frozen=True)
class ReleasedFold:
    """A division of a corpus that its release, or a benchmark, publishes; by the items' ids.

    Items in none of the parts are unused in this fold. Without a validation part, the protocol
    decides on one.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()

    def among(self, ids: Collection[str]) -> ReleasedFold:
        """The fold of these items alone."""
        parts = (self.train, self.test, self.validation)
        return ReleasedFold(self.name, *(tuple(i for i in part if i in ids) for part in parts))


@dataclass(frozen=True)
class Release:
    """All that a loader found: every recording and annotation, also those that a run won't use.

    classes: every emotion that the release names, default: those used unless others are asked for.
    """

    name: str
    items: tuple[Item, ...]
    annotations: tuple[Annotation, ...]
    classes: tuple[str, ...]
    default: tuple[str, ...]
    notes: tuple[str, ...] = ()
    folds: tuple[ReleasedFold, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """The recordings that a run uses. Everything but the annotations may be seen by a learner.

    items: in a fixed order (by id), whatever order the file system lists them in. annotations: of
    these items, labels outside the classes included. policy: how they become `labels`. tested:
    the corpora of a merge that are tested on, the others only train; empty for all.
    """

    name: str
    items: tuple[Item, ...]
    annotations: tuple[Annotation, ...] = field(repr=False)
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    policy: str = RELEASE
    tested: tuple[str, ...] = ()
    folds: tuple[ReleasedFold, ...] = field(default=(), repr=False)

    @staticmethod
    def labelled(
        name: str,
        items: Sequence[Item],
        labels: Sequence[str],
        classes: Sequence[str],
        notes: Sequence[str] = (),
    ) -> Corpus:
        """The corpus whose release gives each item one label: aligned with the items."""
        if len(items) != len(labels):
            raise CorpusError(f"{name}: {len(items)} recordings but {len(labels)} labels")
        given = released(zip((item.id for item in items), labels, strict=True))
        return Corpus(name, tuple(items), given, tuple(classes), tuple(notes))

    def __post_init__(self) -> None:
        repeated = [id_ for id_, n in Counter(item.id for item in self.items).items() if n > 1]
        if repeated:
            raise CorpusError(f"{self.name}: ids that occur more than once: {some(repeated)}")
        both = zip(self.items, self.labels, strict=True)
        unlabelled = [item.id for item, label in both if not label]
        if unlabelled:
            raise CorpusError(
                f"{self.name}: no label by the policy {self.policy!r}: {some(unlabelled)}"
            )
        unknown = sorted(set(self.labels) - set(self.classes))
        if unknown:
            raise CorpusError(
                f"{self.name}: labels outside the classes {', '.join(self.classes)}: "
                f"{some(unknown)}"
            )

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def utterances(self) -> tuple[Utterance, ...]:
        """The items as the method takes them, in their order."""
        return tuple(item.utterance for item in self.items)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """One class per item by the policy, aligned with the items; for the oracle only."""
        return policies.hard_labels(self.policy, [item.id for item in self.items], self.annotations)

    @cached_property
    def targets(self) -> np.ndarray:
        """A distribution over the classes per item, float64 [N, C]; for the oracle only.

        By the policy `soft` the raters' votes within the classes (eq. 17), otherwise the label.
        """
        ids = [item.id for item in self.items]
        if self.policy != policies.SOFT:
            return np.eye(len(self.classes))[[self.classes.index(label) for label in self.labels]]
        return policies.soft_labels(ids, self.annotations, self.classes, self.labels)

    @cached_property
    def raters(self) -> tuple[str, ...]:
        """The people who can be asked one by one, sorted; those without a name are not."""
        return tuple(sorted({a.rater for a in self.annotations} - {RELEASE, ""}))

    def said_by(self, rater: str) -> dict[str, tuple[str, ...]]:
        """What one rater answered, by item, within the classes; () where they chose none of these.

        Items that the rater was never given are absent. For the oracle only.
        """
        return {
            a.item: tuple(label for label in a.labels if label in self.classes)
            for a in self.annotations
            if a.rater == rater
        }

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers' names, sorted; empty where the corpus names no speakers."""
        return tuple(sorted({item.speaker for item in self.items if item.speaker}))

    def pick(self, indices: Iterable[int] | np.ndarray) -> list[Utterance]:
        """The utterances at these positions, in the order of the indices; no labels."""
        return [self.utterances[int(i)] for i in indices]

    def counts(self) -> dict[str, int]:
        """How many items each class has, in the order of the classes."""
        found = Counter(self.labels)
        return {label: found[label] for label in self.classes}


def released(labels: Iterable[tuple[str, str]]) -> tuple[Annotation, ...]:
    """Annotations of (item, label) by the release itself, such as an emotion that was meant."""
    return tuple(Annotation(item, RELEASE, (label,)) for item, label in labels)


def select(
    release: Release, classes: Sequence[str] | None = None, policy: str | None = None
) -> Corpus:
    """What a run uses of a release: the items with a label by the policy within the classes.

    classes: None for the release's default, otherwise these in this order. policy: None for the
    release's own labels, or the majority of its raters where it publishes none. What is left out
    is counted in the notes. Raises `CorpusError`.
    """
    wanted = chosen_classes(release.name, release.classes, classes, release.default)
    if policy is None:
        published = any(a.rater == RELEASE for a in release.annotations)
        policy = RELEASE if published else policies.MAJORITY
    policies.check(release.name, policy, release.annotations)
    labels = policies.hard_labels(policy, [item.id for item in release.items], release.annotations)
    kept = [i for i, label in enumerate(labels) if label in wanted]
    ids = {release.items[i].id for i in kept}
    return Corpus(
        name=release.name,
        items=tuple(release.items[i] for i in kept),
        annotations=tuple(a for a in release.annotations if a.item in ids),
        classes=wanted,
        notes=(*release.notes, *_left_out(policy, labels, wanted)),
        policy=policy,
        folds=tuple(fold.among(ids) for fold in release.folds),
    )


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


def _left_out(policy: str, labels: Sequence[str], wanted: Sequence[str]) -> list[str]:
    others = Counter(label for label in labels if label and label not in wanted)
    notes = []
    if others:
        listed = some(f"{label} {n}" for label, n in sorted(others.items()))
        notes.append(f"{others.total()} recordings of other labels left out: {listed}")
    without = sum(not label for label in labels)
    if without:
        notes.append(f"{without} recordings without a label by the policy {policy!r} left out")
    return notes
