"""How annotations become labels, by name: `SUMMARIES` says what each does.

A recording without a label by the policy is left out and counted, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from after_model import labels as method
from simulate.data.errors import CorpusError, some

RELEASE = "release"
"""The name of the rater whose annotations are the release's own labels."""
MAJORITY = "majority"
MAJORITY_OR_RELEASE = "majority-or-release"
SOFT = "soft"
RATER = "rater:"
SUMMARIES = {
    RELEASE: "what the release publishes: the emotion that was meant, or its own consensus",
    MAJORITY: "the emotion that most raters named; equally many for two: no label",
    MAJORITY_OR_RELEASE: "the same, and the release's label where the raters' majority is none",
    SOFT: "to learn from, the share of each emotion among the votes (eq. 17 of Li et al. 2024); "
    "to test against, the release's label or the majority",
    f"{RATER}NAME": "what one rater said; several emotions at once: no label",
}
"""The policies as they are written; NAME stands for a rater's. What counts in the literature are of
is `release`."""


@dataclass(frozen=True)
class Annotation:
    """What one rater said of one item.

    rater: `release` for what the release itself says; empty for someone whose name isn't
    published, of whom an item may have several. labels: several where the rater named several,
    none where the rater named none.
    """

    item: str
    rater: str
    labels: tuple[str, ...]


def names() -> tuple[str, ...]:
    """The policies, as they are written; NAME stands for a rater's."""
    return tuple(SUMMARIES)


def check(corpus: str, policy: str, annotations: Iterable[Annotation]) -> None:
    """Raises `CorpusError` for a policy that is unknown or that these annotations can't serve."""
    raters = {a.rater for a in annotations}
    if policy in (MAJORITY, MAJORITY_OR_RELEASE, SOFT):
        return
    if policy == RELEASE:
        if RELEASE not in raters:
            raise CorpusError(
                f"{corpus}: publishes no labels of its own; policy={MAJORITY!r} takes its raters'"
            )
        return
    if not policy.startswith(RATER):
        raise CorpusError(f"{corpus}: no policy {policy!r}; known: {', '.join(names())}")
    if policy.removeprefix(RATER) not in raters - {RELEASE, ""}:
        named = some(sorted(raters - {RELEASE, ""})) or "none by name"
        raise CorpusError(f"{corpus}: no {policy!r}; raters: {named}")


def hard_labels(
    policy: str, items: Sequence[str], annotations: Sequence[Annotation]
) -> tuple[str, ...]:
    """One emotion per item by the policy, aligned with `items`; empty where there is none."""
    given = by_item(items, annotations)
    return tuple(_hard(policy, given[item]) for item in items)


def by_item(
    items: Sequence[str], annotations: Iterable[Annotation]
) -> Mapping[str, list[Annotation]]:
    """The annotations of each item; raises `CorpusError` for one of no item, or given twice."""
    found: dict[str, list[Annotation]] = {item: [] for item in items}
    seen: set[tuple[str, str]] = set()
    for annotation in annotations:
        if annotation.item not in found:
            raise CorpusError(f"an annotation of {annotation.item}, which is no recording here")
        if annotation.rater and (annotation.item, annotation.rater) in seen:
            raise CorpusError(f"{annotation.item}: two annotations by {annotation.rater}")
        seen.add((annotation.item, annotation.rater))
        found[annotation.item].append(annotation)
    return found


def votes(annotations: Iterable[Annotation]) -> list[Annotation]:
    """What people said: all but the release's own label, or that one where there is no other."""
    given = list(annotations)
    return [a for a in given if a.rater != RELEASE] or given


def soft_labels(
    items: Sequence[str],
    annotations: Sequence[Annotation],
    classes: Sequence[str],
    fallback: Sequence[str],
) -> np.ndarray:
    """Eq. 17: the share of each class among the votes for these classes, float64 [N, C].

    fallback: the label of an item for which nobody chose one of the classes, aligned with `items`.
    """
    index = {label: i for i, label in enumerate(classes)}
    given = by_item(items, annotations)
    result = np.zeros((len(items), len(classes)))
    for row, item in enumerate(items):
        chosen = [[index[x] for x in a.labels if x in index] for a in votes(given[item])]
        if not any(chosen):
            chosen = [[index[fallback[row]]]]
        result[row] = method.soft_labels(chosen, len(classes))
    return result


def _hard(policy: str, given: Sequence[Annotation]) -> str:
    if policy == RELEASE:
        return _said(given, RELEASE)
    if policy == SOFT:
        return _said(given, RELEASE) or _majority(given)
    if policy == MAJORITY:
        return _majority(given)
    if policy == MAJORITY_OR_RELEASE:
        return _majority(given) or _said(given, RELEASE)
    return _said(given, policy.removeprefix(RATER))


def _said(given: Iterable[Annotation], rater: str) -> str:
    labels = [label for a in given if a.rater == rater for label in a.labels]
    return labels[0] if len(labels) == 1 else ""


def _majority(given: Iterable[Annotation]) -> str:
    """The emotion with most votes; each that a rater named counts one."""
    most = Counter(label for a in votes(given) for label in dict.fromkeys(a.labels)).most_common(2)
    if not most or (len(most) > 1 and most[0][1] == most[1][1]):
        return ""
    return most[0][0]
