"""A project's tasks as a learner's pool, in the process that computes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from after_model.active_learning import ActiveLearner
from after_model.audio import AudioLimits, Utterance
from after_model.labels import LabelSpace
from after_model.progress import Progress
from backend.settings import Settings
from backend.store import cuts
from backend.store.projects import ProjectFolder, TaskRecord

PROGRESS_EVERY_S = 0.5


def open_learner(
    settings: Settings,
    folder: ProjectFolder,
    control: Mapping[str, Any],
    tasks: Mapping[int, TaskRecord],
    progress: Progress,
    part: str = "",
) -> ActiveLearner:
    """The learner of one control on the tasks that have audio for it.

    part: a folder of its own in the learner's; features and embeddings are shared.
    """
    pool = [
        Utterance(str(key), path, task.speaker)
        for key, task in tasks.items()
        if (path := audio_path(folder, task, control)) is not None
    ]
    return ActiveLearner(
        pool,
        LabelSpace(tuple(control["labels"])),
        settings.learner_config(),
        folder.learners / control["learner"] / part,
        store_folder=folder.features,
        tapt_folder=folder.tapt,
        open_pool=True,
        keep=settings.keep_models,
        max_bytes=settings.max_cache_bytes,
        limits=AudioLimits(max_duration_s=settings.max_audio_s),
        device=settings.device,
        progress=progress,
    )


def reporter(folder: ProjectFolder, version: str) -> Progress:
    """A Progress that keeps `progress.json` up to date, without writing too often."""
    started: dict[str, float] = {}
    written, before = 0.0, time.time()

    def report(stage: str, done: float, total: float) -> None:
        nonlocal written, before
        began = started.setdefault(stage, before)  # its first report comes after its first part
        before = time.time()
        if time.monotonic() - written < PROGRESS_EVERY_S and done < total:
            return
        written = time.monotonic()
        folder.note_progress(version, stage, done, total, began)

    return report


def audio_path(folder: ProjectFolder, task: TaskRecord, control: Mapping[str, Any]) -> Path | None:
    """The task's audio for a control, None where there is none."""
    name = task.path.get(control["audio_key"])
    return None if name is None else folder.path / name


def skipped_by(learner: ActiveLearner) -> dict[str, str]:
    """Why recordings can't be used, by task."""
    task_of = {str(u.path): u.id for u in learner.given}
    return {
        task_of[str(error.path)]: cuts.why(error)
        for error in learner.skipped
        if str(error.path) in task_of
    }


def speaker_report(learner: ActiveLearner) -> dict[str, Any]:
    """Whether the probe takes speakers' means off, and UA and loss with and without; {} where no
    speaker is known, or a fine-tuned model serves. None: too few labels to compare."""
    speakers = {u.speaker for u in learner.given} - {""}
    if not speakers or learner.config.fine_tuning == "always":
        return {}
    report = asdict(learner.serving.probe(learner.labelled).speakers)
    return {key: value if np.isfinite(value) else None for key, value in report.items()}
