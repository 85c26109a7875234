"""Any folder of audio with a manifest: CSV or JSONL with `path`, `label` and, if known, `speaker`.

    path,label,speaker                {"path": "a/1.wav", "label": "anger", "speaker": "anna"}
    a/1.wav,anger,anna

Paths are relative to the manifest. CSV may be separated by comma, semicolon or tab. Further columns
are read where they are: `group` (recordings that stay together, such as a session), `split`
(train, validation, test), `text` (which sentence) and `rater`. With raters a recording has a line
for each of them; several emotions of one rater are separated by `/`, none is an abstention.

Without speakers no speaker-independent protocol is possible; the `random` protocol is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulate.data.corpus import Item, Release
from simulate.data.errors import CorpusError, some
from simulate.data.policies import RELEASE, Annotation

SUFFIXES = (".csv", ".jsonl")
DESCRIBING = ("speaker", "group", "split", "text")  # optional columns, the same in all its lines
COLUMNS = ("path", "label", *DESCRIBING, "rater")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Row:
    """One line of a manifest; an absent column is an empty text."""

    line: int
    path: str
    label: str
    speaker: str = ""
    group: str = ""
    split: str = ""
    text: str = ""
    rater: str = ""


def read(root: Path | None, classes: Sequence[str] | None = None, name: str = "") -> Release:
    """What a manifest describes; `root` is the manifest or the folder that holds it.

    Classes are the labels found, sorted. An item's id is its path as the manifest gives it, its
    order the manifest's. `name` defaults to the folder's. Raises `CorpusError` naming file, line,
    column and fix.
    """
    manifest = _find(root)
    rows = list(_rows(manifest))
    if not rows:
        raise CorpusError(f"{manifest}: no rows; one line per recording: path, label, speaker")
    problems = list(_problems(manifest, rows))
    if problems:
        raise CorpusError("; ".join([*problems[:5], *_more(problems, 5)]))
    found = sorted({label for row in rows for label in _labels(row)})
    if not found:
        raise CorpusError(f"{manifest}: every rater abstained; nothing is labelled")
    name = name or manifest.parent.resolve().name
    items = {
        row.path: Item(
            row.path, manifest.parent / row.path, name, row.speaker, row.group, row.split, row.text
        )
        for row in rows
    }
    speakers = any(row.speaker for row in rows)
    return Release(
        name=name,
        items=tuple(items.values()),
        annotations=tuple(Annotation(row.path, row.rater or RELEASE, _labels(row)) for row in rows),
        classes=tuple(found),
        default=tuple(found),
        notes=() if speakers else ("no speakers: only the protocol 'random' is possible",),
    )


def _labels(row: Row) -> tuple[str, ...]:
    """The emotions of a line; several, or none, are possible where it names a rater."""
    if not row.rater:
        return (row.label,)
    return tuple(dict.fromkeys(filter(None, map(str.strip, row.label.split("/")))))


def _find(root: Path | None) -> Path:
    if root is None:
        raise CorpusError("manifest: needs root=<manifest.csv or .jsonl, or the folder with it>")
    if root.is_dir():
        found = sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES)
        named = [p for p in found if p.stem == "manifest"]
        candidates = named or found
        if len(candidates) != 1:
            raise CorpusError(
                f"{root}: {len(candidates)} manifests ({some(p.name for p in candidates)}); "
                "name one manifest.csv or manifest.jsonl, or give its path"
            )
        return candidates[0]
    if not root.is_file():
        raise CorpusError(f"{root}: no such file or folder; give a .csv or .jsonl manifest")
    if root.suffix.lower() not in SUFFIXES:
        raise CorpusError(f"{root}: neither .csv nor .jsonl; a manifest is one of them")
    return root


def _rows(manifest: Path) -> Iterator[Row]:
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise CorpusError(f"{manifest}: line {line}: not UTF-8; save it as UTF-8") from None
    if manifest.suffix.lower() == ".csv":
        return _csv_rows(manifest, text)
    return _jsonl_rows(manifest, text)


def _csv_rows(manifest: Path, text: str) -> Iterator[Row]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    columns = [(column or "").strip() for column in reader.fieldnames or []]
    for needed in ("path", "label"):
        if columns.count(needed) != 1:
            raise CorpusError(
                f"{manifest}: line 1: {columns.count(needed)} columns named {needed!r}; the first "
                f"line names the columns, path,label[,speaker]; found: {some(columns) or 'none'}"
            )
    reader.fieldnames = columns
    for record in reader:
        if None in record:
            raise CorpusError(
                f"{manifest}: line {reader.line_num}: more than the {len(columns)} columns of the "
                f"first line; put a text that contains {delimiter!r} in double quotes"
            )
        values = {column: (value or "").strip() for column, value in record.items()}
        yield Row(reader.line_num, **{column: values.get(column, "") for column in COLUMNS})


def _jsonl_rows(manifest: Path, text: str) -> Iterator[Row]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{manifest}: line {line}, character {error.colno}: not JSON ({error.msg}); "
                "one object per line"
            ) from None
        if not isinstance(record, dict):
            raise CorpusError(f"{manifest}: line {line}: not an object; one object per line")
        values = {}
        for column in COLUMNS:
            value = record.get(column)
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise CorpusError(
                    f"{manifest}: line {line}, {column}: {value!r} is not a text; use a string"
                )
            values[column] = "" if value is None else str(value).strip()
        yield Row(line, **values)


def _problems(manifest: Path, rows: Sequence[Row]) -> Iterator[str]:
    first: dict[tuple[Path, str], Row] = {}
    described: dict[Path, Row] = {}
    given = {column: any(getattr(row, column) for row in rows) for column in ("speaker", "rater")}
    for row in rows:
        where = f"{manifest}: line {row.line}"
        if not row.label and not row.rater:
            yield f"{where}, label: empty; name the class or remove the line"
        for column in [column for column, named in given.items() if named]:
            if not getattr(row, column):
                yield (
                    f"{where}, {column}: empty while other lines name one; name the {column} in "
                    "every line or remove the column"
                )
        if row.split not in ("", *SPLITS):
            yield f"{where}, split: {row.split!r}; one of {', '.join(SPLITS)}"
        if not row.path:
            yield f"{where}, path: empty; give the recording's path relative to {manifest.parent}"
            continue
        path = (manifest.parent / row.path).resolve()
        before, same = first.get((path, row.rater)), described.get(path)
        if before is not None:
            by = f" by {row.rater}" if row.rater else ""
            yield f"{where}, path: {row.path} is line {before.line} again{by}; keep one of them"
        elif same is None and not path.is_file():
            yield f"{where}, path: no file {manifest.parent / row.path}; mend or remove the line"
        elif same is not None:
            yield from _differences(where, row, same)
        first.setdefault((path, row.rater), row)
        described.setdefault(path, row)


def _differences(where: str, row: Row, same: Row) -> Iterator[str]:
    """What two raters' lines of one recording say differently of the recording itself."""
    for column in ("path", *DESCRIBING):
        here, there = getattr(row, column), getattr(same, column)
        if here != there:
            yield f"{where}, {column}: {here!r}, but {there!r} in line {same.line}; write one"


def _more(problems: Sequence[str], shown: int) -> list[str]:
    return [f"and {len(problems) - shown} more problems"] if len(problems) > shown else []
