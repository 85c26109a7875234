"""How a corpus is split: folds for testing, and a validation part of each fold's training data.

Three protocols, by name; results are comparable within one of them only.

speaker-independent  test, validation and training speakers are disjoint (the default)
paper-validation     test speakers are disjoint; validation is a random tenth of the other
                     speakers' utterances, as in section 4.1 of Li et al. 2024
random               no regard for speakers, stratified by class; the only one for a corpus that
                     names no speakers, and optimistic for every other
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulate.data import Corpus, some

DEFAULT = "speaker-independent"


class ProtocolError(ValueError):
    """A split that a corpus doesn't allow, or one that lets a speaker into two parts."""


@dataclass(frozen=True)
class Fold:
    """One split of a corpus: positions of utterances, sorted, disjoint; together all of them."""

    name: str
    train: np.ndarray  # int64
    validation: np.ndarray  # int64
    test: np.ndarray  # int64

    def parts(self) -> dict[str, np.ndarray]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def names() -> list[str]:
    """The protocols that `split` knows."""
    return list(_PROTOCOLS)


def split(
    protocol: str, corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """The folds of a protocol by name; each utterance is tested exactly once. `ProtocolError`."""
    if protocol not in _PROTOCOLS:
        raise ProtocolError(f"no protocol {protocol!r}; known: {', '.join(names())}")
    return _PROTOCOLS[protocol](corpus, folds, validation_share, seed)


def speaker_independent(
    corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """Test, validation and training speakers disjoint in each fold.

    Speakers are dealt to the folds so that their utterances and classes balance. Validation takes
    whole speakers, at least one, whose utterances come nearest to `validation_share` of the fold's
    training data; none where that is 0. As many folds as speakers is leave-one-speaker-out. Raises
    `ProtocolError` for a corpus without speakers or with too few.
    """
    result = []
    for number, test in enumerate(_speaker_folds(corpus, folds, validation_share, seed)):
        rest = _rest(corpus, test)
        rng = np.random.default_rng([seed, number, 1])
        chosen = (
            _validation_speakers(corpus, rest, validation_share, rng) if validation_share else set()
        )
        in_validation = np.array([corpus.utterances[i].speaker in chosen for i in rest])
        fold = Fold(f"fold-{number + 1}", rest[~in_validation], rest[in_validation], test)
        check_disjoint(corpus, fold)
        result.append(_filled(corpus, fold, validation_share > 0))
    return result


def paper_validation(
    corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """The test folds of `speaker_independent` with the paper's validation set.

    Validation is a random `validation_share` of the remaining utterances, at least one, so its
    speakers are in the training data as well; test speakers are in neither.
    """
    result = []
    for number, test in enumerate(_speaker_folds(corpus, folds, validation_share, seed)):
        fold = _hold_out(corpus, number, test, validation_share, seed)
        check_disjoint(corpus, fold, shared=frozenset({"train", "validation"}))
        result.append(_filled(corpus, fold, validation_share > 0))
    return result


def random_folds(
    corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """Folds that disregard speakers, stratified by class; validation is random as well."""
    _check_arguments(corpus, folds, validation_share)
    rng = np.random.default_rng([seed, 0])
    labels = np.array(corpus.labels)
    dealt = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == label)) for label in corpus.classes]
    )
    result = []
    for number in range(folds):
        fold = _hold_out(corpus, number, np.sort(dealt[number::folds]), validation_share, seed)
        check_disjoint(corpus, fold, shared=frozenset(fold.parts()))
        result.append(_filled(corpus, fold, validation_share > 0))
    return result


def check_disjoint(corpus: Corpus, fold: Fold, shared: frozenset[str] = frozenset()) -> None:
    """Raises `ProtocolError` where two parts of a fold share utterances or speakers.

    `shared` names the parts among which a protocol lets speakers occur together; it says so by its
    own name. Utterances are never shared.
    """
    parts = list(fold.parts().items())
    for position, (first, first_indices) in enumerate(parts):
        for second, second_indices in parts[position + 1 :]:
            twice = np.intersect1d(first_indices, second_indices)
            if len(twice):
                ids = some(u.id for u in corpus.pick(twice))
                raise ProtocolError(f"{corpus.name} {fold.name}: {first} and {second} share {ids}")
            if first in shared and second in shared:
                continue
            speakers = sorted(
                {u.speaker for u in corpus.pick(first_indices)}
                & {u.speaker for u in corpus.pick(second_indices)}
            )
            if speakers:
                raise ProtocolError(
                    f"{corpus.name} {fold.name}: {first} and {second} share the speakers "
                    f"{some(name or '(none named)' for name in speakers)}; give each speaker to "
                    "one part, or choose a protocol that allows it by name"
                )


