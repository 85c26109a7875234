"""The heavy part of a job, in a process of its own: bootstrap, round, extend, rescore.

    python -m backend.compute WORK PROJECT VERSION

A worker starts it and reads its progress from `progress.json`; it can be cancelled, limited in
time or killed by the system without taking the worker along. It ends when the worker does: its
standard input is a pipe from there, and closes. A step that was killed can be run again: what it
has finished is found on disk.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from after_model.active_learning import ActiveLearner
from after_model.active_learning.promotion import clearly_worse
from backend import settings as settings_module
from backend.ordering import plan, replan, scores
from backend.pools import audio_path, open_learner, reporter, skipped_by, unlabelled
from backend.projects import ProjectFolder
from backend.settings import Settings

log = logging.getLogger("after.compute")

NEW_TASK_SCORE = 0.5  # before there is a model: after the start's recordings, before the rest


def main(arguments: Sequence[str]) -> int:
    """Does some work; 0, or 1 with the reason in `failure.json`."""
    work, project, version = arguments
    _end_with_parent()
    settings = settings_module.load()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(message)s")
    if settings.compute_threads:
        import torch

        torch.set_num_threads(settings.compute_threads)
    folder = ProjectFolder(settings.projects_folder / project)
    folder.delete(["failure.json"])
    try:
        WORK[work](settings, folder, version)
    except Exception as error:
        log.exception("work=%s project=%s version=%s failed", work, project, version)
        message = f"{error}" if isinstance(error, OSError | ValueError) else repr(error)
        try:
            folder.write("failure.json", {"message": message})
        except OSError:  # a full disk: the last line of the log says it
            log.error("failure: %s", message)
        return 1
    return 0


# --- work ----------------------------------------------------------------------------------------


def bootstrap(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Before any label: adapt to the recordings, and the clustering start."""
    adapt(settings, folder, version)
    order(settings, folder, version)


