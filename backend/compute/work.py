"""The heavy part of a job, in a process of its own: bootstrap, round, extend, rescore.

    python -m backend.compute WORK PROJECT VERSION [LEASE TOKEN]

A worker starts it and reads its progress from `progress.json`; it can be cancelled, limited in
time or killed by the system without taking the worker along. It ends when the worker does: its
standard input is a pipe from there, and closes; and when another worker has taken the lease that
it is named. A step that was killed can be run again: what it
has finished is found on disk.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from after_model.active_learning import ActiveLearner
from after_model.active_learning.competition import PROBE
from after_model.active_learning.promotion import clearly_worse
from backend import settings as settings_module
from backend.compute.ordering import plan, pool_scores, readable, replan, start_order
from backend.compute.orders import at_random, merged
from backend.compute.pools import open_learner, reporter, skipped_by, speaker_report
from backend.compute.turns import turn
from backend.settings import Settings
from backend.store import scores
from backend.store.engine import Fence
from backend.store.projects import FOLLOWS, POOL, ProjectFolder, Projects, TaskRecord
from backend.store.scores import PoolScores

log = logging.getLogger("after.compute")


def main(arguments: Sequence[str]) -> int:
    """Does some work; 0, or 1 with the reason in `failure.json`."""
    work, project, version, *lease = arguments
    _end_with_parent()
    settings = settings_module.load()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(message)s")
    if settings.compute_threads:
        import torch

        torch.set_num_threads(settings.compute_threads)
    projects = Projects(settings)
    if lease:
        name, token = lease
        projects = projects.fenced(Fence(name, int(token), lost=lambda: os._exit(70)))
    folder = projects.folder(int(project))
    folder.delete(["failure.json"])
    try:
        with turn(settings, folder, version):
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
    """Before any label: features of the recordings, TAPT where it is on, and a start."""
    adapt(settings, folder, version)
    tasks = folder.tasks()
    folder.write("plan.json", plan(settings, len(tasks)))
    if steps(settings):
        follow(folder, None)
    else:
        controls = folder.snapshot(version)["controls"]
        start = start_order(settings, folder, version, controls, tasks)
        scores.write(folder.path, start, scores.FIXED)
        follow(folder, version)


def round_(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Train on the snapshot's labels. Steps go on by the probe; where a fine-tuned model is to
    serve, its scores of the whole pool are the order until the next round."""
    promoted = [r for r in train(settings, folder, version).values() if r["promoted"]]
    if any(result["kept"] != PROBE for result in promoted):
        said = _scored(settings, folder, version, folder.round_models(version))
        scores.write(folder.path, said, scores.FIXED)
        follow(folder, version)
    elif promoted:
        follow(folder, None)


def steps(settings: Settings) -> bool:
    """Whether what is asked follows a probe that is refitted every few labels."""
    return settings.learner_config().fine_tuning != "always"


def follow(folder: ProjectFolder, release: str | None) -> None:
    """What the order follows from now on: a release's scores as they are, or None: steps."""
    if release is None:
        folder.delete([FOLLOWS])
    else:
        folder.write(FOLLOWS, {"release": release, "at": time.time()})


def _scored(
    settings: Settings, folder: ProjectFolder, version: str, models: Mapping[str, tuple[str, str]]
) -> PoolScores:
    controls = folder.snapshot(version)["controls"]
    return pool_scores(settings, folder, version, controls, models, folder.tasks())


def adapt(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Features of all recordings and, unless left out, TAPT, which is done once a project.

    Raises ValueError where most recordings could not be fetched: what is learnt once must not be
    learnt from the few that were there when a server was away.
    """
    progress = reporter(folder, version)
    tasks = folder.tasks()
    _enough(tasks)
    skipped: dict[str, str] = {}
    for control in folder.snapshot(version)["controls"]:
        learner = open_learner(settings, folder, control, tasks, progress)
        learner.adapt()
        skipped |= skipped_by(learner)
    folder.write("skipped.json", skipped)
    folder.write(POOL, {"mark": f"{time.time():.3f}"})


def _enough(tasks: Mapping[int, TaskRecord]) -> None:
    errors = [task.error for task in tasks.values() if task.error is not None]
    fetched = sum(bool(task.path) for task in tasks.values())
    if tasks and fetched * 2 < len(tasks):
        why = f" ({errors[0]})" if errors else ""
        raise ValueError(
            f"only {fetched} of {len(tasks)} recordings could be fetched{why}; all are tried again"
        )


def train(settings: Settings, folder: ProjectFolder, version: str) -> dict[str, Any]:
    """Train every control that has labels; say whether its model should serve."""
    snapshot = folder.snapshot(version)
    progress = reporter(folder, version)
    tasks = folder.tasks()
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    serving = folder.serving_models()
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
        learner.hold(snapshot.get("audits", {}).get(name, []))
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
            # Of the learner's serving model, which is this one where a probe was kept.
            "quality": asdict(learner.quality()) if record.kept == PROBE else {},
            "speakers": speaker_report(learner),
        }
    folder.write("skipped.json", skipped)
    replan(settings, folder, len(tasks))
    folder.write(f"rounds/{version}/trained.json", results)
    return results


def extend(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """Features of the tasks that came after the version was made; scores, where those are fixed."""
    adapt(settings, folder, version)
    tasks = folder.tasks()
    replan(settings, folder, len(tasks))
    followed = folder.read(FOLLOWS, None)
    if followed is None:
        return
    before = scores.read(folder.path, scores.FIXED)
    known = set() if before is None else set(before.tasks.tolist())
    missing = {key: task for key, task in tasks.items() if key not in known}
    models = folder.serving_models()
    controls = folder.snapshot(version)["controls"]
    more = (
        pool_scores(settings, folder, version, controls, models, missing)
        if models
        else at_random(settings.seed, version, readable(folder, missing))
    )
    scores.write(folder.path, merged(before, more), scores.FIXED)
    follow(folder, followed["release"])


def rescore(settings: Settings, folder: ProjectFolder, version: str) -> None:
    """The order by an older release, for a rollback to it; it holds until the next round."""
    models = folder.release_models(version)
    if models:
        said = _scored(settings, folder, version, models)
    else:
        said = at_random(settings.seed, version, readable(folder, folder.tasks()))
    scores.write(folder.path, said, scores.FIXED)
    follow(folder, version)


WORK: dict[str, Callable[[Settings, ProjectFolder, str], None]] = {
    "bootstrap": bootstrap,
    "round": round_,
    "extend": extend,
    "rescore": rescore,
}


# --- what they share -----------------------------------------------------------------------------


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