def _speaker_folds(
    corpus: Corpus, folds: int, validation_share: float, seed: int
) -> list[np.ndarray]:
    """Test positions of each fold, whole speakers each.

    Greedy, the largest speaker first: into the fold, among those with room for one more speaker,
    whose class counts so far overlap least with the speaker's, which is what keeps the sum of
    squared class counts smallest. Equal speakers are ordered by the seed.
    """
    _check_arguments(corpus, folds, validation_share)
    _check_speakers(corpus, folds)
    speakers = corpus.speakers
    rng = np.random.default_rng([seed, 0])
    counts = np.zeros((len(speakers), len(corpus.classes)))  # [S, C]
    speaker_of = np.searchsorted(speakers, [u.speaker for u in corpus.utterances])
    class_index = {label: i for i, label in enumerate(corpus.classes)}
    class_of = np.array([class_index[label] for label in corpus.labels])
    np.add.at(counts, (speaker_of, class_of), 1)
    # A class counts by its share, so that a rare one is spread as evenly as a frequent one.
    weights = counts / np.maximum(counts.sum(axis=0), 1)
    order = rng.permutation(len(speakers))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    room = -(-len(speakers) // folds)
    members: list[list[int]] = [[] for _ in range(folds)]
    for speaker in order:
        open_folds = [f for f in range(folds) if len(members[f]) < room]
        target = min(
            open_folds,
            key=lambda f: (
                float(weights[members[f]].sum(axis=0) @ weights[speaker]),
                counts[members[f]].sum(),
                f,
            ),
        )
        members[target].append(int(speaker))
    return [np.flatnonzero(np.isin(speaker_of, fold)) for fold in members]


def _validation_speakers(
    corpus: Corpus, rest: np.ndarray, share: float, rng: np.random.Generator
) -> set[str]:
    """Speakers of `rest` that together come nearest to `share` of it, greedily; one at least."""
    sizes = Counter(u.speaker for u in corpus.pick(rest))
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
    return chosen


def _hold_out(corpus: Corpus, number: int, test: np.ndarray, share: float, seed: int) -> Fold:
    """The fold of these test positions whose validation is a random share of the rest."""
    rest = _rest(corpus, test)
    rng = np.random.default_rng([seed, number, 1])
    size = min(max(1, round(share * len(rest))), len(rest) - 1) if share else 0
    validation = np.sort(rng.choice(rest, size=size, replace=False))
    return Fold(f"fold-{number + 1}", np.setdiff1d(rest, validation), validation, test)


def _rest(corpus: Corpus, test: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(len(corpus)), test)


def _filled(corpus: Corpus, fold: Fold, validated: bool) -> Fold:
    """The fold, if each of its parts has utterances; a corpus may be too small for that.

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


def _check_arguments(corpus: Corpus, folds: int, validation_share: float) -> None:
    if folds < 2:
        raise ProtocolError(f"folds={folds}: at least 2")
    if not 0 <= validation_share < 1:
        raise ProtocolError(f"validation_share={validation_share}: from 0 to below 1")
    if len(corpus) < folds:
        raise ProtocolError(
            f"{corpus.name}: {len(corpus)} utterances are too few for {folds} folds"
        )


def _check_speakers(corpus: Corpus, folds: int) -> None:
    unnamed = [u.id for u in corpus.utterances if not u.speaker]
    if unnamed:
        raise ProtocolError(
            f"{corpus.name}: {len(unnamed)} of {len(corpus)} utterances name no speaker "
            f"({some(unnamed, 3)}), so speakers can't be kept apart; name them in the manifest's "
            "speaker column, or choose protocol='random'"
        )
    if len(corpus.speakers) < folds:
        raise ProtocolError(
            f"{corpus.name}: {len(corpus.speakers)} speakers ({some(corpus.speakers)}) are too few "
            f"for {folds} folds; no more folds than speakers"
        )


_PROTOCOLS: dict[str, Callable[[Corpus, int, float, int], list[Fold]]] = {
    DEFAULT: speaker_independent,
    "paper-validation": paper_validation,
    "random": random_folds,
}