def round_(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Train on the snapshot's labels; score what is unlabelled if that gave a model to serve."""
    results = train(settings, folder, version)
    if any(result["promoted"] for result in results.values()):
        score(settings, folder, version)


def adapt(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Features of all recordings and, unless left out, TAPT; once a project.

    The recordings that TAPT sees are those of its beginning, so that it can be resumed while others
    are added.
    """
    controls = folder.snapshot(version)["controls"]
    progress = reporter(folder, version)
    with device_lock(settings):
        for control in controls:
            tasks = folder.tasks()
            seen = folder.read("tapt-pool.json", None)
            if seen is None:
                seen = [key for key in tasks if audio_path(folder, tasks[key], control)]
                folder.write("tapt-pool.json", seen)
            pool = {key: tasks[key] for key in seen if key in tasks}
            learner = open_learner(settings, folder, control, pool, progress)
            learner.adapt()


def order(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """The clustering start: its recordings first, the others after them in random order."""
    controls = folder.snapshot(version)["controls"]
    progress = reporter(folder, version)
    tasks = folder.tasks()
    wanted = unlabelled(folder, tasks)
    ranked: list[str] = []
    skipped: dict[str, str] = {}
    start = 0
    for control in controls:
        learner = open_learner(settings, folder, control, tasks, progress)
        ranked += [key for key in learner.ask() if key not in ranked]
        start = max(start, len(ranked))
        skipped |= skipped_by(learner)
    keys = [str(key) for key in wanted if str(key) not in skipped]
    first = [key for key in ranked if key in set(keys)]
    rest = [key for key in keys if key not in set(first)]
    others = np.random.default_rng(settings.seed).permutation(len(rest))
    ranked = first + [rest[i] for i in others]
    folder.write("skipped.json", skipped)
    folder.write("plan.json", plan(settings, len(tasks)) | {"start": start})
    folder.write(
        f"rounds/{version}/predictions.json",
        {
            "version": version,
            "controls": controls,
            "tasks": {
                key: {"score": rank / len(ranked), "cluster": None, "probs": {}}
                for rank, key in enumerate(ranked)
            },
        },
    )


def train(settings: Settings, folder: ProjectFolder, version: str) -> dict[str, Any]:
    """Train every control that has labels; say whether its model should serve."""
    snapshot = folder.snapshot(version)
    progress = reporter(folder, version)
    tasks = folder.tasks()
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    serving = folder.serving_models()
    with device_lock(settings):
        for control in snapshot["controls"]:
            name = control["name"]
            learner = open_learner(settings, folder, control, tasks, progress)
            learner.adapt()  # at once where it was done; a control that is new takes it over
            given = {
                key: votes
                for key, votes in snapshot["labels"].get(name, {}).items()
                if int(key) in tasks
            }
            learner.relabel(given)
            skipped |= skipped_by(learner)
            if not learner.labelled:
                continue
            if len(learner.curve) <= snapshot["trained"].get(name, 0):  # else killed after it
                learner.train(make_current=False)
            record = learner.curve[-1]
            promoted, reason = _judge(learner, serving.get(name), record.version)
            results[name] = {
                **asdict(record),
                "learner": control["learner"],
                "promoted": promoted,
                "reason": " ".join(filter(None, (record.reason, reason))),
                "held_out": learner.config.fine_tuning == "always",
                "advice": asdict(learner.advice()),
                "estimate": learner.estimate(),
            }
    folder.write("skipped.json", skipped)
    replan(settings, folder, len(tasks))
    folder.write(f"rounds/{version}/trained.json", results)
    return results


def score(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Confidence of every unlabelled recording by the models of this round."""
    controls = folder.snapshot(version)["controls"]
    models = folder.round_models(version)
    tasks = unlabelled(folder, folder.tasks())
    chosen = scores(settings, folder, version, controls, models, tasks)
    folder.write(
        f"rounds/{version}/predictions.json",
        {"version": version, "controls": controls, "tasks": chosen},
    )


def extend(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Scores for the tasks that came after the version was made, by the models that serve."""
    predictions = folder.predictions(version)
    if predictions is None:
        raise ValueError(f"no predictions of {version} in {folder.path}: start a round instead")
    tasks = folder.tasks()
    models = folder.serving_models()
    missing = {
        key: task
        for key, task in unlabelled(folder, tasks).items()
        if str(key) not in predictions["tasks"]
    }
    if models:
        new = scores(settings, folder, version, predictions["controls"], models, missing)
    else:
        skipped = folder.read("skipped.json", {})
        progress = reporter(folder, version)
        for control in predictions["controls"]:
            learner = open_learner(settings, folder, control, tasks, progress)
            learner.adapt()
            skipped |= skipped_by(learner)
        folder.write("skipped.json", skipped)
        new = {
            str(key): {"score": NEW_TASK_SCORE, "cluster": None, "probs": {}}
            for key in missing
            if str(key) not in skipped
        }
    predictions["tasks"] |= new
    replan(settings, folder, len(tasks))
    folder.write(f"rounds/{version}/predictions.json", predictions)


def rescore(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Scores by an older release, for a rollback to it."""
    models = folder.release_models(version)
    predictions = folder.predictions(version) or {"version": version, "tasks": {}}
    if models:
        controls = predictions["controls"]
        tasks = folder.tasks()
        predictions["tasks"] = scores(
            settings, folder, version, controls, models, unlabelled(folder, tasks)
        )
        folder.write(f"rounds/{version}/predictions.json", predictions)


WORK: dict[str, Callable[[Settings, ProjectFolder, str], None]] = {
    "bootstrap": bootstrap,
    "round": round_,
    "extend": extend,
    "rescore": rescore,
}


# --- what they share -----------------------------------------------------------------------------


def device_lock(settings: Settings) -> FileLock:
    """Held while training: one at a time per device of this machine, whatever the project."""
    return FileLock(Path(tempfile.gettempdir()) / f"after-{settings.device.replace(':', '-')}.lock")


def _judge(
    learner: ActiveLearner, serving: tuple[str, str] | None, candidate: str
) -> tuple[bool, str]:
    """Whether the new model is promoted, and why.

    What a probe or a competition kept has been compared by cross-validation already.
    """
    if learner.config.fine_tuning != "always":
        return True, ""
    if serving is None or serving[0] != learner.folder.name or serving[1] == candidate:
        return True, "The first model."
    before = next((r for r in learner.curve if r.version == serving[1]), None)
    if before is None or not before.validation or serving[1] not in learner.models.versions():
        return True, "Too few held-out labels to compare it with the one before."
    y_true, (old, new) = learner.held_out(serving[1], candidate)
    if not len(y_true):
        return True, "Too few held-out labels to compare it with the one before."
    worse, reason = clearly_worse(y_true, old, new)
    return not worse, reason


def _end_with_parent() -> None:
    """End when standard input closes, at once if it has: the worker was killed."""
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(70)

    if select.select([0], [], [], 0)[0]:
        wait()
    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
