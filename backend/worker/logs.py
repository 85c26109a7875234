"""The log of a project's computing, kept short while it is written."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 4 * 2**20


def keep_short(log: Path, max_bytes: int = MAX_BYTES) -> None:
    """Move what is there to `<name>.old.log` where it is too much; whoever appends goes on.

    A line that is written in this moment may be lost.
    """
    if log.stat().st_size <= max_bytes:
        return
    with log.open("r+b") as file:
        file.seek(-max_bytes, 2)
        log.with_suffix(".old.log").write_bytes(file.read(max_bytes))
        file.truncate(0)
