"""RAVDESS speech (Livingstone and Russo 2018): 1,440 acted English utterances, 24 actors.

Layout: `Actor_NN/MM-CC-EE-II-SS-RR-AA.wav` = modality, vocal channel, emotion, intensity,
statement, repetition, actor. Speech, audio only, is `03-01`; the video and song files of the whole
release (7,356 files) may lie beside it and are passed over.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from after_model.audio import Utterance
from simulate.data.corpus import Corpus, chosen_classes
from simulate.data.loaders._release import audio_files, check_release, find_root, visible

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
DUPLICATES = ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07")  # one recording, released twice


def load(
    root: Path | None, classes: Sequence[str] | None = None, allow_partial: bool = False
) -> Corpus:
    """RAVDESS speech from the folder with `Actor_01` to `Actor_24` or the folder that holds it.

    `classes` defaults to the paper's four. Raises `CorpusError` naming missing and unexpected
    files; with `allow_partial` they become a note.
    """
    wanted = chosen_classes("ravdess", CLASSES, classes, PAPER_CLASSES)
    folder = find_root("ravdess", root, "RAVDESS's Actor_NN/03-01-*.wav files", _is_ravdess)
    actors = [entry for entry in visible(folder) if _is_actor(entry)]
    files = audio_files("ravdess", actors)
    release = {label: _stems(label) for label in wanted}
    every_name = {stem for label in CLASSES for stem in _stems(label)}
    unexpected = sorted(
        f"{files[stem].parent.name}/{files[stem].name}"
        for stem in files
        if not OTHER_RECORDING.fullmatch(stem)
        and (stem not in every_name or files[stem].parent.name != f"Actor_{stem[-2:]}")
    )
    present = {stem: label for label, stems in release.items() for stem in stems if stem in files}
    counts = [
        (label, sum(stem in files for stem in stems), len(stems))
        for label, stems in release.items()
    ]
    missing = sorted(set().union(*release.values()) - set(present))
    notes = check_release("ravdess", folder, counts, missing, unexpected, allow_partial)
    if all(stem in present for stem in DUPLICATES) and filecmp.cmp(
        files[DUPLICATES[0]], files[DUPLICATES[1]], shallow=False
    ):
        notes += (f"{' and '.join(DUPLICATES)} are the same bytes, as released; both are kept",)
    stems = sorted(present)
    return Corpus(
        name="ravdess",
        utterances=tuple(Utterance(id=s, path=files[s], speaker=s[-2:]) for s in stems),
        labels=tuple(present[s] for s in stems),
        classes=wanted,
        notes=notes,
    )


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
