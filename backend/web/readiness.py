"""Whether the service can do its work: what /ready says, to whoever asks."""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa

from backend.store.projects import Projects

log = logging.getLogger("after.web")

SILENT_S = 60.0


def problems(projects: Projects) -> list[str]:
    """What is missing, without a name or an address; empty where nothing is."""
    try:
        seen = projects.workers().values()
    except (sa.exc.SQLAlchemyError, OSError):
        log.exception("the database can't be used")
        return ["the database can't be used"]
    if not any(time.time() - at < SILENT_S for at in seen):
        return ["no worker is alive"]
    return []
