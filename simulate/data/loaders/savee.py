"""SAVEE (Haq and Jackson 2009): 480 acted English utterances, 4 men, 7 emotions.

Layout: `AudioData/DC/a01.wav` as released, or flat `DC_a01.wav` as it is passed on: speaker,
emotion, sentence. Each emotion has sentences of its own, the same for all speakers, so a model
that reads words does well here without hearing emotion; `Item.text` holds the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
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

CODES = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
CLASSES = tuple(CODES.values())
SPEAKERS = ("DC", "JE", "JK", "KL")
EMOBOX_FOLDS = tuple((speaker,) for speaker in ("JE", "KL", "DC", "JK"))  # who is tested
SENTENCES = {code: 30 if code == "n" else 15 for code in CODES}
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_((sa|su|[adfhn])(\d\d))")


def read(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Release:
    """SAVEE from its folder, the one with `AudioData/`, or the one that holds the files.

    Raises `CorpusError` naming missing and unexpected files; with `allow_partial` they become a
    note.
    """
    wanted = chosen_classes("savee", CLASSES, classes, CLASSES)
    layout = "SAVEE's AudioData/DC/a01.wav or DC_a01.wav files"
    folder = find_root("savee", root, layout, lambda folder: bool(_folders(folder)))
    files = audio_files("savee", _folders(folder), _name)
    empty = take_empty(files)
    named = {name: match for name in files if (match := NAME.fullmatch(name))}
    release = {_file(speaker, code, n) for speaker in SPEAKERS for code, n in _sentences()}
    wanted_codes = [code for code, label in CODES.items() if label in wanted]
    counts = [
        (
            CODES[code],
            sum(match[3] == code and name in release for name, match in named.items()),
            len(SPEAKERS) * SENTENCES[code],
        )
        for code in wanted_codes
    ]
    missing = sorted(
        name
        for name in release - files.keys()
        if (match := NAME.fullmatch(name)) and match[3] in wanted_codes
    )
    unexpected = sorted(str(files[name].relative_to(folder)) for name in files.keys() - release)
    notes = check_release("savee", folder, counts, missing, unexpected, empty, allow_partial)
    recordings = [
        (Item(name, files[name], "savee", match[1], text=match[2]), CODES[match[3]])
        for name, match in named.items()
        if name in release
    ]
    found = labelled("savee", recordings, CLASSES, CLASSES, notes)
    return replace(found, folds=folds_by_speaker(found.items, EMOBOX_FOLDS))


def _sentences() -> list[tuple[str, int]]:
    return [(code, n) for code, last in SENTENCES.items() for n in range(1, last + 1)]


def _file(speaker: str, code: str, sentence: int) -> str:
    return f"{speaker}_{code}{sentence:02d}"


def _folders(folder: Path) -> list[Path]:
    """The folders that hold recordings: one a speaker, or the folder itself; none if neither."""
    audio = folder / "AudioData" if (folder / "AudioData").is_dir() else folder
    speakers = [audio / speaker for speaker in SPEAKERS if (audio / speaker).is_dir()]
    if speakers:
        return speakers
    return [audio] if any(NAME.fullmatch(path.stem) for path in visible(audio)) else []


def _name(path: Path) -> str:
    """`DC_a01` for either naming."""
    named = path.parent.name in SPEAKERS and not path.stem.startswith(f"{path.parent.name}_")
    return f"{path.parent.name}_{path.stem}" if named else path.stem
