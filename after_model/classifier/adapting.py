"""Training an adapter on a frozen encoder: seconds, since no transformer layer is run twice.

    frames = read_frames(classifier, store, utterances)     # once, for any number of trainings
    fit_adapter(classifier, frames, rows, targets, heads, config)
    logits = judge(classifier, frames, others)

classifier.head is a probe's and stays as it is. A head that has seen a recording is sure of it
whatever the adapter does, so with enough labels each recording is trained through a head that was
fitted without its speaker (`probe.cross_fitted`), and the probe's own is for what nobody has seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from after_model.audio import AudioError, Utterance
from after_model.backbone import frame_mask
from after_model.classifier.finetuning import TrainingReport
from after_model.classifier.frame_adapter import FrameAdapter, new_adapter
from after_model.classifier.model import EmotionClassifier, pool
from after_model.classifier.probe import Heads
from after_model.classifier.scoring import outputs
from after_model.device import resolve_device, single_threaded
from after_model.features import FeatureStore
from after_model.progress import Progress, silent

MAX_BYTES = 512 * 2**20
"""Of frames in memory: half precision, three hours of Whisper-base's. Longer sets are thinned."""
MOST = 500
"""Frames of one recording in one step: ten seconds' worth say what its pooled states are."""
WARM_UP = 10  # steps


@dataclass(frozen=True)
class AdapterConfig:
    """How an adapter is trained: AdamW, rates that rise for 10 steps and fall by a cosine.

    size: numbers that a frame goes through. share: of what is pooled for predictions, that of
    adapted frames; the rest is the probe's. epochs: with cross-fitted heads; alone_epochs: with the
    probe's own; steps: at most, but for one epoch, so that many labels take little longer. kept:
    share of a recording's frames, drawn anew in every epoch. averaging: of the weights over the
    steps, exponentially. heads: how many are cross-fitted, from heads_from labels on; with fewer
    each would lack too many.
    """

    size: int = 64
    share: float = 0.5
    epochs: int = 10
    alone_epochs: int = 20
    steps: int = 200
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 32
    kept: float = 0.5
    averaging: float = 0.95
    heads: int = 4
    heads_from: int = 150

    def __post_init__(self) -> None:
        for name in ("size", "epochs", "alone_epochs", "steps", "batch_size", "heads_from"):
            self._check(getattr(self, name) >= 1, name, "a whole number from 1 on")
        self._check(self.heads >= 2, "heads", "a whole number from 2 on")
        for name in ("share", "kept"):
            self._check(0 < getattr(self, name) <= 1, name, "above 0 and at most 1")
        for name in ("learning_rate", "weight_decay"):
            self._check(getattr(self, name) >= 0, name, "a number from 0 on")
        self._check(0 <= self.averaging < 1, "averaging", "from 0 on and below 1")

    def _check(self, fine: bool, field: str, allowed: str) -> None:
        if not fine:
            found = getattr(self, field)
            raise ValueError(f"AdapterConfig.{field} is {found!r}; it must be {allowed}")


