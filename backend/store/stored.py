"""What everything that is kept of one project has in common."""

from __future__ import annotations

from pathlib import Path

from backend.store.engine import Database


class Stored:
    """A project's rows in the database, and its folder for what is large."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.id = int(path.name)
        self.database = database
