"""python -m backend export PROJECT --to FOLDER: the model that serves, and what people said.

FOLDER/models/QUESTION/     for after_model, transformers and ONNX, with a model card
FOLDER/labels.csv           a row a labelled recording; annotations.csv: a row an annotation
FOLDER/rounds.csv           the models so far: labels, accuracy and its interval
FOLDER/audformat/           the same labels as an audformat database
FOLDER/audio/               the labelled recordings, where they are asked for
"""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from after_model.export import card, export
from after_model.whole_folder import whole_folder
from backend.cli import labelled
from backend.cli.labelled import Annotation, Labelled
from backend.label_studio import labeling
from backend.label_studio.predictions import LabelStudio
from backend.settings import Settings
from backend.store import learners
from backend.store.projects import Project, ProjectFolder, Projects


def run(settings: Settings, project_id: int, to: Path, *, audio: bool, onnx: bool) -> str:
    """Write the folder, whole or not at all; what it holds, in words.

    Raises UnknownProject, LabelStudioError where the labels can't be read, what
    after_model.export.export raises, FileExistsError where the folder holds something.
    """
    projects = Projects(settings)
    project, folder = projects.get(project_id), projects.folder(project_id)
    client = LabelStudio(project.url, project.api_key)
    config = client.project(project_id).label_config
    controls, annotated = labeling.controls(config), client.annotated(project_id)
    labels = list(labelled.labelled(controls, annotated, folder.tasks()))
    given = list(labelled.answers(controls, annotated))
    with whole_folder(to) as target:
        lines = _models(project, folder, target, labels, onnx)
        labelled.write_csv(target / "labels.csv", Labelled, labels)
        labelled.write_csv(target / "annotations.csv", Annotation, given)
        lines.append(f"labels.csv: {len(labels)} labels; annotations.csv: {len(given)} annotations")
        _write_rounds(target / "rounds.csv", folder.history())
        if importlib.util.find_spec("audformat"):
            title = re.sub(r"[^\w.-]+", "-", project.title).strip("-")
            labelled.write_audformat(target / "audformat", title, controls, labels, given)
            lines.append("audformat/: audformat.Database.load reads it")
        else:
            lines.append(
                "no audformat/: audformat is not installed; pip install -r requirements-export.txt"
            )
        if audio:
            lines.append(_copy_audio(folder, target, labels))
    return "\n".join([f"{to}:", *(f"  {line}" for line in lines)])


def _models(
    project: Project, folder: ProjectFolder, target: Path, labels: Sequence[Labelled], onnx: bool
) -> list[str]:
    """Every question's serving model; what was done, a line each."""
    serving = folder.serving_models()
    if not serving:
        return ["no model: none serves yet; one does after the first round"]
    lines = []
    for question, (learner, version) in serving.items():
        model = learners.models(folder, learner).path(version)
        known = card.facts(model)
        answers = sum(row.question == question for row in labels)
        note = (
            f"The question {question!r} of the Label Studio project "
            f"{project.title or project.id!r}; {answers} recordings have an answer by now. "
            "`rounds.csv` beside has the models before it."
        )
        place = target / "models" / _safe(question)
        done = export(model, place, known=replace(known, notes=(note,)), onnx=onnx)
        lines.append(f"models/{place.name}/: {version}, transformers reads it as {done.reader}")
    return lines


def _write_rounds(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """A row a round and question: accuracy only where its interval is known."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ["version", "question", "created", "labels", "recordings", "promoted", "reason",
             "accuracy", "accuracy_low", "accuracy_high"]
        )  # fmt: skip
        for entry in history:
            for question, result in entry["controls"].items():
                found = next(iter(card.quality(result)), None)
                measured = (
                    ["", "", ""]
                    if found is None
                    else [f"{x:.4f}" for x in (found.value, found.low, found.high)]
                )
                table.writerow([
                    entry["version"], question, entry["created"],
                    result.get("labelled", entry["labelled"]), entry["pool"],
                    "yes" if result["promoted"] else "no", result.get("reason", ""), *measured,
                ])  # fmt: skip


def _copy_audio(folder: ProjectFolder, target: Path, labels: Sequence[Labelled]) -> str:
    """The labelled recordings that the backend has a copy of."""
    wanted = {row.file for row in labels if row.file}
    paths = [path for task in folder.tasks().values() for path in task.path.values()]
    (target / "audio").mkdir()
    copied = 0
    for path in paths:
        source = folder.path / path
        if f"audio/{PurePosixPath(path).name}" in wanted and source.is_file():
            shutil.copyfile(source, target / "audio" / source.name)
            copied += 1
    return f"audio/: {copied} of {len(wanted)} recordings"


def _safe(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "model"
