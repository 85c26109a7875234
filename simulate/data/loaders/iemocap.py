"""IEMOCAP (Busso et al. 2008): 10,039 English utterances, 5 sessions of 2 speakers each.

Layout: `Session1/sentences/wav/<dialog>/<utterance>.wav`, and the labels of each dialog in
`Session1/dialog/EmoEvaluation/<dialog>.txt`: a line per utterance with the raters' consensus,
below it a line per rater, who may name several emotions. The two speakers of a session talk to
each other and share recordings, so a session is a group.

The release's label is the consensus (`xxx` where there is none). The raters are the external ones
(`C-E1` is `E1`); the speakers' evaluations of themselves (`C-F1`, `C-M1`) don't count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.errors import CorpusError
from simulate.data.loaders._release import (
    audio_files,
    check_release,
    find_root,
    take_empty,
    visible,
)
from simulate.data.policies import RELEASE, Annotation

CODES = {  # of the consensus
    "ang": "anger",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
}
NO_CONSENSUS = "xxx"
WORDS = {  # of the raters
    "anger": "anger",
    "disgust": "disgust",
    "excited": "excitement",
    "fear": "fear",
    "frustration": "frustration",
    "happiness": "happiness",
    "neutral": "neutral",
    "neutral state": "neutral",
    "other": "other",
    "sadness": "sadness",
    "surprise": "surprise",
}
CLASSES = tuple(CODES.values())
PAPER_CLASSES = ("anger", "happiness", "neutral", "sadness")
COUNTS = {  # of the consensus; 2,507 utterances have none
    "anger": 1103,
    "disgust": 2,
    "excitement": 1041,
    "fear": 40,
    "frustration": 1849,
    "happiness": 595,
    "neutral": 1708,
    "other": 3,
    "sadness": 1084,
    "surprise": 107,
}
SESSIONS = {
    "Session1": 1819,
    "Session2": 1811,
    "Session3": 2136,
    "Session4": 2103,
    "Session5": 2170,
}
TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\w+)\s+\[.*\]\s*")
RATER = re.compile(r"C-(\w+):\s*([^()]*)(\(.*)?")
EXTERNAL = re.compile(r"E\d+")
UTTERANCE = re.compile(r"Ses0(\d)[FM]_\w+_([FM])\w?\d+")


@dataclass(frozen=True)
class Turn:
    """What a dialog's file says of one utterance."""

    id: str
    consensus: str
    ratings: dict[str, tuple[str, ...]]  # by rater


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """IEMOCAP from the folder with `Session1/` to `Session5/`, or the folder that holds it.

    The four classes of the literature by default, with excited counted as happy; naming
    `excitement` among the classes keeps the two apart. Raises `CorpusError` where utterances are
    missing or counts aren't the release's; with `allow_partial` they become a note.
    """
    wanted = chosen_classes("iemocap", CLASSES, classes, PAPER_CLASSES)
    layout = "IEMOCAP's Session1/dialog/EmoEvaluation/*.txt and Session1/sentences/wav/"
    folder = find_root("iemocap", root, layout, _is_iemocap)
    turns: dict[str, Turn] = {}
    files: dict[str, Path] = {}
    group: dict[str, str] = {}
    for session in SESSIONS:
        for turn in _turns(folder / session / "dialog" / "EmoEvaluation"):
            if turn.id in turns:
                raise CorpusError(f"iemocap: {turn.id} is labelled twice below {folder}")
            turns[turn.id], group[turn.id] = turn, session
        files |= audio_files("iemocap", _dialogs(folder / session / "sentences" / "wav"))
    empty = take_empty(files)
    if "excitement" not in wanted:
        turns = {id_: _excited_is_happy(turn) for id_, turn in turns.items()}
    usable = sorted(turns.keys() & files.keys())
    notes = check_release(
        "iemocap",
        folder,
        _counts([turns[id_] for id_ in usable], wanted),
        [*_short_sessions(group[id_] for id_ in usable), *sorted(turns.keys() - files.keys())],
        [f"{files[id_].name} without a label" for id_ in sorted(files.keys() - turns.keys())],
        empty,
        allow_partial,
    )
    items = [Item(id_, files[id_], "iemocap", _speaker(id_), group[id_]) for id_ in usable]
    return Release(
        name="iemocap",
        items=tuple(items),
        annotations=tuple(a for id_ in usable for a in _annotations(turns[id_])),
        classes=CLASSES,
        default=PAPER_CLASSES,
        notes=notes,
    )


