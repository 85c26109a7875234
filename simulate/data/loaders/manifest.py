"""Any folder of audio with a manifest: CSV or JSONL with `path`, `label` and, if known, `speaker`.

    path,label,speaker                {"path": "a/1.wav", "label": "anger", "speaker": "anna"}
    a/1.wav,anger,anna

Paths are relative to the manifest. CSV may be separated by comma, semicolon or tab. Without
speakers no speaker-independent protocol is possible; the `random` protocol is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from after_model.audio import Utterance
from simulate.data.corpus import Corpus, CorpusError, chosen_classes, some

SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One line of a manifest; an absent column is an empty text."""

    line: int
    path: str
    label: str
    speaker: str


def load(root: Path | None, classes: Sequence[str] | None = None, name: str = "") -> Corpus:
    """The corpus that a manifest describes; `root` is the manifest or the folder that holds it.

    Classes default to the labels found, sorted. `classes` leaves the other labels' rows out, with
    a note. An utterance's id is its path as the manifest gives it, its order the manifest's. `name`
    defaults to the folder's. Raises `CorpusError` naming file, line, column and fix.
    """
    manifest = _find(root)
    rows = list(_rows(manifest))
    if not rows:
        raise CorpusError(f"{manifest}: no rows; one line per recording: path, label, speaker")
    problems = list(_problems(manifest, rows))
    if problems:
        raise CorpusError("; ".join([*problems[:5], *_more(problems, 5)]))
    found = sorted({row.label for row in rows})
    wanted = chosen_classes(str(manifest), found, classes, found)
    kept = [row for row in rows if row.label in wanted]
    notes = []
    if len(kept) < len(rows):
        left_out = [label for label in found if label not in wanted]
        notes.append(f"{len(rows) - len(kept)} rows of other labels left out: {some(left_out)}")
    if not any(row.speaker for row in rows):
        notes.append("no speakers: only the protocol 'random' is possible")
    return Corpus(
        name=name or manifest.parent.resolve().name,
        utterances=tuple(
            Utterance(id=row.path, path=manifest.parent / row.path, speaker=row.speaker)
            for row in kept
        ),
        labels=tuple(row.label for row in kept),
        classes=wanted,
        notes=tuple(notes),
    )


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
        yield Row(reader.line_num, values["path"], values["label"], values.get("speaker", ""))


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
        for column in ("path", "label", "speaker"):
            value = record.get(column)
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise CorpusError(
                    f"{manifest}: line {line}, {column}: {value!r} is not a text; use a string"
                )
            values[column] = "" if value is None else str(value).strip()
        yield Row(line, values["path"], values["label"], values["speaker"])


def _problems(manifest: Path, rows: Sequence[Row]) -> Iterator[str]:
    first_line: dict[Path, int] = {}
    speakers_given = any(row.speaker for row in rows)
    for row in rows:
        where = f"{manifest}: line {row.line}"
        if not row.label:
            yield f"{where}, label: empty; name the class or remove the line"
        if speakers_given and not row.speaker:
            yield (
                f"{where}, speaker: empty while other lines name one; name the speaker in every "
                "line or remove the column"
            )
        if not row.path:
            yield f"{where}, path: empty; give the recording's path relative to {manifest.parent}"
            continue
        path = (manifest.parent / row.path).resolve()
        if path in first_line:
            yield f"{where}, path: {row.path} is line {first_line[path]} again; keep one of them"
        elif not path.is_file():
            yield f"{where}, path: no file {manifest.parent / row.path}; mend or remove the line"
        first_line.setdefault(path, row.line)


def _more(problems: Sequence[str], shown: int) -> list[str]:
    return [f"and {len(problems) - shown} more problems"] if len(problems) > shown else []
