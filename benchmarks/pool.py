"""The recordings that are measured on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from after_model import audio
from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.features.batching import padding_factor
from benchmarks.settings import TooLittleAudio

EXTENSIONS = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
SIBLING = Path(__file__).resolve().parents[2] / "shared" / "corpora"


def recordings(folder: Path | None, seconds: float, seed: int = 0) -> tuple[Path, ...]:
    """Some recordings below a folder in random order, `seconds` of audio in all (0: all there is).

    Without a folder: EmoDB, where AFTER_CORPORA or shared/corpora beside the repository has it,
    else the generated demonstration corpus. Raises TooLittleAudio where there is none.
    """
    chosen = default_folder() if folder is None else folder
    paths = sorted(p for p in chosen.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not paths:
        raise TooLittleAudio(f"{chosen}: no recordings; give another folder with --audio")
    order = np.random.default_rng(seed).permutation(len(paths))
    durations = np.array([audio.probe(paths[i]).duration_s for i in order])
    count = len(paths)
    if seconds > 0:
        count = min(count, int(np.searchsorted(np.cumsum(durations), seconds)) + 1)
    return tuple(paths[i] for i in order[:count])


def default_folder() -> Path:
    """EmoDB's recordings, or generated ones."""
    named = os.environ.get("AFTER_CORPORA")
    for corpora in ([Path(named)] if named else []) + [SIBLING]:
        if (corpora / "EmoDB" / "wav").is_dir():
            return corpora / "EmoDB" / "wav"
    from simulate import data  # here, because it isn't always needed

    return data.load("demo").utterances[0].path.parents[1]


def utterances(paths: Sequence[Path]) -> list[Utterance]:
    return [Utterance(str(path), path) for path in paths]


def samples_of(paths: Sequence[Path]) -> np.ndarray:
    """Lengths [N] in samples at 16 kHz."""
    return np.array([len(audio.load(path)) for path in paths], dtype=np.int64)


def padding(
    backbone: Backbone,
    device: torch.device,
    frames: np.ndarray,
    batches: Sequence[np.ndarray],
    step: int = 1,
) -> float:
    """Frames that our transformer computes per frame needed.

    step: what the frames of a batch are filled up to a multiple of, where it is ragged.
    """
    if not backbone.unpadded(device):
        return padding_factor(frames, batches)
    needed = np.array([frames[batch].sum() for batch in batches])
    return float((-(-needed // step) * step).sum() / needed.sum())
