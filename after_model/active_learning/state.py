"""What a learner keeps on disk: typed, versioned, written whole or not at all.

A field that is new has a default, so that a state written before it existed is read as it is; what
an older version meant otherwise is migrated. Settings are remembered, not enforced: a changed one
starts a new line of models with the next round.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from after_model.active_learning.hashing import fraction

VERSION = 3
FILE = "state.json"


class StateError(ValueError):
    """A folder that holds another run or what can't be read; the message says what to do."""


@dataclass
class LearnerState:
    """A learner between two calls.

    pool: a hash of the pool's ids, or "open". names: of the classes. labels: target [C] by id, in
    the order they were told. pending: ids asked for and not all told. trained: ids that a
    fine-tuned model has learnt from; held_out: ids that none may. stop_set: predicted class by id
    of the last round's model. audits: ids that were asked for as audits and judge models: labelled
    ones, and those that are asked for now. settings: the configuration of the last round, as JSON.
    """

    pool: str
    names: list[str]
    version: int = VERSION
    labels: dict[str, list[float]] = field(default_factory=dict)
    pending: list[str] | None = None
    stale: bool = False
    select_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    stop_set: dict[str, int] | None = None
    audits: list[str] = field(default_factory=list)
    settings: dict[str, Any] | None = None
    line: int = 0

    def save(self, folder: Path) -> None:
        """Write beside, force to disk, rename."""
        path = folder / FILE
        beside = path.with_suffix(".new")
        with beside.open("w") as file:
            # not asdict() and dump(): with 2,000 labels they took a quarter of a step
            file.write(json.dumps(vars(self)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def load(folder: Path, pool: str, names: list[str]) -> LearnerState:
    """The folder's state, or a new one. Raises StateError where it holds another run."""
    path = folder / FILE
    if not path.exists():
        return LearnerState(pool, names)
    try:
        content = json.loads(path.read_text())
        version = content.get("version", 1)
        if version > VERSION:
            raise StateError(
                f"{path}: written by a newer release (state version {version}, this one reads up "
                f"to {VERSION}): install that release again, or name another folder"
            )
        content = _migrated(content, version) if version < VERSION else content
        known = {f.name for f in dataclasses.fields(LearnerState)}
        state = LearnerState(**{k: v for k, v in content.items() if k in known})
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: damaged ({error!r}): restore it from a backup, or delete it to begin anew"
        ) from error
    for what, there, here in (("pool", state.pool, pool), ("labels", state.names, names)):
        if there != here:
            raise StateError(
                f"{path}: this folder holds another run: {what} is {there!r} there and {here!r} "
                "here. Name another folder or go back to what it was"
            )
    return state


def _migrated(content: dict[str, Any], version: int) -> dict[str, Any]:
    """A state of an older version as this one would have written it.

    1: held-out labels followed from the ids, everything else was trained. 2: had no audits.
    """
    if version == 2:
        return {**content, "version": VERSION}
    identity = content["identity"]
    config = identity["config"]
    held = [i for i in content["labels"] if fraction(i) < config.get("validation_share", 0.0)]
    if len(held) < len(identity["labels"]):
        held = []
    trained = [i for i in content["labels"] if i not in set(held)] if content["curve"] else []
    kept = ("labels", "curve", "pending", "stale", "select_seconds", "stop_set")
    return {
        **{name: content[name] for name in kept if name in content},
        "version": VERSION,
        "pool": identity["pool"],
        "names": identity["labels"],
        "trained": trained,
        "held_out": held if content["curve"] else [],
        "settings": config,
    }
