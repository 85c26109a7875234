"""Light-SERNet (Aftab et al. 2022, ICASSP), as its public code has it.

Three parallel convolutions, one along frequency, one along time, one over both; then a plain CNN
small enough for a phone. [read] is AryaAftab/LIGHT-SERNET, [counted] from the architecture.

Published: EmoDB 94.15 / 94.21 (UA / WA), IEMOCAP 70.76 / 70.23, as TIM-Net's first README quotes
them. Both with the epoch that was best on the test part, IEMOCAP with speakers in training and in
test: neither can be repeated here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import scipy.fft
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.audio import SAMPLE_RATE, Utterance
from simulate.systems._network import Network, keras_start
from simulate.systems._sound import centred, stft, wave
from simulate.systems._supervised import Pieces

PARAMETERS = 461_607
"""With seven classes [counted]; published as 0.88 MB in half precision."""


@dataclass(frozen=True)
class LightSERNet(Network):
    """seconds: recordings are cut or padded to; 3 for EmoDB, 3 and 7 for IEMOCAP [read].
    width: of the channels, 1 as published; smaller ones are for tests."""

    epochs: int = 300  # [read]
    batch: int = 32  # [read]
    seconds: float = 3.0
    width: float = 1.0

    name: ClassVar[str] = "light"

    @property
    def title(self) -> str:
        return "Light"

    def front_end(self) -> Any:
        return self.seconds

    def features(self, item: Utterance) -> np.ndarray:
        """MFCC [1, 40, T]; 184 frames of 3 s [read]."""
        samples = wave(item)
        loud = np.percentile(np.abs(samples), 99.9)  # [read]
        samples = np.clip(samples / max(loud, 1e-8), -1, 1)
        samples = centred(samples, int(self.seconds * SAMPLE_RATE))
        mel = _mel() @ stft(samples, 1024, 256)  # [read]; Hann: tf.signal's default
        found = scipy.fft.dct(np.log(mel + 1e-6), axis=0, norm="ortho")[:40]
        found[0] *= math.sqrt(2)  # tf.signal's scaling [from memory]
        return np.clip(found, -10, 10)[None].astype(np.float32)  # [read]

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return keras_start(Net(classes, self.width))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(net, Net)
        decayed = [p for p in net.body.parameters() if p.dim() == 4]
        others = [p for p in net.parameters() if all(p is not d for d in decayed)]
        # Keras's L2 of 1e-6 is added to the loss: its gradient is 2e-6 times the weight.
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": 2e-6},
            {"params": others},
        ]
        return torch.optim.Adam(groups, lr=1e-4, eps=1e-7)  # [read]; eps: Keras's

    def rate(self, epoch: int) -> float:
        """x exp(-0.15) at epochs 60, 80, 100, ... [read]"""
        return math.exp(-0.15 * max(0, (epoch - 40) // 20))


class Net(nn.Module):
    """MFCC [B, 40, T] -> logits [B, C]. Frequency is the last axis of the images."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()

        def channels(n: int) -> int:
            return max(1, round(n * width))

        first = channels(32)
        self.parallel = nn.ModuleList(
            block(1, first, kernel) for kernel in ((11, 1), (1, 9), (3, 3))
        )
        sizes = [3 * first, *(channels(n) for n in (64, 96, 128, 160, 320))]
        kernels = [(3, 3)] * 4 + [(1, 1)]
        self.body = nn.ModuleList(
            block(a, b, kernel) for a, b, kernel in zip(sizes[:-1], sizes[1:], kernels, strict=True)
        )
        self.pools = ((2, 2), (2, 2), (2, 1), (2, 1), (1, 1))
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(sizes[-1], classes))

    def forward(self, features: Tensor) -> Tensor:
        image = features.transpose(1, 2)[:, None]  # [B, 1, T, 40]
        x = torch.cat([F.avg_pool2d(path(image), 2) for path in self.parallel], dim=1)
        for layer, pool in zip(self.body, self.pools, strict=True):
            x = F.avg_pool2d(layer(x), pool)
        return self.head(x.mean(dim=(2, 3)))


def block(inputs: int, outputs: int, kernel: tuple[int, int]) -> nn.Sequential:
    """Convolution without bias [read of the later ones, assumed of the first three], batch
    normalisation as Keras has it (momentum .99, epsilon 1e-3), ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding="same", bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        nn.ReLU(),
    )


@lru_cache(maxsize=1)
def _mel() -> np.ndarray:
    """tf.signal's 128 mel filters from 80 to 7,600 Hz [read], triangles on mel: [128, 513].

    Its mel is 1127 ln(1 + f / 700).
    """
    bins = 1127 * np.log1p(np.linspace(0, SAMPLE_RATE / 2, 513) / 700)
    low_mel, high_mel = (1127 * math.log1p(hz / 700) for hz in (80, 7600))
    edges = np.linspace(low_mel, high_mel, 130)
    low, middle, high = (edges[i : 128 + i, None] for i in range(3))
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


SYSTEM = LightSERNet
