"""Scores for a pool of any size: probabilities, representations and MC-dropout samples.

Memory is bounded by one batch and the result; a pool's scores do not depend on how it was batched,
MC-dropout samples included (a sample drops the same channels for every utterance, as in Kirsch et
al. 2019, which BatchBALD's joint probabilities need).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from after_model.audio import Utterance
from after_model.batches import batch_frames, collate, length_batches, read_ahead
from after_model.classifier import EmotionClassifier
from after_model.device import autocast, resolve_device
from after_model.features import FeatureStore
from after_model.progress import Progress, silent


@dataclass(frozen=True)
class Scores:
    """What a model says of N utterances.

    probs [N, C]; embeddings [N, R], the representation before the head; mc_probs [K, N, C] or None.
    """

    probs: np.ndarray
    embeddings: np.ndarray
    mc_probs: np.ndarray | None = None


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
    passes with dropout on. An empty pool gives arrays of length 0.
    """
    where = resolve_device(device)
    precision = "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    classifier.to(where).eval()
    count, classes = len(utterances), classifier.num_classes
    probs = np.zeros((count, classes), np.float32)
    embeddings = np.zeros((count, classifier.head.linear.in_features), np.float32)
    mc_probs = np.zeros((mc_samples, count, classes), np.float32) if mc_samples else None
    limit = max_frames or batch_frames(where)
    batches = length_batches(store.frames(utterances), max_frames=limit)
    done = 0
    with torch.inference_mode(), autocast(where, precision):
        prepared = read_ahead(lambda batch: (batch, collate(store, utterances, batch)), batches)
        for batch, (features, frames) in prepared:
            features, frames = features.to(where), frames.to(where)
            logits, pooled = classifier(features, frames)
            probs[batch] = logits.double().softmax(-1).cpu().numpy()
            embeddings[batch] = pooled.float().cpu().numpy()
            for sample in range(mc_samples):
                with _consistent_dropout(classifier, seed * 1_000_003 + sample):
                    logits, _ = classifier(features, frames)
                assert mc_probs is not None
                mc_probs[sample, batch] = logits.double().softmax(-1).cpu().numpy()
            done += len(batch)
            progress("scoring", done, count)
    return Scores(probs, embeddings, mc_probs)


@contextlib.contextmanager
def _consistent_dropout(model: nn.Module, seed: int) -> Iterator[None]:
    """Every dropout layer drops one set of channels, fixed by the seed, for all it is given."""
    generator = torch.Generator().manual_seed(seed)
    handles = [
        module.register_forward_hook(_ChannelDropout(module.p, generator))
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

    def __init__(self, p: float, generator: torch.Generator) -> None:
        self.p = p
        self.generator = generator
        self.mask: Tensor | None = None

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.mask is None:
            keep = torch.rand(output.shape[-1], generator=self.generator) >= self.p
            self.mask = (keep / (1 - self.p)).to(output.device, output.dtype)
        return output * self.mask
