"""What a round is called, what it learns from, and what is kept of it."""

from __future__ import annotations

import re
from typing import Any

from backend.store import learners
from backend.store.projects import ProjectFolder, now


def next_version(folder: ProjectFolder, labelled: int) -> str:
    """after-r<round>-n<labelled>, the round after all that were ever published or refused."""
    known = [entry["version"] for entry in folder.history()] + folder.releases.versions()
    numbers = [int(m.group(1)) for v in known if (m := re.match(r"after-r(\d+)-", v))]
    return f"after-r{max(numbers, default=-1) + 1:02d}-n{labelled:04d}"


def history_entry(folder: ProjectFolder, version: str) -> dict[str, Any]:
    """What the status page shows of a round."""
    trained = folder.read(f"rounds/{version}/trained.json", {})
    main: dict[str, Any] = next(iter(trained.values()), {})
    sizes = folder.read("plan.json", {})
    labelled = int(version.rsplit("-n", 1)[1])
    pool = folder.task_count()
    refused = [r["reason"] for r in trained.values() if not r["promoted"]]
    promoted = not trained or any(r["promoted"] for r in trained.values())
    return {
        "version": version,
        "round": int(version.split("-")[1].removeprefix("r")),
        "labelled": labelled,
        "share": labelled / max(1, pool),
        "created": now(),
        "seconds": sum(r["train_seconds"] for r in trained.values()),
        "validation": main.get("validation", {}),
        "held_out": main.get("held_out", True),
        "estimate": main.get("estimate", {}),
        "agreement": main.get("agreement"),
        "promoted": promoted,
        "reason": " ".join(refused) or main.get("reason", "The order before any label."),
        "advice": main.get("advice"),
        "controls": trained,
        "pool": pool,
        "start": sizes.get("start", 0),
        "round_size": sizes.get("round_size", 0),
        "budget": sizes.get("budget", 0),
    }


def release(folder: ProjectFolder, version: str, entry: dict[str, Any]) -> None:
    """Publish a release, or finish publishing it, and let it serve."""
    models = folder.round_models(version)
    for learner, model in models.values():
        learners.models(folder, learner).rollback(model)
    if version in folder.releases.versions():
        folder.releases.rollback(version)
    else:
        folder.releases.publish(version, models, entry["labelled"])
