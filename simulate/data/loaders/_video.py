"""What the loaders of video corpora share: their files, and the sound of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from simulate.data import media
from simulate.data.errors import some
from simulate.data.loaders._release import AUDIO_SUFFIXES, audio_files


def recordings(
    name: str, folders: Iterable[Path], key: Callable[[Path], str] = lambda path: path.stem
) -> dict[str, Path]:
    """Videos by key, or the audio file beside one where somebody has extracted it already."""
    folders = list(folders)
    videos = audio_files(name, folders, key, media.VIDEO_SUFFIXES)
    return videos | audio_files(name, folders, key, AUDIO_SUFFIXES)


def sounds(
    name: str, files: Mapping[str, Path], cache: Path | None
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The audio files by key, and a note of the videos that have no sound."""
    found, failed = media.extract(name, files, cache)
    reasons = some(f"{key} ({reason})" for key, reason in sorted(failed.items()))
    return found, ((f"{len(failed)} videos without sound left out: {reasons}",) if failed else ())
