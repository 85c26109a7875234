"""The files of 0.1, for the migrations that make them rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op

log = logging.getLogger("after.store")


@dataclass(frozen=True)
class File:
    """A file of a project; name: below the project's folder."""

    project: int
    name: str
    content: Any


def insert(table: sa.Table, pattern: str, rows_of: Callable[[File], list[dict[str, Any]]]) -> None:
    """Rows of every project's JSON files of this name; a file that is damaged is left out."""
    for file in texts(pattern):
        try:
            rows = rows_of(File(file.project, file.name, json.loads(file.content)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("project=%d %s is damaged and left out: %r", file.project, file.name, error)
            continue
        op.bulk_insert(table, [{"project_id": file.project} | row for row in rows])


def texts(pattern: str) -> Iterator[File]:
    """Every project's files of this name, as text."""
    for folder in _projects():
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            try:
                yield File(int(folder.name), name, path.read_text(encoding="utf-8").strip())
            except (OSError, ValueError) as error:
                log.warning("%s can't be read and is left out: %s", path, error)


def _projects() -> list[Path]:
    migration = op.get_context().config
    assert migration is not None
    folders = migration.attributes["folder"].glob("*")
    return sorted(path for path in folders if path.name.isascii() and path.name.isdigit())
