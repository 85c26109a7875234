"""TESS (Pichora-Fuller and Dupuis 2020): 2,800 acted English utterances, 2 women, 7 emotions.

Layout: `OAF_angry/OAF_back_angry.wav` = speaker, word, emotion; 200 words for each of the two
speakers in each emotion. Upper and lower case of the folders vary, as does the name of one file
(`OA_bite_neutral.wav`). With two speakers, a fold by speaker tests on half the corpus.
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

WORDS = {  # of the file names
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "surprise",  # pleasant surprise
    "sad": "sadness",
}
CLASSES = tuple(WORDS.values())
FOLDER_WORDS = {**WORDS, "pleasant_surprise": "surprise", "pleasant_surprised": "surprise"}
SPEAKERS = ("OAF", "YAF")
EACH = 200  # recordings of a speaker in an emotion
FOLDER = re.compile(r"(OAF|YAF)_(\w+)", re.IGNORECASE)
NAME = re.compile(rf"(OAF?|YAF)_([a-z]+)_({'|'.join(WORDS)})", re.IGNORECASE)


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """TESS from the folder with `OAF_angry/` and its like, or the folder that holds it.

    Raises `CorpusError` where a speaker hasn't 200 recordings of an emotion; with `allow_partial`
    that becomes a note.
    """
    wanted = chosen_classes("tess", CLASSES, classes, CLASSES)
    folder = find_root("tess", root, "TESS's OAF_angry/OAF_back_angry.wav files", _is_tess)
    files = audio_files("tess", _folders(folder))
    empty = take_empty(files)
    recordings, unexpected = [], []
    for stem, path in files.items():
        match = NAME.fullmatch(stem)
        speaker, label = _meaning(path.parent)
        if match is None or WORDS[match[3].lower()] != label or match[1].upper()[:2] != speaker[:2]:
            unexpected.append(f"{path.parent.name}/{path.name}")
            continue
        recordings.append((Item(stem, path, "tess", speaker, text=match[2].lower()), label))
    found = Counter((item.speaker, label) for item, label in recordings)
    both = [(speaker, label) for label in wanted for speaker in SPEAKERS]
    counts = [(f"{label} of {speaker}", found[speaker, label], EACH) for speaker, label in both]
    missing = [
        f"{EACH - found[speaker, label]} {label} of {speaker}"
        for speaker, label in both
        if found[speaker, label] < EACH
    ]
    notes = check_release("tess", folder, counts, missing, unexpected, empty, allow_partial)
    return labelled("tess", recordings, CLASSES, CLASSES, notes)


def _meaning(folder: Path) -> tuple[str, str]:
    """Speaker and emotion of a folder of the release."""
    speaker, word = folder.name.split("_", 1)
    return speaker.upper(), FOLDER_WORDS[word.lower()]


def _folders(folder: Path) -> list[Path]:
    return [
        entry
        for entry in visible(folder)
        if entry.is_dir()
        and (match := FOLDER.fullmatch(entry.name))
        and match[2].lower() in FOLDER_WORDS
    ]


def _is_tess(folder: Path) -> bool:
    return bool(_folders(folder))
