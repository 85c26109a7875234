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
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from after_model import clustering
from after_model.acquisition.entropy import entropy
from after_model.active_learning import ActiveLearner
from after_model.audio import AudioLimits, Utterance
from after_model.labels import LabelSpace
from after_model.progress import Progress
from after_model.promotion import clearly_worse
from backend import settings as settings_module
from backend.projects import ProjectFolder, TaskRecord
from backend.settings import Settings

log = logging.getLogger("after.compute")

PROGRESS_EVERY_S = 0.5
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
                seen = [key for key in tasks if _path(folder, tasks[key], control)]
                folder.write("tapt-pool.json", seen)
            pool = {key: tasks[key] for key in seen if key in tasks}
            learner = open_learner(settings, folder, control, pool, progress)
            learner.adapt()


def order(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """The clustering start: its recordings first, the others after them in random order."""
    controls = folder.snapshot(version)["controls"]
    progress = reporter(folder, version)
    tasks = folder.tasks()
    wanted = _unlabelled(folder, tasks)
    ranked: list[str] = []
    skipped: dict[str, str] = {}
    start = 0
    for control in controls:
        learner = open_learner(settings, folder, control, tasks, progress)
        ranked += [key for key in learner.ask() if key not in ranked]
        start = max(start, len(ranked))
        skipped |= _skipped(learner)
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
            skipped |= _skipped(learner)
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
                "reason": reason,
                "advice": asdict(learner.advice()),
                "estimate": learner.estimate(),
            }
    folder.write("skipped.json", skipped)
    _replan(settings, folder, len(tasks))
    folder.write(f"rounds/{version}/trained.json", results)
    return results


