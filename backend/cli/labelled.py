"""What people said of a project's recordings, as tables: labels.csv, annotations.csv, audformat."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any

from after_model.labels import LabelSpace
from backend.label_studio import labeling
from backend.label_studio.labeling import Control
from backend.store.projects import TaskRecord

TIE = "|"  # between labels that as many chose


@dataclass(frozen=True)
class Labelled:
    """A recording's answer to one question.

    file: within the export (audio/...), where copies are kept; audio: its address in Label Studio.
    label: what most chose, several with TIE between them where as many did. shares: of the votes
    (eq. 17), by label. votes: what each annotator chose.
    """

    task: int
    file: str
    speaker: str
    question: str
    label: str
    shares: Mapping[str, float]
    votes: Sequence[Sequence[str]]
    audio: str


@dataclass(frozen=True)
class Annotation:
    """One annotation's answer to one question; skipped: the annotator passed it over."""

    task: int
    question: str
    annotator: str
    choices: Sequence[str]
    skipped: bool
    ground_truth: bool
    updated: str


def labelled(
    controls: Sequence[Control],
    annotated: Sequence[Mapping[str, Any]],
    tasks: Mapping[int, TaskRecord],
) -> Iterator[Labelled]:
    """A row a recording and question that somebody answered, as training counts the votes.

    annotated: tasks as Label Studio gives them; those that the backend has not read yet have no
    address and no file.
    """
    for control in controls:
        space = LabelSpace(control.labels)
        for task in annotated:
            votes = labeling.votes(control, task["annotations"])
            if not votes:
                continue
            shares = space.target(votes)
            most = [n for n, s in zip(space.names, shares, strict=True) if s == shares.max()]
            record = tasks.get(task["id"], TaskRecord({}, {}))
            yield Labelled(
                task["id"],
                _file(record.path.get(control.audio_key)),
                record.speaker,
                control.name,
                TIE.join(most),
                {n: round(float(s), 6) for n, s in zip(space.names, shares, strict=True) if s},
                votes,
                record.audio.get(control.audio_key, ""),
            )


def answers(
    controls: Sequence[Control], annotated: Sequence[Mapping[str, Any]]
) -> Iterator[Annotation]:
    """A row an annotation and question, skipped ones too; one that says nothing of it has none."""
    for control in controls:
        for task in annotated:
            for given in task["annotations"]:
                chosen = labeling.votes(control, [given])
                skipped = bool(given.get("was_cancelled"))
                if chosen or skipped:
                    yield Annotation(
                        task["id"],
                        control.name,
                        _who(given.get("completed_by")),
                        chosen[0] if chosen else [],
                        skipped,
                        given.get("ground_truth") is True,
                        str(given.get("updated_at") or given.get("created_at") or ""),
                    )


def write_csv(path: Path, kind: type, rows: Iterable[Any]) -> None:
    """A table of dataclasses; lists and mappings as JSON."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, kind, rows)


def write_rows(file: IO[str], kind: type, rows: Iterable[Any]) -> None:
    """write_csv, into a file that is open."""
    columns = [field.name for field in fields(kind)]
    table = csv.writer(file)
    table.writerow(columns)
    table.writerows([_cell(getattr(row, name)) for name in columns] for row in rows)


def write_audformat(
    folder: Path,
    title: str,
    controls: Sequence[Control],
    labels: Sequence[Labelled],
    given: Sequence[Annotation],
) -> None:
    """An audformat database: a filewise table a question, one of its votes, and one of the files.

    A question's table has the label (none where votes are even) and a share for every label; in
    that of its votes each annotator has a column, empty where not exactly one label was chosen.
    Recordings that the backend has no file of are left out. Raises ImportError without audformat.
    """
    import audformat

    database = audformat.Database(
        title or "after",
        description="Labelled with Label Studio and AFTER.",
        usage=audformat.define.Usage.UNRESTRICTED,
    )
    database.schemes["task"] = audformat.Scheme("int")
    database.schemes["text"] = audformat.Scheme("str")
    database.schemes["share"] = audformat.Scheme("float", minimum=0, maximum=1)
    rows = [row for row in labels if row.file]
    files = {row.file: row for row in rows}
    table = database["files"] = audformat.Table(audformat.filewise_index(list(files)))
    for name, scheme in (("task", "task"), ("speaker", "text"), ("audio", "text")):
        table[name] = audformat.Column(scheme_id=scheme)
        table[name].set([getattr(row, name) or None for row in files.values()])
    for annotator in sorted({a.annotator for a in given if a.choices}):
        database.raters[annotator] = audformat.Rater(audformat.define.RaterType.HUMAN)
    database.raters["votes"] = audformat.Rater(audformat.define.RaterType.VOTE)
    for control in controls:
        own = [row for row in rows if row.question == control.name]
        _question(database, control, own)
        said = [a for a in given if a.question == control.name and len(a.choices) == 1]
        _votes(database, control, {row.task: row.file for row in own}, said)
    database.save(str(folder), storage_format="csv")


def _question(database: Any, control: Control, rows: Sequence[Labelled]) -> None:
    import audformat

    database.schemes[control.name] = audformat.Scheme(labels=list(control.labels))
    table = database[control.name] = audformat.Table(
        audformat.filewise_index([row.file for row in rows])
    )
    table["label"] = audformat.Column(scheme_id=control.name, rater_id="votes")
    table["label"].set([row.label if row.label in control.labels else None for row in rows])
    for label in control.labels:
        column = table[f"share.{label}"] = audformat.Column(scheme_id="share", rater_id="votes")
        column.set([row.shares.get(label, 0.0) for row in rows])


def _votes(
    database: Any, control: Control, file_of: Mapping[int, str], given: Sequence[Annotation]
) -> None:
    import audformat

    files = list(file_of.values())
    table = database[f"{control.name}.votes"] = audformat.Table(audformat.filewise_index(files))
    for annotator in sorted({a.annotator for a in given}):
        own = [a for a in given if a.annotator == annotator]
        # of an annotator's several the newest counts, as in training
        chosen = {a.task: a.choices[0] for a in sorted(own, key=lambda a: a.updated)}
        column = audformat.Column(scheme_id=control.name, rater_id=annotator)
        table[annotator] = column
        table[annotator].set([chosen.get(task) for task in file_of])


def _file(path: str | None) -> str:
    return f"audio/{PurePosixPath(path).name}" if path else ""


def _who(annotator: Any) -> str:
    if isinstance(annotator, Mapping):
        annotator = annotator.get("id", annotator.get("email"))
    return "" if annotator is None else f"user-{annotator}"


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | tuple) else value
    )
