"""CREMA-D (Cao et al. 2014): 7,442 acted English utterances, 91 actors, 6 emotions.

Layout: `AudioWAV/1001_DFA_ANG_XX.wav` = actor, sentence, emotion meant, level. What about ten
raters heard in each is in `processedResults/tabulatedVotes.csv`: votes per emotion, of raters
without names. The release's label is the emotion that was meant, which is what the literature
counts; `policy="majority"` takes what was heard.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.errors import CorpusError
from simulate.data.loaders._release import (
    audio_files,
    check_release,
    find_root,
    labelled,
    take_empty,
    visible,
)
from simulate.data.policies import Annotation

CODES = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
CLASSES = tuple(CODES.values())
COUNTS = {label: 1087 if label == "neutral" else 1271 for label in CLASSES}
VOTES = {label[0].upper(): label for label in CLASSES}  # the columns of the votes
MODALITIES = {"voice": "1", "face": "2", "multimodal": "3"}  # first digit of a row's number
EMPTY = "1076_MTI_SAD_XX"  # without audio in some releases
NAME = re.compile(rf"(1\d\d\d)_([A-Z]{{3}})_({'|'.join(CODES)})_(?:LO|MD|HI|XX)")


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    votes: str | Path | None = None,
    modality: str = "voice",
) -> Release:
    """CREMA-D from the folder with `AudioWAV/`, or the folder that holds it.

    votes: the votes' file; None for the one of the release, if it is there. modality: what the
    raters saw or heard: voice, face or multimodal. Raises `CorpusError` where counts aren't the
    release's, with the names of missing files where there are votes; with `allow_partial` they
    become a note.
    """
    wanted = chosen_classes("cremad", CLASSES, classes, CLASSES)
    folder = find_root("cremad", root, "CREMA-D's AudioWAV/1001_DFA_ANG_XX.wav files", _is_cremad)
    files = audio_files("cremad", [folder / "AudioWAV"])
    empty = take_empty(files)
    expected = dict(COUNTS)
    if EMPTY in empty:  # as released
        empty.remove(EMPTY)
        expected["sadness"] -= 1
    recordings, unexpected = [], []
    for stem, path in files.items():
        match = NAME.fullmatch(stem)
        if match is None:
            unexpected.append(path.name)
            continue
        recordings.append((Item(stem, path, "cremad", match[1], text=match[2]), CODES[match[3]]))
    found = Counter(label for _, label in recordings)
    counts = [(label, found[label], expected[label]) for label in wanted]
    given = _votes_file(folder, votes)
    heard = read_votes(given, modality) if given else {}
    absent = heard.keys() - files.keys() - {EMPTY}
    missing = sorted(
        stem for stem in absent if (m := NAME.fullmatch(stem)) and CODES[m[3]] in wanted
    )
    notes = check_release(
        "cremad", folder / "AudioWAV", counts, missing, unexpected, empty, allow_partial
    )
    if given is None:
        notes += ("no processedResults/tabulatedVotes.csv: the emotions that were meant only",)
    release = labelled("cremad", recordings, CLASSES, CLASSES, notes)
    return replace(release, annotations=(*release.annotations, *_annotations(release.items, heard)))


def read_votes(path: Path, modality: str = "voice") -> dict[str, dict[str, int]]:
    """Votes per emotion of each clip of one modality; raises `CorpusError` naming line and column.

    A clip may have several rows; their votes are added.
    """
    if modality not in MODALITIES:
        raise CorpusError(f"cremad: modality={modality!r}; one of {', '.join(MODALITIES)}")
    result: dict[str, dict[str, int]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        absent = [c for c in (*VOTES, "fileName", "numResponses") if c not in columns]
        if absent:
            raise CorpusError(f"{path}: line 1: no column {absent[0]!r}; take it as released")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            if not row[columns[0]].startswith(MODALITIES[modality]):
                continue
            try:
                counts = {label: int(row[column]) for column, label in VOTES.items()}
                answers = int(row["numResponses"])
            except (TypeError, ValueError):
                raise CorpusError(
                    f"{where}: votes are whole numbers; take it as released"
                ) from None
            if sum(counts.values()) != answers or min(counts.values()) < 0:
                raise CorpusError(
                    f"{where}, numResponses: {answers}, but the votes sum to "
                    f"{sum(counts.values())}; take it as released"
                )
            before = result.get(row["fileName"], dict.fromkeys(CLASSES, 0))
            result[row["fileName"]] = {label: before[label] + n for label, n in counts.items()}
    return result


def _annotations(items: Sequence[Item], heard: dict[str, dict[str, int]]) -> Iterator[Annotation]:
    """An annotation per vote; nothing says which of the raters gave it."""
    for item in items:
        for label, n in heard.get(item.id, {}).items():
            for _ in range(n):
                yield Annotation(item.id, "", (label,))


def _votes_file(folder: Path, votes: str | Path | None) -> Path | None:
    if votes is None:
        released = folder / "processedResults" / "tabulatedVotes.csv"
        return released if released.is_file() else None
    if not Path(votes).is_file():
        raise CorpusError(f"cremad: votes={votes}: no such file; give tabulatedVotes.csv")
    return Path(votes)


def _is_cremad(folder: Path) -> bool:
    audio = folder / "AudioWAV"
    return audio.is_dir() and any(NAME.fullmatch(path.stem) for path in visible(audio))
