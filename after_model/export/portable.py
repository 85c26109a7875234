"""The classifier as a folder that both after_model and transformers read.

What transformers has a class for (the paper's head on one state of a wav2vec 2.0 and its kin) is
written as that class. Everything else is `modeling_after.AfterForAudioClassification`, whose source
goes along. Either way the encoder is under transformers' own names, so that AutoModel, and
after_model.backbone.load, read it alone.
"""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from after_model.backbone.base import quiet_transformers
from after_model.backbone.whisper import WhisperBackbone
from after_model.classifier import EmotionClassifier
from after_model.export import modeling_after
from after_model.export.modeling_after import AfterForAudioClassification
from after_model.labels import LabelSpace

MODELING = Path(modeling_after.__file__)
_UNUSED = -1e4  # weight of a state before the softmax that leaves nothing of it


def portable(classifier: EmotionClassifier, labels: LabelSpace) -> AfterForAudioClassification:
    """The classifier as transformers alone computes it, on the CPU in evaluation mode."""
    backbone = classifier.backbone
    config = _config(classifier, labels)
    config.after = {
        "head": classifier.head_name,
        "states": list(classifier.states),
        "weighted": classifier.state_weights is not None,
        "adapter": None,
    }
    adapter = getattr(classifier, "adapter", None)
    if adapter is not None:
        config.after["adapter"] = {"size": adapter.size, "share": adapter.share}
    if isinstance(backbone, WhisperBackbone):
        config.after |= {"hop": backbone.hop, "window": backbone.window_size}
    with torch.random.fork_rng(devices=[]):
        model = AfterForAudioClassification(config)
    own = backbone.model.state_dict()
    if isinstance(backbone, WhisperBackbone):
        own.pop("masked_spec_embed")
        own = {"encoder.layer_norm.weight": torch.ones(config.d_model),
               "encoder.layer_norm.bias": torch.zeros(config.d_model),
               **{f"encoder.{name}": weight for name, weight in own.items()},
               "basis": _fourier(backbone.window), "mel_filters": backbone.mel_filters}  # fmt: skip
    else:
        own = {f"{model.encoder_name}.{name}": weight for name, weight in own.items()}
    own |= {"state_mean": classifier.state_mean, "state_std": classifier.state_std}
    own |= {f"classifier.{k}": v for k, v in classifier.head.linear.state_dict().items()}
    if classifier.state_weights is not None:
        own["state_weights"] = classifier.state_weights
    if adapter is not None:
        own |= {f"adapter.{k}": v for k, v in adapter.state_dict().items()}
    model.load_state_dict(own)
    return model.eval()


def write(classifier: EmotionClassifier, labels: LabelSpace, folder: Path) -> str:
    """Write the folder; the name of the class in transformers that reads it."""
    classifier.save(folder, labels)  # config, preprocessor, head and what after_model needs
    if _has_class(classifier):
        model: Any = _native(classifier, labels)
    else:
        model = portable(classifier, labels)
        model.config.auto_map = {
            "AutoModelForAudioClassification": f"{MODELING.stem}.{type(model).__name__}"
        }
        shutil.copyfile(MODELING, folder / MODELING.name)
    model.config.architectures = [type(model).__name__]
    weights = model.state_dict()
    if classifier.backbone.family == "whisper":
        weights["encoder.masked_spec_embed"] = classifier.backbone.model.masked_spec_embed
        if not getattr(model.config, "final_layer_norm", True):
            weights = {k: v for k, v in weights.items() if "encoder.layer_norm" not in k}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    return type(model).__name__


def _config(classifier: EmotionClassifier, labels: LabelSpace) -> Any:
    config = copy.deepcopy(classifier.backbone.config)
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: i for i, name in enumerate(labels.names)}
    config._attn_implementation = "eager"  # fused attention has no operator in ONNX
    return config


def _has_class(classifier: EmotionClassifier) -> bool:
    """Whether transformers' own class says the same: one state, its mean, a linear layer."""
    return (
        classifier.backbone.family != "whisper"
        and classifier.head_name == "linear"
        and len(classifier.states) == 1
        and getattr(classifier, "adapter", None) is None
        and not getattr(classifier.backbone.config, "add_adapter", False)
    )


def _native(classifier: EmotionClassifier, labels: LabelSpace) -> Any:
    """transformers' ...ForSequenceClassification; the standardisation goes into its last layer."""
    config, (state,) = _config(classifier, labels), classifier.states
    config.classifier_proj_size = config.hidden_size
    config.use_weighted_layer_sum = state != classifier.backbone.num_layers
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        model = transformers.AutoModelForAudioClassification.from_config(config)
    getattr(model, model.base_model_prefix).load_state_dict(classifier.backbone.model.state_dict())
    linear, mean, std = classifier.head.linear, classifier.state_mean[0], classifier.state_std[0]
    with torch.no_grad():
        nn.init.eye_(model.projector.weight)
        nn.init.zeros_(model.projector.bias)
        model.classifier.weight.copy_(linear.weight / std)
        model.classifier.bias.copy_(linear.bias - (linear.weight / std) @ mean)
        if config.use_weighted_layer_sum:
            nn.init.constant_(model.layer_weights, _UNUSED)
            model.layer_weights[state] = 0.0
    return model.eval()


def _fourier(window: Tensor) -> Tensor:
    """Windowed cosines, then sines, float32 [2 * bins, 1, window]."""
    size = len(window)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / size * bins[:, None] * torch.arange(size, dtype=torch.float64)
    return (torch.cat([angle.cos(), angle.sin()]) * window.double()).float()[:, None]
