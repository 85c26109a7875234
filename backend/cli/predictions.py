"""python -m backend predictions PROJECT --push | --csv FILE | --json FILE

What the model says of every recording, as the last step or round left it: nothing is computed. The
order of labeling needs none of it; it is for filters in Label Studio's Data Manager, or for use
elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from after_model.progress import bar
from backend.cli import labelled
from backend.label_studio import labeling
from backend.label_studio.labeling import Control
from backend.label_studio.predictions import LabelStudio, Prediction
from backend.label_studio.versions import BESIDE as VERSION
from backend.label_studio.versions import OWN
from backend.settings import Settings
from backend.store import scores
from backend.store.projects import BESIDE, ProjectFolder, Projects
from backend.store.scores import PoolScores
from backend.web.predicting import unchanged


@dataclass(frozen=True)
class Predicted:
    """A row of the CSV: a recording and a question.

    score: confidence, 1 - H / log C, of all questions together. label: the choice, several with
    labelled.TIE between them where a question takes several. probabilities: by label.
    """

    task: int
    audio: str
    score: float
    question: str
    label: str
    probabilities: Mapping[str, float]


def run(
    settings: Settings,
    project_id: int,
    *,
    push: bool,
    csv_file: Path | None,
    json_file: Path | None,
) -> str:
    """Send or write them; what was done, in words.

    Raises UnknownProject, ValueError where there is no model yet, LabelStudioError, OSError.
    """
    projects = Projects(settings)
    project, folder = projects.get(project_id), projects.folder(project_id)
    client = LabelStudio(project.url, project.api_key)
    config = client.project(project_id).label_config if push else None
    said, controls = _known(folder, config)
    found = list(_predictions(said, controls))
    left = folder.task_count() - len(found)
    rest = f"; {left} tasks have none: they are new or can't be read" if left > 0 else ""
    # Named after the step or round that they are of: the same number of labels may be others.
    version = VERSION + said.version.removeprefix(OWN)
    if push:
        folder.write(BESIDE, {"version": version})  # windows are cleared with care from now on
        draw = bar()
        new = client.push_beside(
            project_id, version, found, lambda done, total: draw("sending", done, total)
        )
        return (
            f"{len(found)} predictions are in Label Studio as {version}, {new} of them new; the "
            f"order is what it was{rest}"
        )
    file = csv_file or json_file
    assert file is not None
    with _opened(file) as out:
        if csv_file:
            audio = {key: task.audio for key, task in folder.tasks().items()}
            labelled.write_rows(out, Predicted, _rows(said, controls, found, audio))
        else:
            _write_json(out, version, found)
    return f"{file}: {len(found)} predictions of {said.version}{rest}"


def _known(folder: ProjectFolder, label_config: str | None) -> tuple[PoolScores, list[Control]]:
    """The scores, and the questions that they answer; of a config those that it still has."""
    said, release = scores.read(folder.path), folder.releases.current()
    if said is None or not said.probs or release is None:
        raise ValueError(
            "there is no model yet: its predictions exist once a few recordings are labelled"
        )
    controls = [
        control
        for control in unchanged(label_config, folder.snapshot(release)["controls"])
        if control.name in said.probs and said.probs[control.name].shape[1] == len(control.labels)
    ]
    if not controls:
        raise ValueError("the labels were changed: wait until the worker has followed")
    return said, controls


def _predictions(said: PoolScores, controls: Sequence[Control]) -> Iterator[Prediction]:
    """Of all tasks that the model can say something of."""
    confidence = said.confidence()
    for task, score in zip(said.tasks.tolist(), confidence.tolist(), strict=True):
        probs = said.of(task)
        result = [labeling.result(c, probs[c.name]) for c in controls if c.name in probs]
        if result and not np.isnan(score):
            yield Prediction(task, round(score, 6), result)


def _rows(
    said: PoolScores,
    controls: Sequence[Control],
    found: Sequence[Prediction],
    audio: Mapping[int, Mapping[str, str]],
) -> Iterator[Predicted]:
    for prediction in found:
        probs = said.of(prediction.task)
        for result, control in zip(
            prediction.result, [c for c in controls if c.name in probs], strict=True
        ):
            yield Predicted(
                prediction.task,
                audio.get(prediction.task, {}).get(control.audio_key, ""),
                prediction.score,
                control.name,
                labelled.TIE.join(result["value"]["choices"]),
                dict(zip(control.labels, probs[control.name], strict=True)),
            )


def _write_json(out: IO[str], version: str, found: Sequence[Prediction]) -> None:
    """A list, an entry a line."""
    out.write("[")
    for number, prediction in enumerate(found):
        entry = {
            "task": prediction.task,
            "score": prediction.score,
            "model_version": version,
            "result": prediction.result,
        }
        out.write(f"{',' if number else ''}\n{json.dumps(entry, ensure_ascii=False)}")
    out.write("\n]\n")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[str]]:
    """The file, or standard output for -."""
    if str(file) == "-":
        yield sys.stdout
    else:
        with file.open("w", newline="", encoding="utf-8") as out:
            yield out
