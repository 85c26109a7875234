"""Fixtures that every test may use: the real corpora where they are, and audio files on demand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora: AFTER_CORPORA, or shared/corpora beside the repository."""
    named = os.environ.get("AFTER_CORPORA")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"no corpora in {folder}; set AFTER_CORPORA to the folder that has them")
    return folder


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """write_wav(name="a.wav", samples=None, rate=16_000, **soundfile_options) -> path.

    `samples` is [S] or [S, channels]; without it, a second of a 440 Hz sine.
    """

    def write(
        name: str = "a.wav",
        samples: np.ndarray | None = None,
        rate: int = 16_000,
        **options: str,
    ) -> Path:
        if samples is None:
            samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, **options)
        return path

    return write
