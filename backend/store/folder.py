"""What is kept of one project: rows of its own in the database, and a folder for what is large.

Audio, features, embeddings, learners, their models and the scores of a whole pool are files.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backend.store.engine import Database
from backend.store.history import History
from backend.store.releases import Releases
from backend.store.schema import DOCUMENTS

FOLLOWS, ORDER, POOL = "follows.json", "order.json", "pool.json"
BESIDE = "beside.json"  # that a whole pool's predictions may be in Label Studio
SPEAKERS = "speakers.json"  # the rule by which the tasks' speakers were read


class ProjectFolder(History):
    """What is kept of one project."""

    def __init__(self, path: Path, database: Database) -> None:
        super().__init__(path, database)
        self.audio = path / "audio"
        self.features = path / "features"
        self.tapt = path / "tapt"
        self.learners = path / "learners"
        self.rounds = path / "rounds"

    @property
    def releases(self) -> Releases:
        """Releases: which learner's model serves each control, and which release serves."""
        return Releases(self.database, self.id)

    # --- rounds ----------------------------------------------------------------------------------

    def round(self, version: str) -> Path:
        if not re.fullmatch(r"after-r\d{2,}-n\d{4,}", version):
            raise ValueError(f"version {version!r}: expected a name such as after-r03-n0060")
        return self.rounds / version

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

    def forget_rounds(self, keep: Iterable[str] = ()) -> None:
        """Remove what is kept of rounds that are neither a release nor among these; the history
        remembers them."""
        kept = {*self.releases.versions(), *keep}
        with self.database.write() as connection:
            names = connection.execute(
                sa.select(DOCUMENTS.c.name).where(
                    DOCUMENTS.c.project_id == self.id, DOCUMENTS.c.name.startswith("rounds/")
                )
            ).scalars()
            gone = [name for name in names if name.split("/")[1] not in kept]
            self._delete_documents(connection, gone)
        for path in self.rounds.glob("*"):
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)

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
        with contextlib.suppress(OSError, sa.exc.OperationalError):
            self.write("progress.json", content)
