"""When Label Studio began to serve by which version: read from its own database, which costs it
nothing."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

LOOK_S = 0.05


class Watch:
    """Notes every version of a project; a context manager ends it."""

    def __init__(self, database: Path, project: int) -> None:
        self._database = database
        self._project = project
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[tuple[float, str]] = []
        """(seconds of time.monotonic(), version), as they came."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        address = f"file:{self._database}?mode=ro"
        with sqlite3.connect(address, uri=True, timeout=30) as connection:
            while not self._ended.wait(LOOK_S):
                (version,) = connection.execute(
                    "SELECT model_version FROM project WHERE id = ?", (self._project,)
                ).fetchone()
                if version and (not self.seen or self.seen[-1][1] != version):
                    self.seen.append((time.monotonic(), version))


def delays(seen: Sequence[tuple[float, str]], labelled: Sequence[float]) -> list[float]:
    """Seconds from the last label that a version knows to its being served.

    labelled: when each label was saved, in order; versions that know none of them are left out.
    """
    found = []
    for at, version in seen:
        match = re.search(r"-n(\d+)$", version)
        known = int(match[1]) if match else 0
        if 1 <= known <= len(labelled):
            found.append(max(0.0, at - labelled[known - 1]))
    return found
