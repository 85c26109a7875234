"""Fine-tuning the classifier on what is labelled (eq. 9, 16; section 4.3).

Adam, up to 20 epochs, early stopping on the validation loss, best weights kept. The CNN is frozen:
batches are cached features, grouped by length.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from after_model.audio import Utterance
from after_model.classifier import EmotionClassifier
from after_model.classifier.scoring import outputs
from after_model.device import autocast, resolve_device, resolve_precision
from after_model.features import FeatureStore
from after_model.features.batching import collate, length_batches, read_ahead
from after_model.masking import span_mask
from after_model.progress import Progress, silent

TrainingSet = tuple[Sequence[Utterance], np.ndarray]
"""Utterances and their targets [N, C]: rows that sum to 1, one-hot or soft."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a round trains. The defaults are the paper's where it says them.

    patience: epochs without a lower validation loss before it stops. min_steps_per_epoch: with few
    labels an epoch repeats them until it has made this many steps (the paper's "longer
    fine-tuning" in the few-shot regime): 4 labels would otherwise give 20 steps in all. time_mask
    and feature_mask are SpecAugment's (share, span) as in the authors' code.
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


@dataclass(frozen=True)
class TrainingReport:
    """What happened: losses per epoch, the epoch whose weights were kept, the cost.

    validation_losses begins with the untrained state: best_epoch 0 means that training added
    nothing and the weights are as they were given.
    """

    train_losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    steps: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0


def fit(
    classifier: EmotionClassifier,
    store: FeatureStore,
    train: TrainingSet,
    validation: TrainingSet | None = None,
    config: TrainingConfig | None = None,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> TrainingReport:
    """Train the classifier in place; it ends in evaluation mode with the best weights.

    Without validation there is no early stopping: all epochs are made and the last weights kept.
    Classes without a label are no obstacle, nor is a set smaller than a batch. Raises ValueError
    on an empty training set and FloatingPointError when the loss is not finite.
    """
    config = config or TrainingConfig()
    utterances, targets = train
    if len(utterances) == 0:
        raise ValueError("nothing is labelled: training needs at least one utterance")
    started = time.perf_counter()
    where = resolve_device(device)
    precision = resolve_precision(where, config.precision)
    rng = np.random.default_rng(config.seed)
    frames = store.frames(utterances)
    weights = _class_weights(targets).to(where) if config.class_weights else None
    classifier.to(where)
    trained = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=True)
    scaler = torch.amp.GradScaler(where.type, enabled=precision == "fp16")
    report = TrainingReport()
    best, best_epoch, steps, seen = None, 0, 0, 0
    judged = validation is not None and len(validation[0]) > 0

    def judge() -> float:
        assert validation is not None
        return evaluate_loss(classifier, store, validation, device=device, precision=precision)

    if judged:
        report.validation_losses.append(judge())
        best = _trained_state(classifier)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        torch.manual_seed(config.seed)
        for epoch in range(1, config.epochs + 1):
            classifier.train()
            losses = []
            batches = _epoch_batches(frames, config, rng)
            prepared = read_ahead(lambda batch: (batch, collate(store, utterances, batch)), batches)
            for batch, (features, lengths) in prepared:
                time_mask, feature_mask = _augmentation(classifier, lengths, config, rng)
                with autocast(where, precision):
                    logits, _ = classifier(
                        features.to(where),
                        lengths.to(where),
                        time_mask.to(where),
                        feature_mask.to(where),
                    )
                    target = torch.from_numpy(targets[batch]).to(where, torch.float32)
                    loss = F.cross_entropy(logits, target, weight=weights)
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
                scaler.step(optimizer)
                scaler.update()
                losses.append(loss.detach())
                seen += int(lengths.sum())
            steps += len(batches)
            report.train_losses.append(float(torch.stack(losses).mean()))
            if not np.isfinite(report.train_losses[-1]):
                raise FloatingPointError(
                    f"training loss is {report.train_losses[-1]} in epoch {epoch}: lower the "
                    f"learning rate ({config.learning_rate}) or use precision fp32"
                )
            if judged:
                report.validation_losses.append(judge())
                if report.validation_losses[-1] < report.validation_losses[best_epoch]:
                    best_epoch, best = epoch, _trained_state(classifier)
                elif epoch - best_epoch >= config.patience:
                    progress("training", config.epochs, config.epochs)
                    break
            progress("training", epoch, config.epochs)
    if best is not None:
        classifier.load_state_dict(best, strict=False)
    classifier.eval()
    return TrainingReport(
        report.train_losses,
        report.validation_losses,
        best_epoch=best_epoch if best is not None else len(report.train_losses),
        steps=steps,
        audio_seconds=seen / 50,
        seconds=time.perf_counter() - started,
    )


def evaluate_loss(
    classifier: EmotionClassifier,
    store: FeatureStore,
    data: TrainingSet,
    *,
    device: str = "auto",
    precision: str = "fp32",
    max_frames: int | None = None,
) -> float:
    """Mean cross-entropy (eq. 9) over a set, in evaluation mode, nats."""
    utterances, targets = data
    wanted, total = torch.from_numpy(targets).float(), 0.0
    where = resolve_device(device)
    found = outputs(classifier, store, utterances, where, precision, max_frames)
    with contextlib.closing(found):
        for batch, logits, _ in found:
            total += float(F.cross_entropy(logits, wanted[batch], reduction="sum"))
    return total / len(utterances)


def _epoch_batches(
    frames: np.ndarray, config: TrainingConfig, rng: np.random.Generator
) -> list[np.ndarray]:
    """One pass over the data, or as many as min_steps_per_epoch takes."""
    batches: list[np.ndarray] = []
    while not batches or len(batches) < config.min_steps_per_epoch:
        batches += length_batches(frames, batch_size=config.batch_size, rng=rng)
    return batches


def _augmentation(
    classifier: EmotionClassifier,
    lengths: Tensor,
    config: TrainingConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """SpecAugment masks over time [B, T] and over channels [B, H]."""
    channels = np.full(len(lengths), classifier.backbone.hidden_size)
    time_mask = span_mask(lengths.numpy(), int(lengths.max()), *config.time_mask, rng)
    feature_mask = span_mask(channels, channels[0], *config.feature_mask, rng)
    return torch.from_numpy(time_mask), torch.from_numpy(feature_mask)


def _class_weights(targets: np.ndarray) -> Tensor:
    """Inverse class frequency, mean 1 over the labelled utterances; absent classes weigh 0."""
    mass = targets.sum(axis=0)
    present = mass > 0
    weights = np.where(present, len(targets) / (present.sum() * np.maximum(mass, 1e-9)), 0.0)
    return torch.from_numpy(weights.astype(np.float32))


def _trained_state(classifier: EmotionClassifier) -> dict[str, Tensor]:
    """A copy of all that training changes: not the frozen weights, but batch-norm statistics."""
    frozen = {name for name, p in classifier.named_parameters() if not p.requires_grad}
    return {k: v.clone() for k, v in classifier.state_dict().items() if k not in frozen}
