"""How a round trains: the settings, what of the classifier they train and at which rates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from after_model.backbone import Backbone
from after_model.classifier.adapters import add_lora, merge_lora
from after_model.classifier.model import EmotionClassifier
from after_model.device import PRECISIONS

SCHEDULES = ("constant", "linear", "cosine")
ADAPTERS = ("none", "lora")


@dataclass(frozen=True)
class TrainingConfig:
    """How a round trains. The defaults are the paper's where it says them.

    epochs: at most. patience: epochs without a lower validation loss before it stops.
    min_steps_per_epoch: with few labels an epoch repeats them until it has made this many steps
        (the paper's "longer fine-tuning" in the few-shot regime): 4 labels would otherwise give 20
        steps in all.
    batch_size: utterances an optimizer step. max_batch_seconds: audio computed at once, padding
        included; a larger batch is computed in parts whose gradients add up to the same step. 16
        utterances of 10 s are one part; 16 of 120 s would take twelve times their memory.
    learning_rate: of the transformer; head_learning_rate: of the head (None: the same).
        layer_decay: each transformer layer learns at this share of the rate of the one above it,
        and what lies below the first at that of a layer below it; 1 is one rate for all.
    schedule: "constant", or "linear" or "cosine" to 0 at the last epoch; warmup_share: of all
        steps, during which the rates rise from 0.
    weight_decay: AdamW's, on matrices; 0 is Adam. label_smoothing: share of a target that is
        spread over all classes; the validation loss has none.
    train_layers: only so many of the uppermost transformer layers, and the head, are trained (None:
        all, and what lies below them; 0: the head).
    adapter: "lora" trains, of these layers, a part of rank lora_rank of each matrix, scaled by
        lora_alpha / lora_rank, and the head; in the end it is merged.
    class_weights: classes weigh the inverse of how often they are labelled.
    time_mask and feature_mask are SpecAugment's (share, span) as in the authors' code.
    """

    epochs: int = 20
    patience: int = 3
    batch_size: int = 16
    min_steps_per_epoch: int = 5
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    class_weights: bool = False
    time_mask: tuple[float, int] = (0.08, 15)
    feature_mask: tuple[float, int] = (0.05, 64)
    precision: str = "auto"
    seed: int = 0
    max_batch_seconds: float = 160.0
    head_learning_rate: float | None = None
    layer_decay: float = 1.0
    schedule: str = "constant"
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    train_layers: int | None = None
    adapter: str = "none"
    lora_rank: int = 8
    lora_alpha: float = 16.0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "min_steps_per_epoch", "lora_rank"):
            self._check(getattr(self, name) >= 1, name, "a whole number from 1 on")
        for name in ("max_grad_norm", "max_batch_seconds", "lora_alpha"):
            self._check(getattr(self, name) > 0, name, "a number above 0")
        for name in ("learning_rate", "weight_decay"):
            self._check(getattr(self, name) >= 0, name, "a number from 0 on")
        rate, layers = self.head_learning_rate, self.train_layers
        self._check(rate is None or rate >= 0, "head_learning_rate", "a number from 0 on, or None")
        self._check(layers is None or layers >= 0, "train_layers", "a number from 0 on, or None")
        self._check(0 < self.layer_decay <= 1, "layer_decay", "above 0 and at most 1")
        for name in ("warmup_share", "label_smoothing"):
            self._check(0 <= getattr(self, name) < 1, name, "from 0 on and below 1")
        for name in ("time_mask", "feature_mask"):
            share, span = getattr(self, name)
            self._check(0 <= share < 1 and span >= 1, name, "(share below 1, span from 1 on)")
        self._check(self.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}")
        self._check(self.adapter in ADAPTERS, "adapter", f"one of {', '.join(ADAPTERS)}")
        self._check(self.precision in PRECISIONS, "precision", f"one of {', '.join(PRECISIONS)}")

    def _check(self, fine: bool, field: str, allowed: str) -> None:
        if not fine:
            found = getattr(self, field)
            raise ValueError(f"TrainingConfig.{field} is {found!r}; it must be {allowed}")


@contextlib.contextmanager
def trainable(classifier: EmotionClassifier, config: TrainingConfig) -> Iterator[None]:
    """Within it requires_grad is on for what the settings train, of what it was on for.

    Afterwards it is as it was, and adapters are merged.
    """
    before = {p: p.requires_grad for p in classifier.parameters()}
    blocks = list(transformer_layers(classifier.backbone))
    count = len(blocks) if config.train_layers is None else min(config.train_layers, len(blocks))
    upper = blocks[len(blocks) - count :]
    adapted: list[nn.Linear] = []
    if config.adapter == "lora":
        classifier.backbone.requires_grad_(False)
        adapted = add_lora(upper, config.lora_rank, config.lora_alpha)
    elif config.train_layers is not None:
        heights = _heights(classifier.backbone)
        for parameter in classifier.backbone.parameters():
            if heights[parameter] <= len(blocks) - count:
                parameter.requires_grad_(False)
    try:
        yield
    finally:
        merge_lora(adapted)
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)


def transformer_layers(backbone: Backbone) -> nn.ModuleList:
    """The blocks of the transformer, the lowest first."""
    layers = getattr(backbone.model, "encoder", backbone.model).layers
    assert isinstance(layers, nn.ModuleList)
    return layers


def parameter_groups(classifier: EmotionClassifier, config: TrainingConfig) -> list[dict[str, Any]]:
    """What has requires_grad, by rate and weight decay, for a torch optimizer."""
    heights = _heights(classifier.backbone)
    top = len(transformer_layers(classifier.backbone))
    head_rate = config.head_learning_rate
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in classifier.parameters():
        if not parameter.requires_grad:
            continue
        if parameter in heights:
            rate = config.learning_rate * config.layer_decay ** (top - heights[parameter])
        else:
            rate = config.learning_rate if head_rate is None else head_rate
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": p, "lr": r, "weight_decay": d} for (r, d), p in groups.items()]


def new_optimizer(classifier: EmotionClassifier, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam, or AdamW where weights decay, over what has requires_grad."""
    kind = torch.optim.AdamW if config.weight_decay > 0 else torch.optim.Adam
    return kind(parameter_groups(classifier, config), lr=config.learning_rate, fused=True)


def new_schedule(optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int) -> Any:
    """The course of the rates over so many steps."""
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return transformers.get_scheduler(name, optimizer, round(config.warmup_share * steps), steps)


def _heights(backbone: Backbone) -> dict[nn.Parameter, int]:
    """How high each parameter lies: 1 in the first transformer layer, 0 below it."""
    layers = transformer_layers(backbone)
    heights = dict.fromkeys(backbone.parameters(), 0)
    for height, layer in enumerate(layers, start=1):
        heights.update(dict.fromkeys(layer.parameters(), height))
    config = backbone.config
    if config.model_type == "whisper" or getattr(config, "do_stable_layer_norm", False):
        last = getattr(backbone.model, "encoder", backbone.model).layer_norm  # after all layers
        heights.update(dict.fromkeys(last.parameters(), len(layers)))
    return heights
