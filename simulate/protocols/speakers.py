"""Folds by speaker: whoever is tested is in no other part, nor whom they were recorded with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from simulate.data import Corpus, Item, some
from simulate.protocols.base import (
    Division,
    Protocol,
    ProtocolError,
    check_arguments,
    group_of,
    speaker_of,
)


def divide(corpus: Corpus, protocol: Protocol) -> list[Division]:
    """Test parts of whole speakers, dealt so that recordings and classes balance.

    Greedy, the largest speaker first: into the fold, among those with room for one more speaker,
    whose class counts so far overlap least with the speaker's, which is what keeps the sum of
    squared class counts smallest. Equal speakers are ordered by the seed. As many folds as speakers
    is leave-one-speaker-out. Speakers who were recorded together are dealt as one.
    """
    check_arguments(corpus, protocol)
    folds = protocol.folds
    unit_of = together(corpus.items)
    _check_speakers(corpus, unit_of, folds)
    units = sorted(set(unit_of))
    rng = np.random.default_rng([protocol.seed, 0])
    counts = np.zeros((len(units), len(corpus.classes)))  # [S, C]
    row_of = np.searchsorted(units, unit_of)
    class_index = {label: i for i, label in enumerate(corpus.classes)}
    class_of = np.array([class_index[label] for label in corpus.labels])
    np.add.at(counts, (row_of, class_of), 1)
    # A class counts by its share, so that a rare one is spread as evenly as a frequent one.
    weights = counts / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(len(units))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    room = -(-len(units) // folds)
    members: list[list[int]] = [[] for _ in range(folds)]
    for unit in order:
        open_folds = [f for f in range(folds) if len(members[f]) < room]
        target = min(
            open_folds,
            key=lambda f: (
                float(weights[members[f]].sum(axis=0) @ weights[unit]),
                counts[members[f]].sum(),
                f,
            ),
        )
        members[target].append(int(unit))
    tests = [np.flatnonzero(np.isin(row_of, fold)) for fold in members]
    return [Division(f"fold-{number + 1}", test) for number, test in enumerate(tests)]


def hold_out(
    corpus: Corpus, rest: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Whole speakers of `rest` that together come nearest to `share` of it, greedily; one at
    least. Never the last."""
    unit_of = together([corpus.items[i] for i in rest])
    sizes = Counter(unit_of)
    waiting = [str(s) for s in rng.permutation(sorted(sizes))]
    wanted = share * len(rest)
    chosen: set[str] = set()
    total = 0
    while len(waiting) > 1:
        nearest = min(waiting, key=lambda s: abs(total + sizes[s] - wanted))
        if chosen and abs(total + sizes[nearest] - wanted) >= abs(total - wanted):
            break
        waiting.remove(nearest)
        chosen.add(nearest)
        total += sizes[nearest]
    return rest[[unit in chosen for unit in unit_of]]


def together(items: Sequence[Item]) -> list[str]:
    """Of each item, a name that it shares with all that no fold may part it from.

    Those of its speaker, of its group, and of whoever is in a group with its speaker. Empty where
    neither is named.
    """
    leader: dict[object, object] = {}

    def find(node: object) -> object:
        while leader.setdefault(node, node) != node:
            node = leader[node]
        return node

    for item in items:
        speaker, group = speaker_of(item), group_of(item)
        if speaker is not None and group is not None:
            first, second = find(("speaker", speaker)), find(("group", group))
            if first != second:
                leader[second] = first
    several = len({item.corpus for item in items}) > 1
    members: dict[object, list[str]] = {}
    roots = []
    for item in items:
        speaker, group = speaker_of(item), group_of(item)
        key = ("speaker", speaker) if speaker is not None else ("group", group)
        root = None if speaker is None and group is None else find(key)
        roots.append(root)
        if root is not None:
            name = item.speaker or item.group
            members.setdefault(root, []).append(f"{item.corpus} {name}" if several else name)
    names = {root: min(found) for root, found in members.items()}
    return ["" if root is None else names[root] for root in roots]


def _check_speakers(corpus: Corpus, unit_of: Sequence[str], folds: int) -> None:
    unnamed = [item.id for item, unit in zip(corpus.items, unit_of, strict=True) if not unit]
    if unnamed:
        raise ProtocolError(
            f"{corpus.name}: {len(unnamed)} of {len(corpus)} utterances name no speaker "
            f"({some(unnamed, 3)}), so speakers can't be kept apart; name them in the manifest's "
            "speaker column, or choose protocol='random'"
        )
    units = sorted(set(unit_of))
    if len(units) < folds:
        grouped = any(item.group for item in corpus.items)
        what = "groups of speakers" if grouped else "speakers"
        raise ProtocolError(
            f"{corpus.name}: {len(units)} {what} ({some(units)}) are too few for {folds} folds; no "
            "more folds than that"
        )
