"""BAUM-1s (Zhalehpour et al. 2016): spontaneous Turkish clips of 31 people; audio out of video.

Layout: `BAUM1s_MP4 - All/s001/S001_015.mp4` and `Annotations_BAUM1s.xlsx` (or the same as CSV)
with the columns subject, clip name and emotion code. Clips that the sheet doesn't name are left
out, and so is S015_007, of which it can't be said what its label is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from simulate.data.corpus import Item, Release, chosen_classes
from simulate.data.errors import CorpusError, some
from simulate.data.loaders._release import check_release, find_root, labelled, take_empty, visible
from simulate.data.loaders._video import recordings, sounds

CODES = {  # of BAUM-1s; the acted set BAUM-1a has another order
    1: "anger",
    2: "boredom",
    3: "bothered",
    4: "concentrating",
    5: "contempt",
    6: "disgust",
    7: "fear",
    8: "happiness",
    9: "neutral",
    10: "sadness",
    11: "surprise",
    12: "thinking",
    13: "unsure",
}
CLASSES = tuple(CODES.values())
BASIC = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
AMBIGUOUS = "S015_007"
SHEETS = ("Annotations_BAUM1s.xlsx", "Annotations_BAUM1s.csv")
CLIP = re.compile(r"(S\d{3})_\d{3}")
SUBJECT_FOLDER = re.compile(r"s\d{3}", re.IGNORECASE)


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    cache: str | Path | None = None,
) -> Release:
    """BAUM-1s from the folder with the sheet of annotations, or the folder that holds it.

    The seven basic emotions by default. cache: where the clips' sound is kept; None for the
    user's. Raises `CorpusError` where a clip of the sheet is missing; with `allow_partial` that
    becomes a note.
    """
    wanted = chosen_classes("baum1s", CLASSES, classes, BASIC)
    folder = find_root("baum1s", root, f"BAUM-1s's {SHEETS[0]} and videos", _is_baum)
    files = recordings("baum1s", _subjects(folder), lambda path: path.stem.upper())
    empty = take_empty(files)
    sheet = next(folder / name for name in SHEETS if (folder / name).is_file())
    labels = read_sheet(sheet)
    labels.pop(AMBIGUOUS, None)
    asked = [clip for clip, label in labels.items() if label in wanted]
    counts = [("clips", sum(clip in files for clip in asked), len(asked))]
    missing = sorted(clip for clip in asked if clip not in files and clip not in empty)
    notes = check_release("baum1s", folder, counts, missing, [], empty, allow_partial)
    unnamed = sorted(files.keys() - labels.keys())
    if unnamed:
        notes += (f"{len(unnamed)} clips without a label left out: {some(unnamed)}",)
    named = {clip: path for clip, path in files.items() if clip in labels}
    audio, without = sounds("baum1s", named, Path(cache) if cache else None)
    items = (
        (Item(clip, path, "baum1s", clip.partition("_")[0]), labels[clip])
        for clip, path in audio.items()
    )
    return labelled("baum1s", items, CLASSES, BASIC, (*notes, *without))


def read_sheet(path: Path) -> dict[str, str]:
    """The emotion of each clip; raises `CorpusError` naming file, row and column."""
    labels: dict[str, str] = {}
    columns: tuple[int, int] | None = None
    for number, row in _rows(path):
        where = f"{path}: row {number}"
        if columns is None:
            columns = _columns(row)
            continue
        row += [""] * (max(columns) + 1 - len(row))
        clip = row[columns[0]].removesuffix(".mp4").upper()
        if not clip:
            continue
        if CLIP.fullmatch(clip) is None:
            raise CorpusError(f"{where}, clip name: {clip!r} is none, such as S001_015")
        code = row[columns[1]].removesuffix(".0")  # spreadsheets make numbers of whole numbers
        label = CODES.get(int(code)) if code.isdigit() else None
        if clip == AMBIGUOUS:
            continue
        if label is None:
            raise CorpusError(f"{where}, emotion code: {code!r}; a number from 1 to {len(CODES)}")
        if labels.setdefault(clip, label) != label:
            raise CorpusError(f"{where}, clip name: {clip} was {labels[clip]} before; keep one")
    if columns is None:
        raise CorpusError(f"{path}: no row names the columns clip name and emotion code")
    return labels


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a sheet as texts, numbered from 1."""
    if path.suffix == ".csv":
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = csv.reader(text.splitlines(), delimiter=delimiter)
        yield from ((n, [cell.strip() for cell in row]) for n, row in enumerate(rows, 1) if row)
        return
    try:
        import openpyxl
    except ImportError:
        raise CorpusError(
            f"{path}: openpyxl, which reads it, isn't installed: pip install -r "
            "requirements-data.txt; or save the sheet as CSV beside it and remove it"
        ) from None
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
            yield number, ["" if cell is None else str(cell).strip() for cell in row]
    finally:
        book.close()


def _columns(row: Sequence[str]) -> tuple[int, int] | None:
    """Where the clip's name and the emotion's code are, if this row names the columns."""
    clips = [i for i, cell in enumerate(row) if "clip" in cell.lower()]
    emotions = [i for i, cell in enumerate(row) if "emotion" in cell.lower()]
    codes = [i for i in emotions if "code" in row[i].lower()] or emotions
    return (clips[0], codes[0]) if clips and codes else None


def _subjects(folder: Path) -> list[Path]:
    """The subjects' folders, below `BAUM1s_MP4 - All/` or directly here."""
    above = [folder, *(entry for entry in visible(folder) if entry.is_dir())]
    return [
        entry
        for place in above
        for entry in visible(place)
        if entry.is_dir() and SUBJECT_FOLDER.fullmatch(entry.name)
    ]


def _is_baum(folder: Path) -> bool:
    return any((folder / name).is_file() for name in SHEETS)
