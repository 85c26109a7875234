"""What is labelled first: a score for every unlabelled recording, and how large a round is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from after_model.acquisition.entropy import entropy
from after_model.active_learning import LearnerConfig
from after_model.audio import Utterance
from backend.compute.pools import audio_path, open_learner, reporter, skipped_by
from backend.settings import Settings
from backend.store.projects import ProjectFolder, TaskRecord

PROBE_ROUND, PROBE_ROUNDS = 8, 20  # a probe's round: so many labels, or the budget in so many parts


def scores(
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
    choice: list[str] = []
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
        scores = learner.predict(pool, model)
        confidence = 1 - entropy(scores.probs) / np.log(len(control["labels"])) if pool else []
        for row, utterance in enumerate(pool):
            entry = entries.setdefault(utterance.id, {"scores": [], "cluster": None, "probs": {}})
            entry["scores"].append(float(np.clip(confidence[row], 0, 1)))
            entry["probs"][control["name"]] = [round(float(p), 6) for p in scores.probs[row]]
        if not choice and settings.learner_config().strategy != "entropy":
            choice = learner.choose(
                [u.id for u in pool], plan(settings, len(folder.tasks()))["round_size"] * 2
            )
    for entry in entries.values():
        entry["score"] = float(np.mean(entry.pop("scores")))
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
