"""Releases: which learner's model serves each control, and which release serves.

The models themselves are files, in the learners' own stores; a release names them. One is never
changed after it was published; which one serves is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from after_model.model_store import ModelStoreError
from backend.store.engine import Database, parts
from backend.store.schema import RELEASES


class Releases:
    """The releases of one project."""

    def __init__(self, database: Database, project_id: int) -> None:
        self._database = database
        self._id = project_id

    def publish(
        self, version: str, models: Mapping[str, tuple[str, str]], labelled: int = 0
    ) -> None:
        """Add a release, (learner, its version) by control, and let it serve.

        Raises ModelStoreError when there is one of this name.
        """
        with self._database.write() as connection:
            known = self._read(connection)
            if any(row["version"] == version for row in known):
                raise ModelStoreError(
                    f"version {version!r} is already published and never changes; publish under a "
                    "new name, or roll back to it"
                )
            row = {
                "project_id": self._id,
                "version": version,
                "sequence": 1 + max((row["sequence"] for row in known), default=0),
                "created": datetime.now(UTC).isoformat(),
                "models": {name: list(model) for name, model in models.items()},
                "labelled": labelled,
                "serves": False,
            }
            self._database.upsert(connection, RELEASES, [row])
            self._let_serve(connection, version)
        self._database.settle()

    def current(self) -> str | None:
        """The release that serves, None before the first."""
        statement = sa.select(RELEASES.c.version).where(
            RELEASES.c.project_id == self._id, RELEASES.c.serves
        )
        with self._database.read() as connection:
            return connection.execute(statement).scalar()

    def versions(self) -> list[str]:
        """Every release, oldest first."""
        with self._database.read() as connection:
            return [row["version"] for row in self._read(connection)]

    def metadata(self, version: str) -> dict[str, Any]:
        """{"version", "created", "sequence", "models", "labelled"}; raises ModelStoreError."""
        with self._database.read() as connection:
            known = self._read(connection)
        found = next((row for row in known if row["version"] == version), None)
        if found is None:
            raise self._unknown(version, known)
        return found

    def rollback(self, version: str) -> None:
        """Let a release, older or newer, serve; raises ModelStoreError."""
        with self._database.write() as connection:
            known = self._read(connection)
            if all(row["version"] != version for row in known):
                raise self._unknown(version, known)
            self._let_serve(connection, version)
        self._database.settle()

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest and the one that serves; the removed ones."""
        if keep < 1:
            raise ModelStoreError(f"keep: expected at least 1, got {keep}")
        with self._database.write() as connection:
            removed = [
                row["version"] for row in self._read(connection)[:-keep] if not row["serves"]
            ]
            for some in parts(removed):
                connection.execute(
                    sa.delete(RELEASES).where(
                        RELEASES.c.project_id == self._id, RELEASES.c.version.in_(some)
                    )
                )
        return removed

    def _read(self, connection: sa.Connection) -> list[dict[str, Any]]:
        statement = (
            sa.select(RELEASES)
            .where(RELEASES.c.project_id == self._id)
            .order_by(RELEASES.c.sequence)
        )
        return [dict(row._mapping) for row in connection.execute(statement)]

    def _let_serve(self, connection: sa.Connection, version: str) -> None:
        connection.execute(
            sa.update(RELEASES)
            .where(RELEASES.c.project_id == self._id)
            .values(serves=RELEASES.c.version == version)
        )

    def _unknown(self, version: str, known: list[dict[str, Any]]) -> ModelStoreError:
        names = ", ".join(row["version"] for row in known) or "none yet"
        return ModelStoreError(f"project {self._id}: no version {version!r}; versions: {names}")
