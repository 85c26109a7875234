"""The right labels: from the names of EmoDB's files, or from a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path, PurePath
from urllib.parse import parse_qs, urlsplit

from backend.cli import own_label_studio
from benchmarks.story.errors import StoryError
from simulate.data.loaders import emodb

SHOWN = 3  # recordings that an error names


def read(audio: Path, table: Path | None) -> dict[str, str]:
    """Label by recording, its path relative to `audio`; raises StoryError where one has none."""
    found = own_label_studio.recordings(audio)
    if not found:
        kinds = ", ".join(own_label_studio.SUFFIXES)
        raise StoryError(f"--audio {audio}: no recordings there ({kinds})")
    given = from_table(table, audio) if table else {}
    labels = {path: given.get(path) if table else from_name(path) for path in found}
    missing = [path for path, label in labels.items() if label is None]
    if missing:
        where = f"in {table}" if table else "in its name (EmoDB's, such as 03a01Fa.wav)"
        raise StoryError(
            f"--audio {audio}: {len(missing)} of {len(found)} recordings have no label {where}: "
            f"{', '.join(missing[:SHOWN])}. Give all with --labels FILE.csv (path,label), or leave "
            "them out of the folder"
        )
    return {path: label for path, label in labels.items() if label is not None}


def from_name(path: str) -> str | None:
    """EmoDB: letter 6 of the file's name; None for any other name."""
    match = emodb.NAME.fullmatch(PurePath(path).stem)
    return emodb.LETTERS[match.group(3)] if match else None


def from_table(table: Path, audio: Path) -> dict[str, str]:
    """Label by path relative to `audio`, where the table's paths lie too, if not absolute."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoryError(f"--labels {table}: can't be read: {error}") from None
    if not rows or not {"path", "label"} <= set(rows[0]):
        raise StoryError(f"--labels {table}: expected the columns path and label, and rows")
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        path, label = Path((row["path"] or "").strip()), (row["label"] or "").strip()
        if not label or not path.name:
            raise StoryError(f"--labels {table}: line {number}: no path, or no label")
        if path.is_absolute():
            path = path.resolve()
            path = path.relative_to(audio) if path.is_relative_to(audio) else path
        if labels.setdefault(path.as_posix(), label) != label:
            raise StoryError(f"--labels {table}: line {number}: {path} has two labels")
    return labels


def names(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The project's labels, sorted; raises StoryError where they are too few to choose from."""
    found = tuple(sorted(set(labels.values())))
    comma = next((name for name in found if "," in name), None)
    if comma is not None:
        raise StoryError(f"label {comma!r}: a comma separates labels; use names without")
    if len(found) < 2:
        raise StoryError(f"every recording is {found[0]!r}: there is nothing to learn")
    return found


def recording(data: Mapping[str, object]) -> str:
    """Which recording a task of Label Studio is, its path relative to the folder."""
    uri = str(data[own_label_studio.AUDIO_KEY])  # /data/local-files/?d=link/folder/name.wav
    return parse_qs(urlsplit(uri).query)["d"][0].split("/", 1)[1]


def share(labels: Mapping[str, str], percent: float) -> int:
    """How many labels a budget is: rounded down, at least one, and one recording is left."""
    return min(len(labels) - 1, max(1, int(percent / 100 * len(labels) + 1e-9)))
