"""GLAM (Zhu & Li 2022, ICASSP): global-aware multi-scale convolutions.

Convolutions of several shapes over the MFCC of 1.8-s segments, then a gated MLP that mixes all
channels. [read] is lixiangucas01/GLAM, its gMLP lucidrains/g-mlp-pytorch.

Published (UA / WA): all of IEMOCAP 73.90 / 73.70; with an 8:1:1 split 72.56 / 71.63. Clips are
split at random, "happy" is excited only, the epoch is the best on the test part, and clips shorter
than a segment are left out, of the test too. Here those are padded: every recording is tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.audio import SAMPLE_RATE, Utterance
from simulate.systems._network import Network
from simulate.systems._sound import mfcc, segments, wave
from simulate.systems._supervised import Pieces

PARAMETERS = 904_078
"""With four classes [counted]; AFTER's Table 4 says 15 million."""


@dataclass(frozen=True)
class Glam(Network):
    """Segments are segment_s long and hop_s apart, in training and test [both read].

    every: of these, training uses each n-th; 1 as published. A larger one saves time alone.
    width: of the channels; 1 as published, smaller for tests.
    """

    epochs: int = 50  # [read]
    batch: int = 32  # [read]
    segment_s: float = 1.8
    hop_s: float = 0.2
    every: int = 1
    width: float = 1.0

    name: ClassVar[str] = "glam"

    @property
    def title(self) -> str:
        return "GLAM"

    def front_end(self) -> Any:
        return [self.segment_s, self.hop_s]

    def features(self, item: Utterance) -> np.ndarray:
        """26 MFCC of each segment, not normalised [read]: [K, 26, T], T = 57 of 1.8 s."""
        size, hop = (round(s * SAMPLE_RATE) for s in (self.segment_s, self.hop_s))
        samples = wave(item)
        if len(samples) > size:  # whole segments alone
            samples = samples[: size + (len(samples) - size) // hop * hop]
        return np.stack([mfcc(one, SAMPLE_RATE, 26) for one in segments(samples, size, hop)])

    def learnt_from(self, pieces: np.ndarray) -> np.ndarray:
        return pieces[:: self.every]

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Net(classes, train[0].shape[1:], self.width)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-6)  # [read]

    def rate(self, epoch: int) -> float:
        return max(0.95**epoch, 1e-3)  # down to 1e-6 [read]

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: Any
    ) -> Tensor:
        """Mixup: every batch with itself in another order, by one share of Beta(.5, .5) [read]."""
        share = rng.beta(0.5, 0.5)
        other = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
        logits = net(share * inputs + (1 - share) * inputs[other])
        return share * criterion(logits, targets) + (1 - share) * criterion(logits, targets[other])

    def joined(self, logits: Tensor) -> Tensor:
        """By the mean of the segments' logits [read]."""
        return logits.mean(dim=0).softmax(dim=0)


class Net(nn.Module):
    """MFCC [B, 26, T] -> logits [B, C]."""

    def __init__(self, classes: int, shape: tuple[int, ...], width: float = 1.0) -> None:
        super().__init__()
        first, last = max(2, round(16 * width)), 8 * max(2, round(16 * width))
        size = (2 * shape[0] // 4) * (shape[1] // 4)  # 13 * 14 = 182 of 26 x 57
        self.tall = nn.Sequential(nn.Conv2d(1, first, (3, 1), padding="same"), *normed(first))
        self.wide = nn.Sequential(nn.Conv2d(1, first, (1, 3), padding="same"), *normed(first))
        self.body = nn.Sequential(
            ResMultiConv(first),
            nn.MaxPool2d(2),
            ResMultiConv(2 * first),
            nn.MaxPool2d(2),
            ResMultiConv(4 * first),
            nn.Conv2d(last, last, 5, padding="same"),
            *normed(last),
        )
        self.mixing = GatedMlp(last, size)
        self.head = nn.Linear(last * size, classes)

    def forward(self, features: Tensor) -> Tensor:
        image = features[:, None]  # [B, 1, 26, T]
        maps = self.body(torch.cat([self.tall(image), self.wide(image)], dim=2))
        return self.head(F.relu(self.mixing(maps.flatten(2))).flatten(1))


class ResMultiConv(nn.Module):
    """n channels -> 2n: convolutions of two sizes, each added to its input, beside each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.small = nn.Conv2d(channels, channels, 3, padding="same")
        self.large = nn.Conv2d(channels, channels, 5, padding="same")
        self.after = nn.Sequential(*normed(2 * channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.cat([self.small(x) + x, self.large(x) + x], dim=1))


class GatedMlp(nn.Module):
    """Liu et al. 2021, "Pay attention to MLPs", of N channels: [B, N, D] to [B, N, D].

    Four times as wide inside; one half, mixed between the channels, gates the other.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.norm, self.gate_norm = nn.LayerNorm(size), nn.LayerNorm(2 * size)
        self.rise, self.fall = nn.Linear(size, 4 * size), nn.Linear(2 * size, size)
        near = 1e-3 / channels  # so that the gate begins as tanh(1), the same for all [read]
        self.mix = nn.Parameter(torch.empty(channels, channels).uniform_(-near, near))
        self.bias = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        values, gates = F.gelu(self.rise(self.norm(x))).chunk(2, dim=2)
        gates = torch.tanh(self.mix @ self.gate_norm(gates) + self.bias)
        return x + self.fall(values * gates)


def normed(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


SYSTEM = Glam
