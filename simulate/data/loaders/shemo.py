"""ShEMO (Mohamad Nezami et al. 2019): 3,000 Persian utterances of radio plays, 87 speakers.

Layout: `female/F01A01.wav`, `male/M01A01.wav` = sex, speaker, emotion, number; `shemo.json` of
the release, with transcripts and the same labels, may lie beside them and is compared. The
corpus's own paper and Table 1 of Li et al. 2024 count its emotions otherwise (anger 1,059, neutral
1,028, sadness 449, surprise 225, happiness 201, fear 38) than what is released.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.errors import CorpusError, some
from simulate.data.loaders._release import (
    audio_files,
    check_release,
    find_root,
    labelled,
    take_empty,
)

LETTERS = {
    "A": "anger",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
    "W": "surprise",
}
CLASSES = tuple(LETTERS.values())
COUNTS = {
    "anger": 1042,
    "fear": 32,
    "happiness": 203,
    "neutral": 1160,
    "sadness": 362,
    "surprise": 201,
}
WORDS = {  # of shemo.json
    "angry": "anger",
    "fearful": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
}
FOLDERS = {"female": "F", "male": "M"}
NAME = re.compile(rf"([FM]\d\d)([{''.join(LETTERS)}])\d\d")


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """ShEMO from the folder with `female/` and `male/`, or the folder that holds it.

    Raises `CorpusError` where counts aren't the release's, with the names of missing files where
    `shemo.json` is there; with `allow_partial` they become a note.
    """
    wanted = chosen_classes("shemo", CLASSES, classes, CLASSES)
    folder = find_root("shemo", root, "ShEMO's female/F01A01.wav and male/ files", _is_shemo)
    files = audio_files("shemo", [folder / name for name in FOLDERS if (folder / name).is_dir()])
    empty = take_empty(files)
    recordings, unexpected = [], []
    for stem, path in files.items():
        match = NAME.fullmatch(stem)
        if match is None or FOLDERS[path.parent.name] != match[1][0]:
            unexpected.append(f"{path.parent.name}/{path.name}")
            continue
        recordings.append((Item(stem, path, "shemo", match[1]), LETTERS[match[2]]))
    found = Counter(label for _, label in recordings)
    counts = [(label, found[label], COUNTS[label]) for label in wanted]
    known = _labels(folder / "shemo.json")
    missing = sorted(stem for stem, label in known.items() if label in wanted and stem not in files)
    notes = check_release("shemo", folder, counts, missing, unexpected, empty, allow_partial)
    differing = [item.id for item, label in recordings if known.get(item.id, label) != label]
    if differing:
        raise CorpusError(
            f"{folder / 'shemo.json'}: names another emotion than the file for {some(differing)}; "
            "take both from the same release"
        )
    return labelled("shemo", recordings, CLASSES, CLASSES, notes)


def _labels(path: Path) -> dict[str, str]:
    """The labels of `shemo.json` by recording; none where the file isn't there."""
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {stem: WORDS[record["emotion"]] for stem, record in records.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path}: not ShEMO's labels ({error!r}); copy it from the release, or remove it"
        ) from None


def _is_shemo(folder: Path) -> bool:
    return any(
        NAME.fullmatch(path.stem)
        for name in FOLDERS
        if (folder / name).is_dir()
        for path in (folder / name).iterdir()
    )
