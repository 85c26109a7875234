"""EMov-DB (Adigwe et al. 2018): about 7,000 acted English utterances, 4 speakers, 5 styles.

Layouts: sorted as first released, `bea/Amused/amused_1-15_0001.wav`, or flat as OpenSLR 115
unpacks, `bea_Amused/amused_1-15_0001.wav`; folders are found in upper and lower case. josh has
neither Angry nor Disgusted. The number of files differs between releases and isn't checked; that
every folder is there and holds recordings is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
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

STYLES = {
    "amused": "amusement",
    "angry": "anger",
    "disgusted": "disgust",
    "neutral": "neutral",
    "sleepy": "sleepiness",
}
CLASSES = tuple(STYLES.values())
SPEAKERS = ("bea", "jenie", "josh", "sam")
ABSENT = {("josh", "anger"), ("josh", "disgust")}
SENTENCE = re.compile(r".*_(\d{4})")


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """EMov-DB from the folder with the speakers' folders, or the folder that holds it.

    Raises `CorpusError` where a speaker's style is missing or has no recordings; with
    `allow_partial` that becomes a note.
    """
    wanted = chosen_classes("emovdb", CLASSES, classes, CLASSES)
    layout = "EMov-DB's bea/Amused/*.wav or bea_Amused/*.wav files"
    folder = find_root("emovdb", root, layout, lambda folder: any(_folders(folder)))
    recordings, empty = [], []
    for speaker, label, below in _folders(folder):
        files = audio_files("emovdb", [below])
        empty += [f"{below.name}/{stem}" for stem in take_empty(files)]
        for stem, path in files.items():
            sentence = SENTENCE.fullmatch(stem)
            text = sentence[1] if sentence else ""
            item = Item(f"{speaker}/{label}/{stem}", path, "emovdb", speaker, text=text)
            recordings.append((item, label))
    found = Counter((item.speaker, label) for item, label in recordings)
    missing = [
        f"{label} of {speaker}"
        for speaker in SPEAKERS
        for label in wanted
        if not found[speaker, label] and (speaker, label) not in ABSENT
    ]
    total = sum(n for (_, label), n in found.items() if label in wanted)
    counts = [("recordings", total, total)]  # how many there are isn't published per folder
    notes = check_release("emovdb", folder, counts, missing, [], empty, allow_partial)
    if not missing and not empty:
        notes = (f"{total} recordings of {len(wanted)} styles; how many differs between releases",)
    return labelled("emovdb", recordings, CLASSES, CLASSES, notes)


def _folders(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(speaker, style, folder) of either layout."""
    for entry in visible(folder):
        if not entry.is_dir():
            continue
        speaker, _, style = entry.name.lower().partition("_")
        if speaker not in SPEAKERS:
            continue
        if style in STYLES:
            yield speaker, STYLES[style], entry
        elif not style:
            for below in visible(entry):
                if below.is_dir() and below.name.lower() in STYLES:
                    yield speaker, STYLES[below.name.lower()], below
