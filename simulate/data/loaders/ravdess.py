"""RAVDESS speech (Livingstone and Russo 2018): 1,440 acted English utterances, 24 actors.

Layout: `Actor_NN/MM-CC-EE-II-SS-RR-AA.wav` = modality, vocal channel, emotion, intensity,
statement, repetition, actor. Speech, audio only, is `03-01`; the video and song files of the whole
release (7,356 files) may lie beside it and are passed over.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.loaders._release import (
    audio_files,
    check_release,
    find_root,
    folds_by_speaker,
    labelled,
    take_empty,
    visible,
)

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
CLASSES = tuple(EMOTIONS.values())
PAPER_CLASSES = ("anger", "happiness", "neutral", "sadness")  # the paper's four: 672 clips
ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
ACTOR_FOLDER = re.compile(r"Actor_\d\d")
OTHER_RECORDING = re.compile(r"(?!03-01)0[123]-0[12](-\d\d){5}")  # video or song
EMOBOX_FOLDS = (  # test actors of each of EmoBox's folds (Ma et al. 2024)
    ("01", "11", "20", "21"),
    ("04", "10", "12", "14"),
    ("08", "09", "19", "23"),
    ("03", "05", "07", "24"),
    ("02", "15", "16", "18"),
    ("06", "13", "17", "22"),
)
DUPLICATES = ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07")  # one recording, released twice


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """RAVDESS speech from the folder with `Actor_01` to `Actor_24` or the folder that holds it.

    `classes` defaults to the paper's four. Raises `CorpusError` naming missing and unexpected
    files; with `allow_partial` they become a note.
    """
    wanted = chosen_classes("ravdess", CLASSES, classes, PAPER_CLASSES)
    folder = find_root("ravdess", root, "RAVDESS's Actor_NN/03-01-*.wav files", _is_ravdess)
    actors = [entry for entry in visible(folder) if _is_actor(entry)]
    files = audio_files("ravdess", actors)
    empty = take_empty(files)
    names = {label: _stems(label) for label in CLASSES}
    label_of = {stem: label for label, stems in names.items() for stem in stems}
    unexpected = sorted(
        f"{files[stem].parent.name}/{files[stem].name}"
        for stem in files
        if not OTHER_RECORDING.fullmatch(stem)
        and (stem not in label_of or files[stem].parent.name != f"Actor_{stem[-2:]}")
    )
    counts = [(label, len(names[label] & files.keys()), len(names[label])) for label in wanted]
    missing = sorted(stem for label in wanted for stem in names[label] - files.keys())
    notes = check_release("ravdess", folder, counts, missing, unexpected, empty, allow_partial)
    if all(stem in files for stem in DUPLICATES) and filecmp.cmp(
        files[DUPLICATES[0]], files[DUPLICATES[1]], shallow=False
    ):
        notes += (f"{' and '.join(DUPLICATES)} are the same bytes, as released; both are kept",)
    recordings = [
        (Item(stem, path, "ravdess", stem[-2:], text=stem[12:14]), label_of[stem])
        for stem, path in files.items()
        if stem in label_of
    ]
    release = labelled("ravdess", recordings, CLASSES, PAPER_CLASSES, notes)
    return replace(release, folds=folds_by_speaker(release.items, EMOBOX_FOLDS))


def _stems(label: str) -> set[str]:
    """The names that the release has for an emotion; neutral has no strong intensity."""
    emotion = next(code for code, name in EMOTIONS.items() if name == label)
    intensities = ("01",) if label == "neutral" else ("01", "02")
    return {
        "-".join(("03", "01", emotion, *fields))
        for fields in product(intensities, ("01", "02"), ("01", "02"), ACTORS)
    }


def _is_actor(entry: Path) -> bool:
    return entry.is_dir() and ACTOR_FOLDER.fullmatch(entry.name) is not None


def _is_ravdess(folder: Path) -> bool:
    return any(
        path.name.startswith("03-01-")
        for entry in visible(folder)
        if _is_actor(entry)
        for path in visible(entry)
    )
