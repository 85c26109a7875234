"""What is kept of one project: rows of its own in the database, and a folder of files.

What is large is in files, each written beside, forced to disk and renamed, so that a reader finds
the old or the new and a killed writer leaves the old.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from after_model.model_store import ModelStore
from backend.store.engine import Database
from backend.store.tasks import Tasks

MAX_ERRORS = 20
MAX_MESSAGE = 2000  # characters
RESERVE = "errors-reserve.json"
FOLLOWS, ORDER, POOL = "follows.json", "order.json", "pool.json"
RESERVED = 16_384  # bytes


class ProjectFolder(Tasks):
    """What is kept of one project."""

    def __init__(self, path: Path, database: Database) -> None:
        super().__init__(path, database)
        self.audio = path / "audio"
        self.features = path / "features"
        self.tapt = path / "tapt"
        self.learners = path / "learners"
        self.rounds = path / "rounds"

    @property
    def releases(self) -> ModelStore:
        """Releases: which learner's model serves each control; `current` is what serves."""
        return ModelStore(self.path / "releases")

    # --- rounds ----------------------------------------------------------------------------------

    def round(self, version: str) -> Path:
        if not re.fullmatch(r"after-r\d{2,}-n\d{4,}", version):
            raise ValueError(f"version {version!r}: expected a name such as after-r03-n0060")
        return self.rounds / version

    def history(self) -> list[dict[str, Any]]:
        """Every round, oldest first."""
        return self.read("history.json", [])

    def add_history(self, entry: dict[str, Any]) -> None:
        """Add a round, or replace the one with the same version."""
        kept = [e for e in self.history() if e["version"] != entry["version"]]
        self.write("history.json", [*kept, entry])

    def release_models(self, version: str) -> dict[str, tuple[str, str]]:
        """(learner, its version) by control, of a release; empty before the first round."""
        models = self.releases.metadata(version)["models"]
        return {name: (learner, model) for name, (learner, model) in models.items()}

    def serving_models(self) -> dict[str, tuple[str, str]]:
        """(learner, its version) by control, of the release that serves."""
        current = self.releases.current()
        return {} if current is None else self.release_models(current)

    def round_models(self, version: str) -> dict[str, tuple[str, str]]:
        """What a round would serve: its own models where promoted, else those that serve now."""
        learners = {c["name"]: c["learner"] for c in self.snapshot(version)["controls"]}
        kept = {
            name: (learner, model)
            for name, (learner, model) in self.serving_models().items()
            if learners.get(name) == learner
        }
        trained = self.read(f"rounds/{version}/trained.json", {})
        return kept | {
            name: (result["learner"], result["version"])
            for name, result in trained.items()
            if result["promoted"]
        }

    def snapshot(self, version: str) -> dict[str, Any]:
        """What a round trains on: {"controls", "labels", "trained"}, as Label Studio had it."""
        content = self.read(f"rounds/{version}/snapshot.json", None)
        if content is None:
            raise ValueError(
                f"{self.rounds / version}: the snapshot is gone; press Train for another"
            )
        return content

    # --- what happens now ------------------------------------------------------------------------

    def note_progress(
        self, version: str, stage: str, done: float, total: float, started: float
    ) -> None:
        """Say what is being done now; a full disk stops nothing here."""
        content = {
            "job": "bootstrap" if version.endswith("-n0000") else "round",
            "version": version,
            "stage": stage,
            "done": float(done),
            "total": float(total),
            "started": started,
            "updated": time.time(),
        }
        with contextlib.suppress(OSError):
            self.write("progress.json", content)

    def note_error(self, where: str, message: str) -> None:
        """Keep an error for the status page, also when the disk is full."""
        entry = {"time": now(), "where": where, "message": message[:MAX_MESSAGE]}
        try:
            self.write("errors.json", [entry, *self.errors()][:MAX_ERRORS])
        except OSError:
            # No room for a new file: write over blocks that were reserved while there was.
            with contextlib.suppress(OSError), (self.path / RESERVE).open("r+b") as file:
                file.write(json.dumps([entry]).encode()[:RESERVED].ljust(RESERVED))
                file.flush()
                os.fsync(file.fileno())

    def reserve(self) -> None:
        """Set room aside for telling that there is no more."""
        if not (self.path / RESERVE).exists():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RESERVE).write_bytes(b"[]".ljust(RESERVED))

    def errors(self) -> list[dict[str, str]]:
        """The last errors, newest first."""
        found = self.read(RESERVE, []) + self.read("errors.json", [])
        return sorted(found, key=lambda entry: entry["time"], reverse=True)[:MAX_ERRORS]

    # --- files -----------------------------------------------------------------------------------

    def read(self, name: str, default: Any) -> Any:
        """A JSON file's content, the default where there is none."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default

    def write(self, name: str, content: Any) -> None:
        """Replace a JSON file: a reader sees the old one or the new one, whatever dies."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
