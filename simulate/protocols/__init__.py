"""How a corpus is split: folds for testing, and a validation part of each fold's training data.

    folds_of(Protocol("session", tested=("iemocap",)), corpus) -> list[Fold]

By name; results are comparable within one protocol only. `summaries()` says what each does.
Where corpora are merged, `tested` names those that are tested; the others only train.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulate.data import Corpus
from simulate.protocols import chance, emobox, official, sessions, speakers
from simulate.protocols.base import (
    EVERY_PART,
    NO_PART,
    NOT_TEST,
    Division,
    Fold,
    Kind,
    Protocol,
    ProtocolError,
    check_disjoint,
    filled,
)

__all__ = [
    "DEFAULT",
    "Fold",
    "Protocol",
    "ProtocolError",
    "check_disjoint",
    "folds_of",
    "names",
    "speaker_independent",
    "split",
    "summaries",
]

DEFAULT = "speaker-independent"

_KINDS = {
    DEFAULT: Kind(
        "test, validation and training speakers are disjoint, as are those recorded together",
        speakers.divide,
        NO_PART,
        by_speaker=True,
    ),
    "paper-validation": Kind(
        "test speakers are disjoint; validation is a random tenth of the others' recordings",
        speakers.divide,
        NOT_TEST,
    ),
    "session": Kind(
        "each session is tested once; validation is a random tenth of the others (IEMOCAP)",
        sessions.divide,
        NOT_TEST,
    ),
    "official": Kind("the split that the corpus is released with", official.divide, NOT_TEST),
    "random": Kind(
        "no regard for speakers: for corpora that name none, optimistic for every other",
        chance.divide,
        EVERY_PART,
    ),
    "emobox": Kind("EmoBox's folds, speakers disjoint", emobox.divide, NOT_TEST),
    "emobox-speakers-shared": Kind(
        "EmoBox's folds that put every speaker into training and test: optimistic",
        emobox.divide,
        EVERY_PART,
    ),
}


def names() -> list[str]:
    """The protocols that `folds_of` knows."""
    return list(_KINDS)


def summaries() -> dict[str, str]:
    """What each protocol does, in a line, by its name."""
    return {name: kind.summary for name, kind in _KINDS.items()}


def folds_of(protocol: Protocol, corpus: Corpus) -> list[Fold]:
    """The folds of a protocol. Raises `ProtocolError` for what the corpus does not allow."""
    if protocol.name not in _KINDS:
        raise ProtocolError(f"no protocol {protocol.name!r}; known: {', '.join(names())}")
    if not 0 <= protocol.validation_share < 1:
        share = protocol.validation_share
        raise ProtocolError(f"validation_share={share}: from 0 to below 1")
    kind = _KINDS[protocol.name]
    tested, positions = _tested(corpus, protocol)
    return [
        _fold(corpus, kind, protocol, number, _in(division, positions))
        for number, division in enumerate(kind.divide(tested, protocol))
    ]


def split(
    name: str, corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """The folds of a protocol by name, all of the corpus tested."""
    return folds_of(Protocol(name, folds, validation_share, seed), corpus)


def speaker_independent(
    corpus: Corpus, folds: int = 5, validation_share: float = 0.1, seed: int = 0
) -> list[Fold]:
    """Test, validation and training speakers disjoint in each fold."""
    return split(DEFAULT, corpus, folds, validation_share, seed)


def _fold(corpus: Corpus, kind: Kind, protocol: Protocol, number: int, division: Division) -> Fold:
    """A division with its validation part; what only trains is in what is left.

    A validation part that the protocol names is kept whatever the share, unless that is 0: then it
    trains.
    """
    named = division.validation if division.validation is not None else np.zeros(0, np.int64)
    others = np.setdiff1d(np.arange(len(corpus)), _tested(corpus, protocol)[1])
    if division.train is None:
        rest = np.setdiff1d(np.arange(len(corpus)), division.test)
    else:
        rest = np.union1d(division.train, others)
    validation, share = named, protocol.validation_share
    if not share:
        rest, validation = np.union1d(rest, named), named[:0]
    elif not len(named):
        rng = np.random.default_rng([protocol.seed, number, 1])
        if kind.by_speaker:
            validation = speakers.hold_out(corpus, rest, share, rng)
        else:
            validation = chance.hold_out(rest, share, rng)
    train = np.setdiff1d(rest, validation)
    fold = Fold(division.name, train, validation, division.test, protocol.transductive)
    check_disjoint(corpus, fold, kind.shared)
    return filled(corpus, fold, share > 0)


def _tested(corpus: Corpus, protocol: Protocol) -> tuple[Corpus, np.ndarray]:
    """The part of the corpus that can be tested, and where its recordings stand in the whole."""
    wanted = set(protocol.tested or corpus.tested)
    if not wanted:
        return corpus, np.arange(len(corpus))
    there = {item.corpus for item in corpus.items}
    if wanted - there:
        missing, found = ", ".join(sorted(wanted - there)), ", ".join(sorted(there))
        raise ProtocolError(f"{corpus.name}: {missing} is not in it; in it: {found}")
    positions = np.array([i for i, item in enumerate(corpus.items) if item.corpus in wanted])
    items = tuple(corpus.items[i] for i in positions)
    ids = {item.id for item in items}
    given = tuple(one for one in corpus.annotations if one.item in ids)
    return replace(corpus, items=items, annotations=given, tested=()), positions


def _in(division: Division, positions: np.ndarray) -> Division:
    """The same with positions of the whole corpus."""
    return replace(
        division,
        test=positions[division.test],
        train=None if division.train is None else positions[division.train],
        validation=None if division.validation is None else positions[division.validation],
    )
