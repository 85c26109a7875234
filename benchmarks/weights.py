"""One set of weights for both contestants, on disk in the form that each of them loads.

    prepare(settings, "after-tiny")
    classifier = EmotionClassifier.load(folder / CLASSIFIER)    # ours
    model = load_plain(folder / CLASSIFIER)                     # a peer's: benchmarks.plain
    model = AutoModelForAudioClassification.from_pretrained(folder / PEER)

What a checkpoint doesn't hold is random: the classifier's head, the quantizer.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from after_model import audio
from after_model import backbone as backbones
from after_model.backbone import Backbone
from after_model.classifier import EmotionClassifier, LinearHead, new_classifier
from after_model.labels import LabelSpace
from benchmarks.plain import load_plain
from benchmarks.settings import CLASSES, LeftOut, Settings

CLASSIFIER = "classifier"  # EmotionClassifier: the default states and head
FINE_TUNED = "last-state"  # the paper's: mean of the last state
PEER = "sequence-classification"  # that as transformers has it
ONNX = "classifier.onnx"
INT8 = "classifier-int8.onnx"
PRETRAINING = "pretraining"  # Wav2Vec2ForPreTraining; both load it
BASE = "base"
MASK_LENGTH = 10
MASK_PROB = 0.65  # of span starts times length, as in wav2vec 2.0: 49 % of the frames masked


class Preparation:
    """Writes the weights; a contestant of its own, so that the coordinating process stays small."""

    def __init__(self, settings: Settings, backbone: str) -> None:
        self._settings = settings
        self._backbone = backbone

    def write(self) -> dict[str, int | str | bool]:
        """Returns what the backbone is: name, family, parameters, group_norm, states pooled."""
        settings, folder = self._settings, self._settings.weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            backbone = load_backbone(self._backbone)
            names = tuple(f"class {i}" for i in range(CLASSES))
            default = new_classifier(backbone, CLASSES, seed=settings.seed)
            _spread(default, settings.recordings[:8])
            default.save(folder / CLASSIFIER, LabelSpace(names))
            # the states and the head that transformers has, too
            last = new_classifier(backbone, CLASSES, "linear", settings.seed, states="last")
            _spread(last, settings.recordings[:8])
            last.save(folder / FINE_TUNED, LabelSpace(names))
            if backbone.family != "whisper":
                _sequence_classifier(last).save_pretrained(folder / PEER)
                _extractor(backbone).save_pretrained(folder / PEER)
            if backbone.family == "wav2vec2":
                _pretraining_model(backbone).save_pretrained(folder / PRETRAINING)
                _extractor(backbone).save_pretrained(folder / PRETRAINING)
        return {
            "backbone": self._backbone,
            "family": backbone.family,
            "parameters": sum(p.numel() for p in backbone.parameters()),
            "group_norm": getattr(backbone.config, "feat_extract_norm", "") == "group",
            "states": ", ".join(map(str, default.states)),
        }


def export(settings: Settings) -> None:
    """Write ONNX and INT8 of the classifier where they are not yet; LeftOut without the packages.

    A recording at a time, of any length.
    """
    for package in ("onnx", "onnxruntime"):
        needed(package)
    folder = settings.weights
    if (folder / INT8).exists():
        return
    model = load_plain(folder / CLASSIFIER)
    example = torch.from_numpy(model.inputs(audio.load(settings.recordings[0])))[None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracing exporter, which needs no further package
        torch.onnx.export(
            model,
            (example,),
            str(folder / ONNX),
            dynamo=False,
            opset_version=17,
            input_names=["inputs"],
            output_names=["logits"],
            dynamic_axes={"inputs": {example.dim() - 1: "length"}},
        )
    quantization = needed("onnxruntime.quantization")
    logging.disable(logging.WARNING)  # it advises on convolutional networks
    quantization.quantize_dynamic(
        str(folder / ONNX),
        str(folder / INT8),
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm"],  # as for transformers
    )
    logging.disable(logging.NOTSET)


def needed(package: str) -> Any:
    """The module, or LeftOut that says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = f"{package} is not installed: pip install -r requirements-bench.txt"
        raise LeftOut(reason) from error


def load_backbone(name: str) -> Backbone:
    """A backbone by name or folder, or random weights: "base", or a configuration's path (.json).

    "base" has the size of wav2vec2-base.
    """
    if name != BASE and not name.endswith(".json"):
        return backbones.load(name)
    # Layers dropped at random would only make the timings noisy.
    config = (
        transformers.Wav2Vec2Config(layerdrop=0.0)
        if name == BASE
        else transformers.AutoConfig.from_pretrained(name)
    )
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(
            do_normalize=True, return_attention_mask=config.feat_extract_norm == "layer"
        ).save_pretrained(folder)
        return backbones.load(folder)


def _spread(classifier: EmotionClassifier, recordings: tuple[Path, ...]) -> None:
    """Give the head weights that spread the probabilities, as trained ones do.

    A fresh head calls everything equally likely, which would hide differences.
    """
    backbone, head = classifier.backbone, classifier.head
    assert isinstance(head, LinearHead)
    rows = []
    with torch.inference_mode():
        for path in recordings:
            wave = torch.from_numpy(backbone.prepare(audio.load(path)))
            rows.append(
                classifier(*backbone.encode_cnn(wave[None], torch.tensor([len(wave)])))[1][0]
            )
    pooled = torch.stack(rows)
    scale = pooled.std(0).clamp_min(1e-3) if len(rows) > 1 else torch.ones(pooled.shape[1])
    with torch.no_grad():
        random = torch.randn(head.linear.weight.shape) * 2 / np.sqrt(pooled.shape[1])
        head.linear.weight.copy_(random / scale)
        head.linear.bias.copy_(-head.linear.weight @ pooled.mean(0))


def _sequence_classifier(classifier: EmotionClassifier) -> transformers.PreTrainedModel:
    """transformers' classifier with the same outputs: projector -> mean -> classifier, where the
    projector is the identity."""
    backbone = classifier.backbone
    names = [str(i) for i in range(CLASSES)]
    config = backbone.config.__class__.from_dict(
        backbone.config.to_dict()
        | {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "classifier_proj_size": backbone.hidden_size,
            "use_weighted_layer_sum": False,
        }
    )
    model = transformers.AutoModelForAudioClassification.from_config(config)
    assert isinstance(classifier.head, LinearHead)
    model.base_model.load_state_dict(backbone.model.state_dict())
    with torch.no_grad():
        model.projector.weight.copy_(torch.eye(backbone.hidden_size))
        model.projector.bias.zero_()
        model.classifier.load_state_dict(classifier.head.linear.state_dict())
    return model


def _pretraining_model(backbone: Backbone) -> transformers.PreTrainedModel:
    config = backbone.config.__class__.from_dict(
        backbone.config.to_dict()
        | {"mask_time_prob": MASK_PROB, "mask_time_length": MASK_LENGTH, "mask_feature_prob": 0.0}
    )
    model = transformers.Wav2Vec2ForPreTraining(config)
    model.base_model.load_state_dict(backbone.model.state_dict())
    return model


def _extractor(backbone: Backbone) -> transformers.Wav2Vec2FeatureExtractor:
    """Its attention mask as the checkpoint family wants it: none where a group norm was trained
    without."""
    return transformers.Wav2Vec2FeatureExtractor(
        do_normalize=backbone.normalize,
        return_attention_mask=backbone.config.feat_extract_norm == "layer",
    )
