"""Audio out of video files, kept as 16 kHz mono WAV in a cache; with PyAV (requirements-data.txt).

A recording that lies beside the video as WAV or FLAC, under the same name, needs none of this.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from after_model.audio import SAMPLE_RATE
from simulate.data.errors import CorpusError

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
DEFAULT_CACHE = ".cache/after-label-studio/audio"  # below the user's home


class NoAudioError(ValueError):
    """A video whose sound can't be had; the message says why."""


def extract(
    corpus: str, videos: Mapping[str, Path], cache: Path | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """The WAV file of each video by its key, and the reasons of those that have no sound.

    A file that is in the cache for this size and time of change isn't decoded again. Audio files
    among the videos are returned as they are. Raises `CorpusError` where PyAV is missing or the
    cache can't be written.
    """
    folder = (Path.home() / DEFAULT_CACHE if cache is None else cache) / corpus
    sounds: dict[str, Path] = {}
    waiting: dict[str, tuple[Path, Path]] = {}
    for key, video in videos.items():
        if video.suffix.lower() not in VIDEO_SUFFIXES:
            sounds[key] = video
            continue
        state = video.stat()
        name = f"{key.replace('/', '-')}-{state.st_size}-{state.st_mtime_ns}.wav"
        sounds[key] = folder / name
        if not sounds[key].is_file():
            waiting[key] = (video, sounds[key])
    if not waiting:
        return sounds, {}
    _check_library(corpus)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as threads:
            reasons = dict(zip(waiting, threads.map(_convert, waiting.values()), strict=True))
    except OSError as error:
        raise CorpusError(
            f"{corpus}: can't write {folder}: {error.strerror or error}; give a folder that can be "
            "written as cache"
        ) from error
    failed = {key: reason for key, reason in reasons.items() if reason}
    return {key: path for key, path in sounds.items() if key not in failed}, failed


def decode(video: Path) -> np.ndarray:
    """The first sound track as int16 [S], mono at 16 kHz; raises `NoAudioError`."""
    import av

    blocks = []
    try:
        with av.open(str(video)) as container:
            if not container.streams.audio:
                raise NoAudioError("no sound track")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(audio=0):
                blocks += [part.to_ndarray()[0] for part in resampler.resample(frame)]
            blocks += [part.to_ndarray()[0] for part in resampler.resample(None)]
    except av.FFmpegError as error:
        raise NoAudioError(f"can't be decoded: {error.strerror}") from error
    if not blocks:
        raise NoAudioError("an empty sound track")
    return np.concatenate(blocks)


def _convert(paths: tuple[Path, Path]) -> str:
    """Writes a video's sound beside its place and renames it; the reason where there is none."""
    video, target = paths
    try:
        samples = decode(video)
    except NoAudioError as error:
        return str(error)
    handle, name = tempfile.mkstemp(suffix=".wav", dir=target.parent)
    os.close(handle)
    try:
        soundfile.write(name, samples, SAMPLE_RATE, subtype="PCM_16")
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return ""


def _check_library(corpus: str) -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        raise CorpusError(
            f"{corpus}: its recordings are videos, and PyAV, which reads their sound, isn't "
            "installed: pip install -r requirements-data.txt; or put a WAV file beside each video"
        ) from None
