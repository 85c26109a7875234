"""Result rows on disk: one JSON line a run, written so that a kill loses at most the run it hit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from simulate.identity import plain

Row = dict[str, Any]


class ResultsError(ValueError):
    """The results file cannot be read; the message names the line and the way out."""


class Results:
    """The rows of one `results.jsonl`.

    A row has `run_id`, `config`, `curve` (one point a round), `minutes`, `tapt_minutes`,
    `labels_asked`, `machine` and `versions`; a run that failed has `run_id`, `config` and `error`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(f"{path}.lock")

    def append(self, row: Row) -> None:
        """Add a row and force it to disk. A line that an earlier kill tore off is dropped first."""
        line = (json.dumps(plain(row), sort_keys=True) + "\n").encode()
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.truncate(self._whole_bytes())
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def rows(self) -> dict[str, Row]:
        """Rows by run id. A later row of the same run replaces an earlier one, unless it failed."""
        found: dict[str, Row] = {}
        for row in self._read():
            known = found.get(row["run_id"])
            if known is None or finished(row) or not finished(known):
                found[row["run_id"]] = row
        return found

    def _read(self) -> Iterable[Row]:
        with self._lock:
            content = self.path.read_bytes() if self.path.exists() else b""
        for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
            try:
                row = json.loads(line)
                row["run_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise ResultsError(
                    f"{self.path}, line {number}: not a result row ({error}). "
                    "Delete that line; its run is then done again."
                ) from error
            yield row

    def _whole_bytes(self) -> int:
        """Length up to the last line end."""
        content = self.path.read_bytes() if self.path.exists() else b""
        return content.rfind(b"\n") + 1


def finished(row: Row | None) -> bool:
    """Whether the row holds a result (and not the error of a run that failed)."""
    return row is not None and "error" not in row
