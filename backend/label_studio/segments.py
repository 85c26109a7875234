"""Tasks that are a part of a longer recording: what their data say of it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE, START, END = "source", "start_s", "end_s"
SOURCE_TASK = "source_task"  # where the recording is a task itself


def fields(source: str, start_s: float, end_s: float) -> dict[str, Any]:
    """What a segment's data say: the recording that it is of, and where in it."""
    return {SOURCE: source, START: round(start_s, 2), END: round(end_s, 2)}


def source_of(data: Mapping[str, Any]) -> str | None:
    """The recording that a task's is a segment of; None where it is no segment."""
    source, *times = (data.get(name) for name in (SOURCE, START, END))
    timed = all(isinstance(t, int | float) and not isinstance(t, bool) for t in times)
    return source if timed and isinstance(source, str) else None
