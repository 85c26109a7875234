"""GM-TCN (Ye et al. 2022): a gated multi-scale temporal convolutional network.

Blocks of causal gated convolutions at growing dilations; every block's skip goes into one sum,
which is averaged over time. [read] is aascode/GM-TCNet, a mirror of the authors' code.

Published (UA / WA), with the epoch that was best on the test fold: EmoDB 90.48 / 91.39, RAVDESS
87.64 / 87.35, SAVEE 83.88 / 86.02. TIM-Net's authors' re-run with the last epoch: 86.17 / 85.70,
82.78 / 82.62, 75.83 / 73.57. All with ten random folds: speakers overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.audio import Utterance
from simulate.systems._network import Network, keras_start
from simulate.systems._sound import MFCC_RATE_HZ, SAMPLES, centred, mfcc, wave
from simulate.systems._supervised import Pieces

PARAMETERS = 260_644
"""With seven classes [counted]."""


@dataclass(frozen=True)
class GmTcn(Network):
    """samples: at 22,050 Hz; 96,000 for all corpora [read]. blocks: 7 [read], fewer for tests."""

    epochs: int = 300  # [read]
    batch: int = 64  # [read]
    samples: int = SAMPLES["emodb"]
    blocks: int = 7

    name: ClassVar[str] = "gm-tcn"

    @property
    def title(self) -> str:
        return "GM-TCN"

    def front_end(self) -> Any:
        return self.samples

    def features(self, item: Utterance) -> np.ndarray:
        """39 MFCC, not normalised [read]: [1, 39, T]."""
        return mfcc(centred(wave(item, MFCC_RATE_HZ), self.samples), MFCC_RATE_HZ, 39)[None]

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return keras_start(Net(classes, self.blocks))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.93, 0.98), eps=1e-8)  # [read]


class Net(nn.Module):
    """MFCC [B, 39, T] -> logits [B, C]; no normalisation, no dropout [read]."""

    def __init__(self, classes: int, blocks: int, channels: int = 39) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 1)
        self.blocks = nn.ModuleList(Block(channels, 2**i) for i in range(blocks))
        self.head = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        x = self.first(features)
        skips = torch.zeros_like(x)
        for block in self.blocks:
            skip = block(x)
            x, skips = x + skip, skips + skip
        return self.head(F.leaky_relu(skips, 0.05).mean(dim=2))


class Block(nn.Module):
    """Two levels of gates, the second at twice the dilation."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(channels, d) for d in (dilation, 2 * dilation))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.levels
        return second(first(x))


class Level(nn.Module):
    """The mean of three gates, each relu(conv(x)) * sigmoid(relu(conv(x))) [read].

    The six convolutions see the same input, so they are computed as one.
    """

    GATES = 3

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=dilation) for _ in range(2 * self.GATES)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([p for n, p in self.named_parameters() if n.endswith("weight")])
        bias = torch.cat([p for n, p in self.named_parameters() if n.endswith("bias")])
        past = F.pad(x, (self.dilation, 0))
        every = F.relu(F.conv1d(past, weight, bias, dilation=self.dilation))
        values, gates = every.unflatten(1, (2, self.GATES, -1)).unbind(1)
        return (values * torch.sigmoid(gates)).mean(dim=1)


SYSTEM = GmTcn
