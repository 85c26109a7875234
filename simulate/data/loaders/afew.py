"""AFEW 5.0 (Dhall et al. 2012, EmotiW 2015): clips of films, 7 emotions; audio out of video.

Layout: `Train/Angry/013736360.avi` and `Val/...`: 723 and 383 clips. A clip's name can occur in
both parts, so the part belongs to the id. `Test/` (539 clips) is passed over: its labels were
never published. Speakers aren't named, so the official split is what there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.errors import CorpusError
from simulate.data.loaders._release import check_release, find_root, labelled, take_empty, visible
from simulate.data.loaders._video import recordings, sounds

FOLDERS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
CLASSES = tuple(FOLDERS.values())
PARTS = {"train": "train", "val": "validation"}
COUNTS = {
    "train": dict(zip(CLASSES, (118, 72, 77, 145, 131, 107, 73), strict=True)),
    "validation": dict(zip(CLASSES, (64, 40, 46, 63, 63, 61, 46), strict=True)),
}


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    cache: str | Path | None = None,
) -> Release:
    """AFEW from the folder with `Train/` and `Val/`, or the folder that holds it.

    cache: where the clips' sound is kept; None for the user's. Clips without sound are left out
    with a note. Raises `CorpusError` where counts aren't the release's; with `allow_partial` they
    become a note.
    """
    wanted = chosen_classes("afew", CLASSES, classes, CLASSES)
    folder = find_root("afew", root, "AFEW's Train/Angry/*.avi and Val/", _is_afew)
    files: dict[str, Path] = {}
    meaning: dict[str, tuple[str, str]] = {}
    for split, label, below in _folders(folder):
        own = recordings("afew", [below])
        own = {f"{split}/{stem}": path for stem, path in own.items()}
        meaning |= dict.fromkeys(own, (split, label))
        files |= _new(files, own)
    empty = take_empty(files)
    found = Counter(meaning[key] for key in files)
    counts = [
        (f"{label} of {split}", found[split, label], expected[label])
        for split, expected in COUNTS.items()
        for label in wanted
    ]
    missing = [f"{want - have} {what}" for what, have, want in counts if have < want]
    notes = check_release("afew", folder, counts, missing, [], empty, allow_partial)
    audio, without = sounds("afew", files, Path(cache) if cache else None)
    items = (
        (Item(key, path, "afew", split=meaning[key][0]), meaning[key][1])
        for key, path in audio.items()
    )
    return labelled("afew", items, CLASSES, CLASSES, (*notes, *without))


def _new(files: dict[str, Path], own: dict[str, Path]) -> dict[str, Path]:
    """Refuses one clip in two emotions of the same part."""
    for key in sorted(files.keys() & own.keys()):
        raise CorpusError(
            f"afew: {key} is in two emotions: {files[key]} and {own[key]}; keep the right one"
        )
    return own


def _folders(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(split, emotion, folder) of the labelled parts, whatever the case of their names."""
    for part in visible(folder):
        if not (part.is_dir() and part.name.lower() in PARTS):
            continue
        for below in visible(part):
            if below.is_dir() and below.name.lower() in FOLDERS:
                yield PARTS[part.name.lower()], FOLDERS[below.name.lower()], below


def _is_afew(folder: Path) -> bool:
    return any(_folders(folder))
