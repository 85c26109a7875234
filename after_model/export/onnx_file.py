"""The classifier as one ONNX file: a wave of any length -> probabilities.

It needs `onnx` (requirements-export.txt); whoever reads the file needs an ONNX runtime only.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from after_model.audio import SAMPLE_RATE
from after_model.export.modeling_after import AfterForAudioClassification
from after_model.labels import LabelSpace

NAME = "model.onnx"
OPSET = 17
_LONG_S = 35  # of the example: what is one window may be traced as if it always were


class MissingPackage(RuntimeError):
    """A package of requirements-export.txt is not installed; the message says how to get it."""


def needed(package: str) -> None:
    """Raise MissingPackage unless the package can be imported."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingPackage(
            f"{package} is not installed: pip install -r requirements-export.txt"
        ) from error


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

    Its metadata has `labels` (JSON) and `sampling_rate`. Raises MissingPackage without onnx.
    """
    needed("onnx")
    import onnx

    path = folder / NAME
    example = torch.randn(1, _LONG_S * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    # torch's newer exporter needs two packages more (onnxscript, onnx-ir) and fixes window numbers
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of what the tracer holds constant: tests look at it
            torch.onnx.export(
                Probabilities(model, normalize).eval(),
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["wave"],
                output_names=["probabilities"],
                dynamic_axes={"wave": {1: "samples"}},
            )
    finally:
        logging.disable(logging.NOTSET)
    written = onnx.load(str(path))
    told = {"labels": json.dumps(list(labels.names)), "sampling_rate": str(SAMPLE_RATE)}
    onnx.helper.set_model_props(written, told)
    onnx.save(written, str(path))
    return path
