"""The order where steps don't make it: a fixed model's scores, the start; and a round's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from after_model.active_learning import LearnerConfig
from after_model.audio import Utterance
from backend.compute.orders import at_random, interleave
from backend.compute.pools import audio_path, open_learner, reporter, skipped_by
from backend.settings import Settings
from backend.store.projects import ProjectFolder, TaskRecord
from backend.store.scores import PoolScores

PROBE_ROUND, PROBE_ROUNDS = 8, 20  # a probe's round: so many labels, or the budget in so many parts


def pool_scores(
    settings: Settings,
    folder: ProjectFolder,
    version: str,
    controls: Sequence[Mapping[str, Any]],
    models: Mapping[str, tuple[str, str]],
    tasks: Mapping[int, TaskRecord],
) -> PoolScores:
    """What these models say of the tasks; the strategy's own choice first where it isn't entropy.

    Recordings that can't be read are added to `skipped.json`.
    """
    progress = reporter(folder, version)
    ids = np.array(sorted(tasks), np.int64)
    probs: dict[str, np.ndarray] = {}
    skipped = folder.read("skipped.json", {})
    choices: list[list[int]] = []
    config = settings.learner_config()
    for control in controls:
        if control["name"] not in models:
            continue
        _, model = models[control["name"]]
        learner = open_learner(settings, folder, control, folder.tasks(), progress)
        learner.adapt()
        skipped |= skipped_by(learner)
        pool = [
            Utterance(str(key), path, task.speaker)
            for key, task in tasks.items()
            if (path := audio_path(folder, task, control)) is not None and str(key) not in skipped
        ]
        found = np.full((len(ids), len(control["labels"])), np.nan, np.float32)
        rows = np.searchsorted(ids, np.array([int(u.id) for u in pool], np.int64))
        found[rows] = learner.predict(pool, model).probs
        probs[control["name"]] = found
        if config.strategy != "entropy":
            wanted = plan(settings, len(tasks))["round_size"] * 2
            open_ones = [u.id for u in pool if u.id not in learner.labelled]
            choices.append([int(key) for key in learner.choose(open_ones, wanted)])
    folder.write("skipped.json", skipped)
    return PoolScores(version, ids, probs, np.array(interleave(choices), np.int64))


def start_order(
    settings: Settings,
    folder: ProjectFolder,
    version: str,
    controls: Sequence[Mapping[str, Any]],
    tasks: Mapping[int, TaskRecord],
) -> PoolScores:
    """The start's recordings first, the other readable ones after them in random order."""
    progress = reporter(folder, version)
    starts: list[list[int]] = []
    for control in controls:
        learner = open_learner(settings, folder, control, tasks, progress)
        starts.append([int(key) for key in learner.ask()])
    return at_random(settings.seed, version, readable(folder, tasks), interleave(starts))


def readable(folder: ProjectFolder, tasks: Mapping[int, TaskRecord]) -> list[int]:
    """Tasks whose recording is here, and was read when it was needed."""
    skipped = folder.read("skipped.json", {})
    return [key for key, task in tasks.items() if task.path and str(key) not in skipped]


def plan(settings: Settings, pool: int) -> dict[str, int]:
    """How many labels a pool of this size needs: {"pool", "start", "round_size", "budget"}."""
    config = settings.learner_config()
    schedule = config.schedule(max(pool, 1))
    budget = int(config.budget_share * pool + 1e-9)
    return {
        "pool": pool,
        "start": schedule[0],
        "round_size": settings.round_size or _round_size(config, budget),
        "budget": max(budget, schedule[-1]),
    }


def _round_size(config: LearnerConfig, budget: int) -> int:
    """New labels that begin a round: the configured rounds or, where a round only refits a probe,
    as few as a push to Label Studio is worth."""
    if config.fine_tuning != "never":
        return max(1, budget // config.rounds)
    return max(1, min(budget // config.rounds, max(PROBE_ROUND, budget // PROBE_ROUNDS)))


def replan(settings: Settings, folder: ProjectFolder, pool: int) -> None:
    """Sizes for a pool that has changed; the start stays what it was."""
    start = folder.read("plan.json", {}).get("start", 0)
    folder.write("plan.json", plan(settings, pool) | {"start": start})
