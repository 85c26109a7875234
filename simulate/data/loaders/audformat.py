"""A database in audformat (audeering): a folder with `db.yaml`, tables, and audio files.

Read are whole files of one table. A column whose scheme lists labels is one rater's, or the
release's where it is the only one. What `python -m backend export` writes is such a
database: the votes of a question's annotators are in the table beside it, `QUESTION.votes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simulate.data.corpus import Item, Release
from simulate.data.errors import CorpusError, some
from simulate.data.loaders._words import common
from simulate.data.policies import RELEASE, Annotation

HEADER = "db.yaml"
EMOTION = "emotion"  # the usual name of the table and of its column
SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # audformat's split types


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    table: str = "",
    column: str = "",
    speaker: str = "speaker",
) -> Release:
    """The labels of one table of the database below `root`.

    table, column: where the labels are; found where there is one choice, or one named `emotion`.
    speaker: the column, of any table of whole files, that says who speaks. Raises `CorpusError`.
    """
    database = _open(root)
    folder = Path(root) if root is not None else Path()
    chosen = table or _only(database, folder)
    labels = _label_columns(database, folder, chosen, column)
    raters = _label_columns(database, folder, f"{chosen}.votes", "", needed=False)
    frame = database.tables[chosen].get()
    speakers = _speakers(database, speaker)
    split = _split(database, chosen)
    missing = [str(file) for file in frame.index if not (folder / str(file)).is_file()]
    if missing and (not allow_partial or len(missing) == len(frame)):
        raise CorpusError(
            f"{folder}: {len(missing)} of {len(frame)} files of table {chosen!r} are missing: "
            f"{some(missing)}. Complete the folder, or accept what is there with "
            "allow_partial=True (--allow-partial)"
        )
    notes = [f"{len(missing)} files missing: {some(missing)}"] if missing else []
    if not speakers:
        notes.append("no speakers: only the protocol 'random' is possible")
    files = sorted({str(file) for file in frame.index} - set(missing))
    name = str(database.name)
    annotations = [
        *_annotations(frame, labels, files, RELEASE if len(labels) == 1 else ""),
        *(_annotations(database.tables[f"{chosen}.votes"].get(), raters, files) if raters else ()),
    ]
    found = tuple(sorted({label for a in annotations for label in a.labels}))
    if not found:
        raise CorpusError(f"{folder}: table {chosen!r} labels nothing")
    return Release(
        name=name,
        items=tuple(Item(f, folder / f, name, speakers.get(f, ""), split=split) for f in files),
        annotations=tuple(annotations),
        classes=found,
        default=found,
        notes=tuple(notes),
    )


def _open(root: Path | None) -> Any:
    try:
        import audformat
        import yaml
    except ImportError:
        raise CorpusError(
            "audformat: the package of that name isn't installed: pip install -r "
            "requirements-export.txt"
        ) from None
    if root is None or not (root / HEADER).is_file():
        raise CorpusError(f"audformat: needs its folder: root=<folder with {HEADER}>; got {root}")
    try:
        return audformat.Database.load(str(root))
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise CorpusError(f"{root / HEADER}: can't be read: {error}") from error


def _whole_files(database: Any) -> list[str]:
    return [name for name, table in database.tables.items() if table.is_filewise]


def _labels(database: Any, table: str) -> list[str]:
    """The columns of a table whose scheme lists labels."""
    columns = database.tables[table].columns
    return [
        name
        for name, column in columns.items()
        if column.scheme_id is not None and database.schemes[column.scheme_id].labels is not None
    ]


def _only(database: Any, folder: Path) -> str:
    votes = {f"{name}.votes" for name in database.tables}
    possible = [n for n in _whole_files(database) if n not in votes and _labels(database, n)]
    if EMOTION in possible:
        return EMOTION
    if len(possible) != 1:
        raise CorpusError(
            f"{folder}: {len(possible)} tables of whole files have labels "
            f"({some(possible) or 'none'}); name one with table="
        )
    return possible[0]


def _label_columns(
    database: Any, folder: Path, table: str, column: str, needed: bool = True
) -> list[str]:
    if table not in _whole_files(database):
        if not needed:
            return []
        known = some(_whole_files(database)) or "none"
        raise CorpusError(f"{folder}: no table {table!r} of whole files; tables: {known}")
    columns = _labels(database, table)
    if column and column not in columns:
        known = some(columns) or "none"
        raise CorpusError(
            f"{folder}: no column {column!r} of labels in {table!r}; columns: {known}"
        )
    if column:
        return [column]
    return [EMOTION] if EMOTION in columns else columns


def _annotations(
    frame: Any, columns: Sequence[str], files: Sequence[str], rater: str = ""
) -> Iterator[Annotation]:
    """What each column says of each file; nothing where its cell is empty."""
    for column in columns:
        said = {str(file): value for file, value in frame[column].dropna().items()}
        for file in files:
            if file in said:
                yield Annotation(file, rater or column, (common(str(said[file])),))


def _speakers(database: Any, column: str) -> dict[str, str]:
    """Who speaks in each file, from the first table that has the column."""
    for name in _whole_files(database):
        if column in database.tables[name].columns:
            values = database.tables[name].get()[column].dropna()
            return {str(file): str(value) for file, value in values.items()}
    return {}


def _split(database: Any, table: str) -> str:
    split = database.tables[table].split_id
    return SPLITS.get(str(database.splits[split].type), "") if split else ""
