"""EmoDB (Burkhardt et al. 2005): 535 acted German utterances, 10 speakers, 7 emotions.

Layout: `wav/03a01Fa.wav` = speaker (2 digits), text (3), emotion (1 letter), version (1 letter).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.loaders._release import (
    audio_files,
    check_release,
    find_root,
    labelled,
    take_empty,
    visible,
)

LETTERS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "N": "neutral",
    "T": "sadness",
}
CLASSES = tuple(LETTERS.values())
SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
# Utterances of the release per emotion, by speaker in the order of SPEAKERS.
COUNTS = {
    "anger": (14, 12, 13, 10, 11, 12, 12, 16, 13, 14),
    "boredom": (5, 10, 4, 8, 8, 5, 10, 8, 9, 14),
    "disgust": (1, 0, 8, 1, 2, 2, 8, 8, 5, 11),
    "fear": (4, 6, 1, 8, 10, 6, 7, 12, 8, 7),
    "happiness": (7, 11, 4, 4, 8, 2, 10, 8, 6, 11),
    "neutral": (11, 10, 9, 4, 9, 4, 9, 7, 11, 5),
    "sadness": (7, 9, 4, 3, 7, 4, 5, 10, 4, 9),
}
NAME = re.compile(rf"({'|'.join(SPEAKERS)})([ab]\d\d)([{''.join(LETTERS)}])([a-z])")


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """EmoDB from its folder (the one with `wav/`) or the folder that holds it.

    Raises `CorpusError` where counts per emotion and speaker aren't the release's; with
    `allow_partial` they become a note.
    """
    wanted = chosen_classes("emodb", CLASSES, classes, CLASSES)
    folder = find_root("emodb", root, "EmoDB's wav/03a01Fa.wav files", _is_emodb) / "wav"
    recordings, unexpected = [], []
    files = audio_files("emodb", [folder])
    empty = take_empty(files)
    for stem, path in files.items():
        match = NAME.fullmatch(stem)
        if match is None:
            unexpected.append(path.name)
            continue
        speaker, text, letter, _ = match.groups()
        recordings.append((Item(stem, path, "emodb", speaker, text=text), LETTERS[letter]))

    found = Counter((item.speaker, label) for item, label in recordings)
    counts, missing = [], []
    for label in wanted:
        have = [found[speaker, label] for speaker in SPEAKERS]
        counts.append((label, sum(have), sum(COUNTS[label])))
        for speaker, n, expected in zip(SPEAKERS, have, COUNTS[label], strict=True):
            text = f"{abs(expected - n)} {label} of speaker {speaker}"
            if n < expected:
                missing.append(text)
            elif n > expected:
                unexpected.append(text)
    notes = check_release("emodb", folder, counts, missing, unexpected, empty, allow_partial)
    return labelled("emodb", recordings, CLASSES, CLASSES, notes)


def _is_emodb(folder: Path) -> bool:
    wav = folder / "wav"
    return wav.is_dir() and any(NAME.fullmatch(path.stem) for path in visible(wav))
