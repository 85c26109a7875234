"""Emotions of any recordings by a model on disk, one recording after the other.

    classifier, labels = load(folder)                          # a version, a model store, an export
    for found in predict(classifier, find(["recordings", "*.wav"])): ...

Nothing is kept on disk, and nothing is padded: what a recording gets is exact in float32.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from after_model import audio
from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits
from after_model.classifier import EmotionClassifier
from after_model.device import resolve_device, side_by_side
from after_model.features.batching import read_ahead
from after_model.labels import LabelSpace
from after_model.progress import Progress, silent

_MADE = "classifier.json"  # what every model's folder holds


class ModelNotFound(ValueError):
    """A folder that holds no model; the message says which would."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of a recording: probs float64 [C]; or None, and error says why."""

    path: Path
    probs: np.ndarray | None = None
    error: AudioError | None = None


def model_folder(folder: Path) -> Path:
    """Where a model's files are: the folder, the version that serves in a model store, or that of
    a learner's folder (`models` in it). Raises ModelNotFound.
    """
    for store in (folder, folder / "models"):
        if (store / _MADE).is_file():
            return store
        current = store / "current"
        if current.is_file() and (store / "versions").is_dir():
            version = store / "versions" / current.read_text(encoding="utf-8").strip()
            if (version / _MADE).is_file():
                return version
    reason = "does not exist" if not folder.exists() else f"holds no {_MADE} and no model store"
    raise ModelNotFound(
        f"{folder}: {reason}; give a version of a learner (LEARNER/models/versions/NAME), a "
        "learner's folder, or one that `export` wrote"
    )


def load(folder: Path) -> tuple[EmotionClassifier, LabelSpace]:
    """The model of a folder as model_folder() finds it, on the CPU."""
    return EmotionClassifier.load(model_folder(folder))


def find(named: Sequence[str]) -> list[Path]:
    """Recordings by file, folder (all below, hidden ones left out) or pattern, each once, in order.

    A file that is named is there whatever its suffix, and if it doesn't exist: reading it will
    say so. Raises ValueError for a folder or pattern without any recording.
    """
    found: dict[Path, None] = {}
    for name in named:
        if Path(name).is_dir():
            here = audio.below(Path(name))
        elif glob.has_magic(name) and not Path(name).exists():
            here = [p for n in sorted(glob.glob(name, recursive=True)) for p in _files(Path(n))]
        else:
            here = [Path(name)]
        if not here:
            kinds = ", ".join(sorted(audio.EXTENSIONS))
            raise ValueError(f"{name}: no recording there; looked for {kinds}")
        found |= dict.fromkeys(here)
    return list(found)


def predict(
    classifier: EmotionClassifier,
    paths: Sequence[Path],
    *,
    limits: AudioLimits = DEFAULT_LIMITS,
    device: str = "auto",
    progress: Progress = silent,
) -> Iterator[Prediction]:
    """One Prediction a path, in order, as they are computed."""
    where = resolve_device(device)
    classifier.to(where).eval()
    backbone = classifier.backbone

    def decode(path: Path) -> tuple[Path, np.ndarray | AudioError]:
        try:
            return path, backbone.prepare(audio.load(path, limits))
        except AudioError as error:
            return path, error

    def judge(decoded: tuple[Path, np.ndarray | AudioError]) -> Prediction:
        path, wave = decoded
        if isinstance(wave, AudioError):
            return Prediction(path, error=wave)
        with torch.inference_mode():
            samples = torch.tensor([len(wave)], device=where)
            given = torch.from_numpy(wave)[None].to(where)
            logits, _ = classifier(*backbone.encode_cnn(given, samples))
            return Prediction(path, logits[0].double().softmax(-1).cpu().numpy())

    with contextlib.ExitStack() as laid_out:
        if where.type == "cpu":
            laid_out.enter_context(backbone.fixed_stem())
            laid_out.enter_context(backbone.fixed_transformer())
            results = side_by_side(lambda path: judge(decode(path)), paths)
        else:
            results = map(judge, read_ahead(decode, paths))
        for done, result in enumerate(results, start=1):
            progress("predicting", done, len(paths))
            yield result


def _files(path: Path) -> list[Path]:
    return audio.below(path) if path.is_dir() else [path]
