"""The documents of a project, JSON by name, and those that learners keep in files.

A document is a row: a reader finds the old one or the new one, whatever dies. A file is written
beside, forced to disk and renamed, to the same end.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backend.store.engine import parts
from backend.store.schema import DOCUMENTS
from backend.store.stored import Stored

FILE = "state.json"  # what a learner itself writes


class Documents(Stored):
    """Documents by name, such as "plan.json" or "rounds/after-r01-n0016/trained.json"."""

    def read(self, name: str, default: Any) -> Any:
        """A document's content, the default where there is none."""
        if name.endswith(FILE):
            return self._read_file(name, default)
        with self.database.read() as connection:
            return self._read_document(connection, name, default)

    def write(self, name: str, content: Any) -> None:
        """Add a document, or replace it."""
        if name.endswith(FILE):
            self._write_file(name, content)
            return
        with self.database.write() as connection:
            self._write_document(connection, name, content)

    def delete(self, names: Iterable[str]) -> None:
        """Have no document or file of these names."""
        wanted = list(names)
        for name in wanted:
            if name.endswith(FILE):
                (self.path / name).unlink(missing_ok=True)
        with self.database.write() as connection:
            self._delete_documents(connection, wanted)

    def _delete_documents(self, connection: sa.Connection, names: Iterable[str]) -> None:
        for some in parts(names):
            connection.execute(
                sa.delete(DOCUMENTS).where(
                    DOCUMENTS.c.project_id == self.id, DOCUMENTS.c.name.in_(some)
                )
            )

    def _read_document(self, connection: sa.Connection, name: str, default: Any) -> Any:
        row = connection.execute(
            sa.select(DOCUMENTS.c.content).where(
                DOCUMENTS.c.project_id == self.id, DOCUMENTS.c.name == name
            )
        ).one_or_none()
        return default if row is None else row.content

    def _write_document(self, connection: sa.Connection, name: str, content: Any) -> None:
        row = {"project_id": self.id, "name": name, "content": content}
        self.database.upsert(connection, DOCUMENTS, [row])

    def _read_file(self, name: str, default: Any) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default

    def _write_file(self, name: str, content: Any) -> None:
        self.database.check()
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
            with contextlib.suppress(FileNotFoundError):
                Path(beside).unlink()
            raise
