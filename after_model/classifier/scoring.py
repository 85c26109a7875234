"""Scores for a pool of any size: probabilities, representations and MC-dropout samples.

Memory is bounded by one batch and the result; a pool's scores do not depend on how it was batched,
MC-dropout samples included (a sample drops the same channels for every utterance, as in Kirsch et
al. 2019, which BatchBALD's joint probabilities need).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from after_model.audio import AudioError, Utterance
from after_model.backbone.kernels import ragged
from after_model.classifier import EmotionClassifier
from after_model.device import autocast, resolve_device, side_by_side
from after_model.features import FeatureStore
from after_model.features.batching import batch_frames, collate, length_batches, read_ahead
from after_model.progress import Progress, silent


@dataclass(frozen=True)
class Scores:
    """What a model says of N utterances.

    probs [N, C]; embeddings [N, R], the representation before the head; mc_probs [K, N, C] or None.
    unreadable: what is wrong with recordings that can't be read, by their index: nothing is known
    of them, so their probabilities are equal and their embeddings 0.
    """

    probs: np.ndarray
    embeddings: np.ndarray
    mc_probs: np.ndarray | None = None
    unreadable: dict[int, AudioError] = field(default_factory=dict)

    @property
    def readable(self) -> np.ndarray:
        """bool [N]."""
        mask = np.ones(len(self.probs), bool)
        mask[list(self.unreadable)] = False
        return mask

    @property
    def skipped(self) -> list[AudioError]:
        """The errors of `unreadable`, in the recordings' order."""
        return [self.unreadable[index] for index in sorted(self.unreadable)]


def score(
    classifier: EmotionClassifier,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    mc_samples: int = 0,
    seed: int = 0,
    device: str = "auto",
    max_frames: int | None = None,
    progress: Progress = silent,
) -> Scores:
    """Score every utterance: bf16 on CUDA, float32 elsewhere.

    max_frames: padded frames a batch, None for what suits the device. mc_samples: further
    passes with dropout on. An empty pool gives arrays of length 0. Recordings that can't be read
    stop nothing: see Scores.unreadable.
    """
    where = resolve_device(device)
    precision = "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    count, classes = len(utterances), classifier.num_classes
    probs = np.zeros((count, classes), np.float32)
    embeddings = np.zeros((count, classifier.head.linear.in_features), np.float32)
    mc_probs = np.zeros((mc_samples, count, classes), np.float32) if mc_samples else None
    unreadable: dict[int, AudioError] = {}
    done, passes = 0, 1 + mc_samples
    for number in range(passes):
        sample = number - 1
        dropout = _consistent_dropout(classifier, seed * 1_000_003 + sample)
        found = outputs(classifier, store, utterances, where, precision, max_frames, unreadable)
        with dropout if number else contextlib.nullcontext(), contextlib.closing(found):
            for batch, logits, pooled in found:
                likely = logits.double().softmax(-1).numpy()
                if number == 0:
                    probs[batch], embeddings[batch] = likely, pooled.numpy()
                else:
                    assert mc_probs is not None
                    mc_probs[sample, batch] = likely
                done += len(batch)
                progress("scoring", done, count * passes)
    if unreadable:  # at the end: one may have become so between two passes
        lost = list(unreadable)
        probs[lost], embeddings[lost] = 1 / classes, 0
        if mc_probs is not None:
            mc_probs[:, lost] = 1 / classes
        progress("scoring", count * passes, count * passes)
    return Scores(probs, embeddings, mc_probs, unreadable)


def outputs(
    classifier: EmotionClassifier,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    device: torch.device,
    precision: str,
    max_frames: int | None = None,
    unreadable: dict[int, AudioError] | None = None,
) -> Generator[tuple[np.ndarray, Tensor, Tensor], None, None]:
    """Batch by batch, in evaluation mode: indices, logits [B, C] and representations [B, H].

    A recording that can't be read raises AudioError; where `unreadable` is given, the error is put
    there, by the recording's index, and the recording is in no batch.

    Logits and representations are float32, on the CPU. There batches are computed side by side,
    each by one thread: nothing then waits for the slowest part of an operation, and sums have one
    order, however many threads there are.
    """
    classifier.to(device).eval()
    limit = max_frames or batch_frames(device)
    frames = store.frames(utterances, unreadable)
    given = np.flatnonzero(frames)
    batches = [given[batch] for batch in length_batches(frames[given], max_frames=limit)]

    def compute(batch: np.ndarray, inputs: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
        with torch.inference_mode(), autocast(device, precision):
            logits, pooled = classifier(*(value.to(device) for value in inputs))
            return batch, logits.cpu(), pooled.float().cpu()

    def read(batch: np.ndarray) -> tuple[np.ndarray, tuple[Tensor, Tensor] | None]:
        """The batch without what went since its length was known; no inputs if that is all."""
        try:
            return batch, collate(store, utterances, batch)
        except AudioError:
            if unreadable is None:
                raise
        left = [index for index in batch if _present(store, utterances, int(index), unreadable)]
        return np.array(left, int), collate(store, utterances, left) if left else None

    if device.type != "cpu":
        for batch, inputs in read_ahead(read, batches):
            if inputs is not None:
                yield compute(batch, inputs)
        return

    def read_and_compute(batch: np.ndarray) -> tuple[Any, ...] | None:
        batch, inputs = read(batch)
        return None if inputs is None else compute(batch, inputs)

    fixed = precision == "fp32"  # elsewhere products are cast
    with ragged.fixed_weights(classifier.backbone.model) if fixed else contextlib.nullcontext():
        for result in side_by_side(read_and_compute, batches):
            if result is not None:
                yield result


def _present(
    store: FeatureStore,
    utterances: Sequence[Utterance],
    index: int,
    unreadable: dict[int, AudioError],
) -> bool:
    """Whether a recording can be read; what is wrong with it otherwise is noted."""
    try:
        store[utterances[index]]
    except AudioError as error:
        unreadable[index] = error
    return index not in unreadable


@contextlib.contextmanager
def _consistent_dropout(model: nn.Module, seed: int) -> Iterator[None]:
    """Every dropout layer drops one set of channels, fixed by the seed, for all it is given."""
    generator, drawing = torch.Generator().manual_seed(seed), threading.Lock()
    handles = [
        module.register_forward_hook(_ChannelDropout(module.p, generator, drawing))
        for module in model.modules()
        if isinstance(module, nn.Dropout) and module.p > 0
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _ChannelDropout:
    """Forward hook that scales channels by 0 or 1 / (1 - p); the mask is drawn at first use."""

    def __init__(self, p: float, generator: torch.Generator, drawing: threading.Lock) -> None:
        self.p = p
        self.generator = generator
        self.mask: Tensor | None = None
        self.drawing = drawing

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with self.drawing:  # threads meet the layers in one order, and so do their first visits
            if self.mask is None:
                keep = torch.rand(output.shape[-1], generator=self.generator) >= self.p
                self.mask = (keep / (1 - self.p)).to(output.device, output.dtype)
        return output * self.mask
