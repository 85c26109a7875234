"""The JSON files of 0.1, for the migrations that make them rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from alembic import op

log = logging.getLogger("after.store")


def contents(pattern: str) -> Iterator[tuple[int, Any]]:
    """(project, content) of every project's file of this name; one that is damaged is left out."""
    migration = op.get_context().config
    assert migration is not None
    for path in sorted(migration.attributes["folder"].glob(f"*/{pattern}")):
        try:
            yield int(path.parent.name), json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            log.warning("%s is damaged and left out: %s", path, error)
