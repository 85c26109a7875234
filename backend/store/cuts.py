"""Recordings that are longer than the encoder is to hear: what is said of them, which were cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from after_model.audio import AudioError, TooLong
from backend.store.folder import ProjectFolder

DOCUMENT = "cuts.json"
HINT = "python -m backend cut PROJECT makes utterances of it"
"""Part of every reason why a recording that is too long is left out."""


def why(error: AudioError) -> str:
    """Why a recording can't be used, and what to do."""
    fix = HINT if isinstance(error, TooLong) else error.fix
    return f"{error.reason}. {fix}".removesuffix(". ")


def cuts(folder: ProjectFolder) -> dict[str, dict[str, Any]]:
    """Of tasks whose recording was cut: {"audio": its address, "segments": how many it became}."""
    return folder.read(DOCUMENT, {})


def note(folder: ProjectFolder, task: int, audio: str, segments: int) -> None:
    folder.write(DOCUMENT, cuts(folder) | {str(task): {"audio": audio, "segments": segments}})


def told(reason: str, cut: Mapping[str, Any] | None) -> str:
    """Why a recording is left out; cut: its entry in cuts(), where it was cut."""
    if cut is None or HINT not in reason:
        return reason
    return reason.replace(HINT, f"it was cut into {cut['segments']} tasks")


def too_long(reasons: Mapping[str, str], cut: Mapping[str, Any]) -> list[str]:
    """Tasks that are left out for their length and weren't cut."""
    return [task for task, reason in reasons.items() if HINT in reason and task not in cut]