def score(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Confidence of every unlabelled recording by the models of this round."""
    controls = folder.snapshot(version)["controls"]
    models = folder.round_models(version)
    tasks = _unlabelled(folder, folder.tasks())
    chosen = _score(settings, folder, version, controls, models, tasks)
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
        for key, task in _unlabelled(folder, tasks).items()
        if str(key) not in predictions["tasks"]
    }
    if models:
        new = _score(settings, folder, version, predictions["controls"], models, missing)
    else:
        skipped = folder.read("skipped.json", {})
        progress = reporter(folder, version)
        for control in predictions["controls"]:
            learner = open_learner(settings, folder, control, tasks, progress)
            learner.adapt()
            skipped |= _skipped(learner)
        folder.write("skipped.json", skipped)
        new = {
            str(key): {"score": NEW_TASK_SCORE, "cluster": None, "probs": {}}
            for key in missing
            if str(key) not in skipped
        }
    predictions["tasks"] |= new
    _replan(settings, folder, len(tasks))
    folder.write(f"rounds/{version}/predictions.json", predictions)


def rescore(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Scores by an older release, for a rollback to it."""
    models = folder.release_models(version)
    predictions = folder.predictions(version) or {"version": version, "tasks": {}}
    if models:
        controls = predictions["controls"]
        tasks = folder.tasks()
        predictions["tasks"] = _score(
            settings, folder, version, controls, models, _unlabelled(folder, tasks)
        )
        folder.write(f"rounds/{version}/predictions.json", predictions)


WORK: dict[str, Callable[[Settings, ProjectFolder, str], None]] = {
    "bootstrap": bootstrap,
    "round": round_,
    "extend": extend,
    "rescore": rescore,
}


# --- what they share -----------------------------------------------------------------------------


def open_learner(
    settings: Settings,
    folder: ProjectFolder,
    control: Mapping[str, Any],
    tasks: Mapping[int, TaskRecord],
    progress: Progress,
) -> ActiveLearner:
    """The learner of one control on the tasks that have audio for it."""
    pool = [
        Utterance(str(key), path)
        for key, task in tasks.items()
        if (path := _path(folder, task, control)) is not None
    ]
    return ActiveLearner(
        pool,
        LabelSpace(tuple(control["labels"])),
        settings.learner_config(),
        folder.learners / control["learner"],
        store_folder=folder.features,
        tapt_folder=folder.tapt,
        open_pool=True,
        keep=settings.keep_models,
        limits=AudioLimits(max_duration_s=settings.max_audio_s),
        device=settings.device,
        progress=progress,
    )


def reporter(folder: ProjectFolder, version: str) -> Progress:
    """A Progress that keeps `progress.json` up to date, without writing too often."""
    started: dict[str, float] = {}
    written = 0.0

    def report(stage: str, done: float, total: float) -> None:
        nonlocal written
        began = started.setdefault(stage, time.time())
        if time.monotonic() - written < PROGRESS_EVERY_S and done < total:
            return
        written = time.monotonic()
        folder.note_progress(version, stage, done, total, began)

    return report


def device_lock(settings: Settings) -> FileLock:
    """Held while training: one at a time per device of this machine, whatever the project."""
    return FileLock(Path(tempfile.gettempdir()) / f"after-{settings.device.replace(':', '-')}.lock")


def _score(
    settings: Settings,
    folder: ProjectFolder,
    version: str,
    controls: Sequence[Mapping[str, Any]],
    models: Mapping[str, tuple[str, str]],
    tasks: Mapping[int, TaskRecord],
) -> dict[str, dict[str, Any]]:
    """{"score", "cluster", "probs"} by task: 1 - H / log C, the mean over the controls."""
    progress = reporter(folder, version)
    entries: dict[str, dict[str, Any]] = {}
    skipped = folder.read("skipped.json", {})
    embeddings: dict[str, np.ndarray] = {}
    choice: list[str] = []
    for control in controls:
        if control["name"] not in models:
            continue
        _, model = models[control["name"]]
        learner = open_learner(settings, folder, control, folder.tasks(), progress)
        learner.adapt()
        skipped |= _skipped(learner)
        pool = [
            Utterance(str(key), path)
            for key, task in tasks.items()
            if (path := _path(folder, task, control)) is not None and str(key) not in skipped
        ]
        scores = learner.predict(pool, model)
        confidence = 1 - entropy(scores.probs) / np.log(len(control["labels"])) if pool else []
        for row, utterance in enumerate(pool):
            entry = entries.setdefault(utterance.id, {"scores": [], "cluster": None, "probs": {}})
            entry["scores"].append(float(np.clip(confidence[row], 0, 1)))
            entry["probs"][control["name"]] = [round(float(p), 6) for p in scores.probs[row]]
            embeddings.setdefault(utterance.id, scores.embeddings[row])
        if not choice and settings.learner_config().strategy not in ("entropy", "cluster-entropy"):
            choice = learner.choose(
                [u.id for u in pool], plan(settings, len(folder.tasks()))["round_size"] * 2
            )
    for entry in entries.values():
        entry["score"] = float(np.mean(entry.pop("scores")))
    if settings.learner_config().strategy == "cluster-entropy":
        _mark_clusters(settings, folder, entries, embeddings)
    _put_first(entries, choice)
    folder.write("skipped.json", skipped)
    return entries


def _put_first(entries: dict[str, dict[str, Any]], choice: Sequence[str]) -> None:
    """Scores such that a strategy's own choice comes first, in its order, then the uncertain."""
    if not choice:
        return
    for entry in entries.values():
        entry["score"] = 0.5 + entry["score"] / 2
    for rank, key in enumerate(choice):
        entries[key]["score"] = 0.5 * rank / len(choice)


def _mark_clusters(
    settings: Settings,
    folder: ProjectFolder,
    entries: dict[str, dict[str, Any]],
    embeddings: Mapping[str, np.ndarray],
) -> None:
    """A cluster for every recording, as many as a round has labels, weighted by uncertainty.

    Label Studio serves clusters in turn, the least confident of each first: a round's labels are
    then uncertain and different (acquisition/cluster_entropy.py).
    """
    keys = list(entries)
    if not keys:
        return
    points = clustering.prepare(np.stack([embeddings[key] for key in keys]))
    weights = np.maximum([1 - entries[key]["score"] for key in keys], 1e-6)
    rng = np.random.default_rng(settings.seed)
    groups = clustering.fit(points, plan(settings, len(folder.tasks()))["round_size"], rng, weights)
    for key, label in zip(keys, groups.labels, strict=True):
        entries[key]["cluster"] = int(label)


def plan(settings: Settings, pool: int) -> dict[str, int]:
    """How many labels a pool of this size needs: {"pool", "start", "round_size", "budget"}."""
    config = settings.learner_config()
    schedule = config.schedule(max(pool, 1))
    budget = int(config.budget_share * pool + 1e-9)
    return {
        "pool": pool,
        "start": schedule[0],
        "round_size": settings.round_size or max(1, budget // config.rounds),
        "budget": max(budget, schedule[-1]),
    }


def _replan(settings: Settings, folder: ProjectFolder, pool: int) -> None:
    """Sizes for a pool that has changed; the start stays what it was."""
    start = folder.read("plan.json", {}).get("start", 0)
    folder.write("plan.json", plan(settings, pool) | {"start": start})


def _judge(
    learner: ActiveLearner, serving: tuple[str, str] | None, candidate: str
) -> tuple[bool, str]:
    """Whether the new model is promoted, and why."""
    if serving is None or serving[0] != learner.folder.name or serving[1] == candidate:
        return True, "The first model."
    before = next((r for r in learner.curve if r.version == serving[1]), None)
    if before is None or not before.validation or serving[1] not in learner.models.versions():
        return True, "Too few held-out labels to compare it with the one before."
    y_true, new = learner.held_out(candidate)
    if not len(y_true):
        return True, "Too few held-out labels to compare it with the one before."
    worse, reason = clearly_worse(y_true, learner.held_out(serving[1])[1], new)
    return not worse, reason


def _unlabelled(folder: ProjectFolder, tasks: Mapping[int, TaskRecord]) -> dict[int, TaskRecord]:
    return {
        key: task
        for key, task in tasks.items()
        if not task.labelled and any((folder.path / p).is_file() for p in task.path.values())
    }


def _path(folder: ProjectFolder, task: TaskRecord, control: Mapping[str, Any]) -> Path | None:
    """The task's audio for a control, None where there is none."""
    name = task.path.get(control["audio_key"])
    return None if name is None else folder.path / name


def _skipped(learner: ActiveLearner) -> dict[str, str]:
    """Why recordings can't be used, by task."""
    task_of = {str(u.path): u.id for u in learner.given}
    return {
        task_of[str(error.path)]: f"{error.reason}. {error.fix}".removesuffix(". ")
        for error in learner.skipped
        if str(error.path) in task_of
    }


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
