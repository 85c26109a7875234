"""The audio of tasks that were deleted in Label Studio: removed a day after they were last seen.

Only files that fetch() named are looked at. A task counts as gone when listings a day apart both
lack it; one that comes back in between is kept, and an empty listing says nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

log = logging.getLogger("after.audio")

DOCUMENT = "audio-of-deleted-tasks.json"
GRACE_S = 24 * 3600.0
FETCHED = re.compile(r"(\d+)-[A-Za-z0-9_-]*-[0-9a-f]{8}(\.[a-z0-9]{1,5})?")


def sweep(
    audio: Path,
    tasks: Collection[int],
    used: Collection[str],
    missing_since: Mapping[str, float],
    now_s: float,
) -> dict[str, float]:
    """Remove what belongs to tasks that are gone for good.

    tasks: all that Label Studio lists now. used: names of files that any of them refers to; tasks
    with the same address share one file, which is named after the first. missing_since: what the
    last call returned, to be given to the next one. Half-written files of killed downloads go, too.
    """
    if not tasks or not audio.is_dir():
        return dict(missing_since)
    known, noted, removed = set(tasks), {}, 0
    for path in audio.iterdir():
        if path.name.startswith(".new-"):
            if now_s - path.stat().st_mtime > GRACE_S:
                path.unlink(missing_ok=True)
            continue
        match = FETCHED.fullmatch(path.name)
        if match is None or int(match[1]) in known or path.name in used:
            continue
        since = missing_since.get(path.name, now_s)
        if now_s - since < GRACE_S:
            noted[path.name] = since
        else:
            path.unlink(missing_ok=True)
            removed += 1
    if removed:
        log.info("folder=%s removed=%d recordings of deleted tasks", audio, removed)
    return noted