@dataclass(frozen=True)
class Frames:
    """What an adapter reads of N recordings, as a frozen encoder gives it.

    values: of the highest pooled state, float16 [F, H], one recording after the other, recording i
    from starts[i] to starts[i + 1]; none of one that can't be read. pooled: every state without an
    adapter, float32 [N, S, R].
    """

    values: np.ndarray
    starts: np.ndarray
    pooled: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """bool [N]."""
        return np.diff(self.starts) > 0

    def take(self, rows: np.ndarray) -> Frames:
        """Those of some of the recordings, in that order."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], counts.cumsum()])
        at = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], counts)
        return Frames(self.values[at], starts, self.pooled[rows])


def read_frames(
    classifier: EmotionClassifier,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    device: str = "auto",
    max_bytes: int = MAX_BYTES,
    progress: Progress = silent,
) -> Frames:
    """Run the encoder over recordings once; its head and adapter don't matter.

    Where all frames would take more than max_bytes, each recording gives evenly spread ones, as
    many as fit. What its states are pooled into is of all of them in any case.
    """
    unreadable: dict[int, AudioError] = {}
    lengths = store.frames(utterances, unreadable)
    reader, hidden = _Reader(classifier), classifier.backbone.hidden_size
    most = _most(lengths, max_bytes // (2 * hidden))
    starts = np.concatenate([[0], np.minimum(lengths, most).cumsum()])
    values = np.zeros((starts[-1], hidden), np.float16)
    pooled = np.zeros(
        (len(utterances), len(classifier.states), classifier.representation_size), np.float32
    )
    found = outputs(
        reader, store, utterances, resolve_device(device), "fp32", unreadable=unreadable
    )
    done = 0
    for batch, flat, vectors in found:
        pooled[batch] = vectors.numpy().reshape(len(batch), *pooled.shape[1:])
        for row, own in zip(batch, flat.split(lengths[batch].tolist()), strict=True):
            begin, end = starts[row], starts[row + 1]
            spread = np.arange(end - begin) * len(own) // (end - begin)
            values[begin:end] = own[spread].numpy()
        done += len(batch)
        progress("frames", done, len(utterances))
    counts = np.diff(starts)
    gone = np.zeros(len(counts), bool)
    gone[list(unreadable)] = True  # some since their length was known
    values = values[np.repeat(~gone, counts)] if counts[gone].any() else values
    return Frames(values, np.concatenate([[0], np.where(gone, 0, counts).cumsum()]), pooled)


def fit_adapter(
    classifier: EmotionClassifier,
    frames: Frames,
    rows: np.ndarray,
    targets: np.ndarray,
    heads: Heads | None = None,
    config: AdapterConfig | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> TrainingReport:
    """Give the classifier an adapter that is trained on some of the recordings.

    rows [n] of `frames` with targets [n, C]; heads: a group for each of these rows, None for the
    classifier's own head alone. Nothing else of the classifier changes. Sums have one order, so
    that a seed gives one adapter. Raises FloatingPointError when the loss is not finite.
    """
    config = config or AdapterConfig()
    started, where = time.perf_counter(), resolve_device(device)
    rng = np.random.default_rng(seed)
    classifier.to(where).eval()
    adapter = new_adapter(classifier.backbone.hidden_size, config.size, config.share, seed)
    adapter.to(where).train()
    weight, bias, group = _heads(classifier, heads, len(rows))
    wanted = torch.from_numpy(targets).float().to(where)
    per_epoch = -(-len(rows) // config.batch_size)
    epochs = config.alone_epochs if heads is None else config.epochs
    epochs = max(1, min(epochs, config.steps // per_epoch))
    steps, done = epochs * per_epoch, 0
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _course(step, steps))
    averaged = AveragedModel(adapter, multi_avg_fn=get_ema_multi_avg_fn(config.averaging))
    losses: list[float] = []
    with single_threaded():
        for epoch in range(1, epochs + 1):
            total = 0.0
            for batch in np.array_split(rng.permutation(len(rows)), per_epoch):
                vectors = _representation(
                    classifier, adapter, 1.0, frames, rows[batch], config.kept, rng
                )
                own = group[batch]
                logits = (weight[own] @ vectors[:, :, None]).squeeze(-1) + bias[own]
                loss = F.cross_entropy(logits, wanted[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                averaged.update_parameters(adapter)
                total += float(loss.detach()) * len(batch)
                done += 1
            losses.append(total / len(rows))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"training loss is {losses[-1]} in epoch {epoch}: lower the learning rate "
                    f"({config.learning_rate})"
                )
            progress("training", epoch, epochs)
    kept = averaged.module
    assert isinstance(kept, FrameAdapter)
    classifier.adapter = kept.eval().requires_grad_(False)
    return TrainingReport(
        losses, best_epoch=epochs, steps=done, seconds=time.perf_counter() - started
    )


@torch.inference_mode()
def represent(
    classifier: EmotionClassifier, frames: Frames, rows: np.ndarray, block: int = 8
) -> np.ndarray:
    """What the head sees of some of the recordings, float32 [n, R]; as the classifier predicts."""
    found = [np.zeros((0, classifier.representation_size), np.float32)]
    adapter = classifier.adapter
    with single_threaded():
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            share = 0.0 if adapter is None else adapter.share
            found.append(_representation(classifier, adapter, share, frames, part).cpu().numpy())
    return np.concatenate(found)


def judge(classifier: EmotionClassifier, frames: Frames, rows: np.ndarray) -> np.ndarray:
    """Logits of some of the recordings, float32 [n, C]; as score() gives, but for rounding."""
    seen = torch.from_numpy(represent(classifier, frames, rows))
    with torch.inference_mode():
        return classifier.head.cpu()(seen).numpy()


class _Reader(nn.Module):
    """A classifier's encoder: frames of the highest state, utterances one after the other."""

    def __init__(self, classifier: EmotionClassifier) -> None:
        super().__init__()
        self.backbone = classifier.backbone
        self._states, self._head = classifier.states, classifier.head_name

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stem features [B, T, D] -> (float16 [F, H], every state pooled [B, S * R])."""
        found = self.backbone.states(features, frames, self._states)
        pooled = torch.cat([pool(state, frames, self._head) for state in found], dim=1)
        return found[-1][frame_mask(frames, found[-1].shape[1])].half(), pooled


def _representation(
    classifier: EmotionClassifier,
    adapter: FrameAdapter | None,
    share: float,
    frames: Frames,
    rows: np.ndarray,
    kept: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """What the head sees of recordings [n, R]; rng: of a random part of their frames."""
    device = classifier.state_mean.device
    pooled = torch.from_numpy(frames.pooled[rows]).to(device)
    if adapter is not None:
        counts = frames.starts[rows + 1] - frames.starts[rows]
        chosen = [np.arange(count) for count in counts]
        if rng is not None:
            chosen = [rng.permutation(count)[: _part(count, kept)] for count in counts]
        lengths = np.array([len(own) for own in chosen])
        at = np.concatenate(
            [start + own for start, own in zip(frames.starts[rows], chosen, strict=True)]
        )
        flat, weights = adapter(torch.from_numpy(frames.values[at]).to(device).float())
        # side by side from here on: pooling is cheap beside what the frames went through
        place = torch.from_numpy(_places(lengths)).to(device)
        shape = (len(rows), int(lengths.max()))
        context = flat.new_zeros(math.prod(shape), flat.shape[1]).index_copy(0, place, flat)
        weight = weights.new_zeros(math.prod(shape)).index_copy(0, place, weights)
        adapted = pool(
            context.unflatten(0, shape),
            torch.from_numpy(lengths).to(device),
            classifier.head_name,
            weight.unflatten(0, shape),
        )
        plain = pooled[:, -1]
        pooled = torch.cat([pooled[:, :-1], plain.lerp(adapted, share)[:, None]], dim=1)
    return classifier.represent(pooled)


def _places(lengths: np.ndarray) -> np.ndarray:
    """Where frames of recordings so long are, in a padded batch of these: [sum of lengths]."""
    inside = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(np.arange(len(lengths)) * lengths.max(), lengths) + inside


def _part(count: int, kept: float) -> int:
    """How many of so many frames a step sees."""
    return min(count, MOST, max(12, int(kept * count)))


def _heads(
    classifier: EmotionClassifier, heads: Heads | None, count: int
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Weights [K, C, R], biases [K, C] and which of them each of so many recordings is told by."""
    linear, device = classifier.head.linear, classifier.state_mean.device
    if heads is None:
        return linear.weight.detach()[None], linear.bias.detach()[None], np.zeros(count, np.int64)
    weight, bias = torch.from_numpy(heads.weight).float(), torch.from_numpy(heads.bias).float()
    return weight.to(device), bias.to(device), heads.group


def _course(step: int, steps: int) -> float:
    """The rate after so many of all steps, as a share of the highest."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))


def _most(lengths: np.ndarray, frames: int) -> int:
    """The most frames a recording, of which those of these lengths have no more than `frames`."""
    if lengths.sum() <= frames:
        return int(lengths.max(initial=1))
    ordered = np.sort(lengths)
    # those shorter than a limit are kept whole, the others share the rest
    whole = np.concatenate([[0], ordered.cumsum()[:-1]])
    limits = (frames - whole) // (len(ordered) - np.arange(len(ordered)))
    return max(1, int(limits[np.argmax(limits < ordered)]))
