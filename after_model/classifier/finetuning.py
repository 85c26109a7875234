"""Fine-tuning the classifier on what is labelled (eq. 9, 16; section 4.3).

Adam, up to 20 epochs, early stopping on the validation loss, best weights kept; what trains, and at
which rates, is in after_model.classifier.recipe. The CNN is frozen: batches are cached features,
grouped by length.
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

from after_model.audio import AudioError, Utterance
from after_model.classifier import EmotionClassifier
from after_model.classifier.recipe import (
    TrainingConfig,
    new_optimizer,
    new_schedule,
    trainable,
)
from after_model.classifier.scoring import outputs
from after_model.device import autocast, resolve_device, resolve_precision
from after_model.features import FeatureStore
from after_model.features.batching import collate, length_batches, read_ahead
from after_model.masking import span_mask
from after_model.memory import Room, give_back
from after_model.progress import Progress, silent

__all__ = ["TrainingConfig", "TrainingReport", "TrainingSet", "evaluate_loss", "fit"]

FRAMES_PER_SECOND = 50
STEPS_BETWEEN_TIDYING = 4  # after each step it would take some percent of the time

TrainingSet = tuple[Sequence[Utterance], np.ndarray]
"""Utterances and their targets [N, C]: rows that sum to 1, one-hot or soft."""


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
    classifier.to(where)
    report = TrainingReport()
    best, best_epoch, steps, seen = None, 0, 0, 0
    judged = validation is not None and len(validation[0]) > 0

    def judge() -> float:
        assert validation is not None
        return evaluate_loss(classifier, store, validation, device=device, precision=precision)

    with (
        torch.random.fork_rng(devices=[where] if where.type == "cuda" else []),
        contextlib.ExitStack() as stack,
    ):
        torch.manual_seed(config.seed)
        stack.enter_context(trainable(classifier, config))
        if judged:
            report.validation_losses.append(judge())
            best = _trained_state(classifier)
        update = _Update(classifier, targets, config, where, precision, frames)
        for epoch in range(1, config.epochs + 1):
            classifier.train()
            losses = []
            batches = _epoch_batches(frames, config, rng)
            prepared = read_ahead(lambda batch: (batch, collate(store, utterances, batch)), batches)
            for batch, (features, lengths) in prepared:
                masks = _augmentation(classifier, lengths, config, rng)
                losses.append(update(batch, features, lengths, *masks))
                seen += int(lengths.sum())
                if len(losses) % STEPS_BETWEEN_TIDYING == 0:
                    give_back()
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
        audio_seconds=seen / FRAMES_PER_SECOND,
        seconds=time.perf_counter() - started,
    )


class _Update:
    """One optimizer step on a batch, computed in as many parts as memory takes."""

    def __init__(
        self,
        classifier: EmotionClassifier,
        targets: np.ndarray,
        config: TrainingConfig,
        device: torch.device,
        precision: str,
        frames: np.ndarray,
    ) -> None:
        self.classifier, self.config = classifier, config
        self.device, self.precision = device, precision
        self.targets = torch.from_numpy(targets).float()
        self.weights = _class_weights(targets).to(device) if config.class_weights else None
        self.trained = [p for p in classifier.parameters() if p.requires_grad]
        self.optimizer = new_optimizer(classifier, config)
        steps = config.epochs * _steps_per_epoch(len(frames), config)
        self.schedule = new_schedule(self.optimizer, config, steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.room = Room(max(1, round(config.max_batch_seconds * FRAMES_PER_SECOND)))

    def __call__(
        self,
        batch: np.ndarray,
        features: Tensor,
        lengths: Tensor,
        time_mask: Tensor,
        feature_mask: Tensor,
    ) -> Tensor:
        """Update the weights; the batch's mean loss, on the device."""
        targets = self.targets[batch]

        def gradients(parts: list[np.ndarray]) -> Tensor:
            self.optimizer.zero_grad()
            total = torch.zeros((), device=self.device)
            for part in parts:
                rows, longest = slice(part[0], part[-1] + 1), int(lengths[part].max())
                given = (
                    features[rows, :longest],
                    lengths[rows],
                    time_mask[rows, :longest],
                    feature_mask[rows],
                )
                with autocast(self.device, self.precision):
                    logits, _ = self.classifier(*(value.to(self.device) for value in given))
                    loss = F.cross_entropy(
                        logits,
                        targets[rows].to(self.device),
                        weight=self.weights,
                        label_smoothing=self.config.label_smoothing,
                    )
                loss = loss * (len(part) / len(batch))  # together the mean over the batch
                self.scaler.scale(loss).backward()
                total += loss.detach()
            return total

        loss = self.room.fit(lengths.numpy(), gradients)
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.trained, self.config.max_grad_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # lower after a step that fp16 made it leave out
            self.schedule.step()
        return loss


def evaluate_loss(
    classifier: EmotionClassifier,
    store: FeatureStore,
    data: TrainingSet,
    *,
    device: str = "auto",
    precision: str = "fp32",
    max_frames: int | None = None,
) -> float:
    """Mean cross-entropy (eq. 9) over a set, in evaluation mode, nats.

    Recordings that can't be read don't count; where none can, the first one's AudioError is raised.
    """
    utterances, targets = data
    wanted, total = torch.from_numpy(targets).float(), 0.0
    where = resolve_device(device)
    unreadable: dict[int, AudioError] = {}
    found = outputs(classifier, store, utterances, where, precision, max_frames, unreadable)
    with contextlib.closing(found):
        for batch, logits, _ in found:
            total += float(F.cross_entropy(logits, wanted[batch], reduction="sum"))
    if len(unreadable) == len(utterances):
        raise unreadable[0]
    return total / (len(utterances) - len(unreadable))


def _epoch_batches(
    frames: np.ndarray, config: TrainingConfig, rng: np.random.Generator
) -> list[np.ndarray]:
    """One pass over the data, or as many as min_steps_per_epoch takes."""
    batches: list[np.ndarray] = []
    while not batches or len(batches) < config.min_steps_per_epoch:
        batches += length_batches(frames, batch_size=config.batch_size, rng=rng)
    return batches


def _steps_per_epoch(count: int, config: TrainingConfig) -> int:
    """How many batches _epoch_batches() makes of so many utterances."""
    once = -(-count // config.batch_size)
    return once * -(-config.min_steps_per_epoch // once)


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
