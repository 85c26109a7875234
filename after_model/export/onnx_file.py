"""The classifier as one ONNX file: a wave of any length -> probabilities.

It needs `onnx` and `onnxruntime` (requirements-export.txt), which checks what was written; whoever
reads the file needs a runtime only.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from after_model.audio import SAMPLE_RATE
from after_model.export.modeling_after import AfterForAudioClassification
from after_model.labels import LabelSpace

NAME = "model.onnx"
OPSET = 17
PACKAGES = ("onnx", "onnxruntime")
TOLERANCE = 1e-4  # of probabilities
_EXAMPLE_S = 31  # two windows of Whisper: one may be traced as if it always were
_CHECKED_S = (0.31, 2.7, 33.3)


class MissingPackage(RuntimeError):
    """A package of requirements-export.txt is not installed; the message says how to get it."""


def check_packages() -> None:
    """Raise MissingPackage unless what is needed can be imported."""
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPackage(
                f"{package} is not installed: pip install -r requirements-export.txt, or leave "
                "ONNX out (--no-onnx)"
            ) from error


class DiffersFromTorch(RuntimeError):
    """What was traced gives other probabilities than the model; the message says how to go on."""


class Probabilities(nn.Module):
    """Decoded audio [1, S] -> probabilities [1, C]; what preparing a wave takes is in it."""

    def __init__(self, model: AfterForAudioClassification, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize

    def forward(self, wave: Tensor) -> Tensor:
        if self.normalize:
            wave = wave - wave.mean()
            wave = wave / (wave.square().mean() + 1e-7).sqrt()
        return self.model.logits(wave).softmax(-1)


def write(
    model: AfterForAudioClassification, normalize: bool, labels: LabelSpace, folder: Path
) -> Path:
    """Write model.onnx: input `wave` float32 [1, samples] at 16 kHz, output `probabilities` [1, C].

    Its metadata has `labels` (JSON) and `sampling_rate`. Raises MissingPackage, and
    DiffersFromTorch where the tracer took for fixed what depends on the recording.
    """
    check_packages()
    import onnx

    path, whole = folder / NAME, Probabilities(model, normalize).eval()
    # torch's newer exporter would need two packages more and fixes the number of windows
    with warnings.catch_warnings(), _quiet(), torch.no_grad():
        warnings.simplefilter("ignore")  # of what the tracer holds constant: it is checked below
        torch.onnx.export(
            whole,
            (_noise(_EXAMPLE_S),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["wave"],
            output_names=["probabilities"],
            dynamic_axes={"wave": {1: "samples"}},
        )
    written = onnx.load(str(path))
    told = {"labels": json.dumps(list(labels.names)), "sampling_rate": str(SAMPLE_RATE)}
    onnx.helper.set_model_props(written, told)
    onnx.save(written, str(path))
    _check(path, whole)
    return path


def _check(path: Path, whole: Probabilities) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for seconds in _CHECKED_S:
        wave = _noise(seconds)
        try:
            (found,) = session.run(None, {"wave": wave.numpy()})
        except Exception as error:  # the runtime's errors have no class of their own
            reason = f"{seconds:g} s can't be computed ({str(error).splitlines()[0]})"
        else:
            with torch.inference_mode():
                off = float((whole(wave) - torch.from_numpy(found)).abs().max())
            if off <= TOLERANCE:
                continue
            reason = f"probabilities of {seconds:g} s are off by {off:.2g}"
        raise DiffersFromTorch(
            f"{path.name}: {reason}: this encoder can't be traced; leave ONNX out (--no-onnx)"
        )


def _noise(seconds: float) -> Tensor:
    """[1, S] that swells and fades, always the same."""
    samples = int(seconds * SAMPLE_RATE)
    swell = torch.linspace(0, 9, samples).sin()
    return 0.1 * swell * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