def _turns(folder: Path) -> Iterator[Turn]:
    """The utterances of a session's dialogs, `Self-evaluation/` and its like left aside."""
    if not folder.is_dir():
        return
    for path in visible(folder):
        if path.suffix == ".txt" and path.is_file():
            yield from parse(path)


def parse(path: Path) -> Iterator[Turn]:
    """The utterances of one dialog's evaluation; raises `CorpusError` naming file and line."""
    turn: Turn | None = None
    text = path.read_text(encoding="utf-8", errors="replace")  # comments may be in any encoding
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}: line {number}"
        if start := TURN.fullmatch(line):
            if turn is not None:
                yield turn
            if start[2] != NO_CONSENSUS and start[2] not in CODES:
                raise CorpusError(f"{where}: no emotion {start[2]!r}; take the file as released")
            turn = Turn(start[1], CODES.get(start[2], ""), {})
        elif rating := RATER.match(line):
            if turn is None:
                raise CorpusError(f"{where}: a rater's line before any utterance")
            if EXTERNAL.fullmatch(rating[1]):
                _rate(where, turn, rating[1], rating[2])
    if turn is not None:
        yield turn


def _rate(where: str, turn: Turn, rater: str, text: str) -> None:
    words = [word.strip().lower() for word in text.split(";")]
    unknown = [word for word in words if word and word not in WORDS]
    if unknown:
        raise CorpusError(f"{where}: no emotion {unknown[0]!r}; take the file as released")
    named = [*turn.ratings.get(rater, ()), *(WORDS[word] for word in words if word)]
    turn.ratings[rater] = tuple(dict.fromkeys(named))


def _excited_is_happy(turn: Turn) -> Turn:
    def merged(label: str) -> str:
        return "happiness" if label == "excitement" else label

    ratings = {
        rater: tuple(dict.fromkeys(map(merged, labels))) for rater, labels in turn.ratings.items()
    }
    return replace(turn, consensus=merged(turn.consensus), ratings=ratings)


def _annotations(turn: Turn) -> Iterator[Annotation]:
    yield Annotation(turn.id, RELEASE, (turn.consensus,) if turn.consensus else ())
    for rater, labels in sorted(turn.ratings.items()):
        yield Annotation(turn.id, rater, labels)


def _counts(turns: Iterable[Turn], wanted: Sequence[str]) -> list[tuple[str, int, int]]:
    expected = dict(COUNTS)
    if "excitement" not in wanted:
        expected["happiness"] += expected["excitement"]
    found = Counter(turn.consensus for turn in turns)
    return [(label, found[label], expected[label]) for label in wanted]


def _short_sessions(groups: Iterable[str]) -> list[str]:
    found = Counter(groups)
    return [
        f"{expected - found[session]} utterances of {session}"
        for session, expected in SESSIONS.items()
        if found[session] < expected
    ]


def _speaker(utterance: str) -> str:
    """`Ses01F`: who speaks is in the turn's suffix; the dialog's letter says who wore markers."""
    match = UTTERANCE.fullmatch(utterance)
    if match is None:
        raise CorpusError(f"iemocap: {utterance} is no name of an utterance, Ses01F_impro01_F000")
    return f"Ses0{match[1]}{match[2]}"


def _dialogs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [entry for entry in visible(folder) if entry.is_dir()]


def _is_iemocap(folder: Path) -> bool:
    return any((folder / session / "dialog" / "EmoEvaluation").is_dir() for session in SESSIONS)
