"""What happened in a project: its rounds, and its errors for the status page."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from backend.store.engine import is_full, parts
from backend.store.schema import ERRORS, HISTORY
from backend.store.tasks import Tasks

MAX_ERRORS = 20
MAX_WATCHING = 3  # of them from looks at Label Studio: one fails every minute while it is away
WATCHING = "watching"
MAX_MESSAGE = 2000  # characters
RESERVE = "errors-reserve.json"
RESERVED = 16_384  # bytes


class History(Tasks):
    """Rounds and errors."""

    def history(self) -> list[dict[str, Any]]:
        """Every round, oldest first."""
        statement = (
            sa.select(HISTORY.c.content)
            .where(HISTORY.c.project_id == self.id)
            .order_by(HISTORY.c.place)
        )
        with self.database.read() as connection:
            return list(connection.execute(statement).scalars())

    def add_history(self, entry: dict[str, Any]) -> None:
        """Add a round, or replace the one with the same version."""
        last = sa.select(sa.func.max(HISTORY.c.place)).where(HISTORY.c.project_id == self.id)
        with self.database.write() as connection:
            row = {
                "project_id": self.id,
                "version": entry["version"],
                "place": (connection.execute(last).scalar() or 0) + 1,
                "content": entry,
            }
            self.database.upsert(connection, HISTORY, [row])

    def note_error(self, where: str, message: str) -> None:
        """Keep an error for the status page, also when the disk is full."""
        said = message[:MAX_MESSAGE]
        try:
            self._add_error(where, said)
        except OSError:
            # No room for another row: write over blocks that were reserved while there was.
            entry = {"time": now(), "where": where, "message": said}
            with contextlib.suppress(OSError), (self.path / RESERVE).open("r+b") as file:
                file.write(json.dumps([entry]).encode()[:RESERVED].ljust(RESERVED))
                file.flush()
                os.fsync(file.fileno())

    def reserve(self) -> None:
        """Set room aside for telling that there is no more."""
        if not (self.path / RESERVE).exists():
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RESERVE).write_bytes(b"[]".ljust(RESERVED))

    def errors(self) -> list[dict[str, Any]]:
        """The last errors, newest first: {"time", "where", "message", "times"}."""
        with self.database.read() as connection:
            found = [
                {"time": row.time, "where": row.place, "message": row.message, "times": row.times}
                for row in self._read_errors(connection)
            ]
        with contextlib.suppress(FileNotFoundError):  # what was kept there is newer by its nature
            found = [*json.loads((self.path / RESERVE).read_bytes()), *found]
        return sorted(found, key=lambda entry: entry["time"], reverse=True)[:MAX_ERRORS]

    def _add_error(self, where: str, message: str) -> None:
        with self.database.write() as connection:
            known = self._read_errors(connection)
            same = [row for row in known if (row.place, row.message) == (where, message)]
            alike = [row for row in known if row.place == where and row not in same]
            others = [row for row in known if row not in same]
            gone = [row.id for row in (*same, *others[MAX_ERRORS - 1 :])]
            if where == WATCHING:
                gone += [row.id for row in alike[MAX_WATCHING - 1 :]]
            for some in parts(gone):
                connection.execute(sa.delete(ERRORS).where(ERRORS.c.id.in_(some)))
            times = 1 + sum(row.times for row in same)
            connection.execute(
                sa.insert(ERRORS).values(
                    project_id=self.id, time=now(), place=where, message=message, times=times
                )
            )

    def _read_errors(self, connection: sa.Connection) -> list[Any]:
        """The newest first."""
        statement = sa.select(ERRORS).where(ERRORS.c.project_id == self.id)
        return list(connection.execute(statement.order_by(ERRORS.c.id.desc())))


def said(error: Exception) -> str:
    """What people read of an error: its own words, where it was foreseen."""
    if is_full(error) and not isinstance(error, OSError):  # SQLite's words name no disk's folder
        return "No space left where AFTER_DATA lies; make room, and it goes on by itself."
    ours = isinstance(error, OSError | ValueError | RuntimeError) or type(error) is LookupError
    return (ours and str(error)) or repr(error)


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
