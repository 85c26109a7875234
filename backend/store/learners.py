"""Where the learners of a project are, without importing what trains them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from after_model.model_store import ModelStore
from backend.label_studio.labeling import Control
from backend.store.folder import ProjectFolder


def describe(control: Control) -> dict[str, Any]:
    """A control as a snapshot keeps it, with the name of its learner.

    The name changes with the labels: other labels are another label space with a learner of its
    own, and the old one's models stay.
    """
    space = hashlib.blake2b(json.dumps(control.labels).encode(), digest_size=4).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", control.name)[:40].strip("-") or "control"
    name = hashlib.blake2b(control.name.encode(), digest_size=2).hexdigest()
    return {
        **asdict(control),
        "labels": list(control.labels),
        "learner": f"{readable}-{name}-{space}",
    }


def control(described: Mapping[str, Any]) -> Control:
    """The control that describe() was given."""
    values = {key: value for key, value in described.items() if key != "learner"}
    return Control(**{**values, "labels": tuple(values["labels"])})


def models(folder: ProjectFolder, learner: str) -> ModelStore:
    """The model versions of a learner."""
    return ModelStore(folder.learners / learner / "models")


def rounds_of(folder: ProjectFolder, learner: str) -> int:
    """How many rounds a learner has trained."""
    state = folder.read(f"learners/{learner}/state.json", {"curve": []})
    return len(state["curve"])
