"""TIM-Net (Ye et al. 2023, ICASSP): a temporal-aware bi-directional multi-scale network.

Dilated causal convolutions over MFCC, forward in time and backward; every block's output, at its
own scale, is averaged over time, and the scales are weighted. Written anew from what is known of
Jiaxin-Ye/TIM-Net_SER ([read]; its code is under the GPL, and none of it is here).

Published (UA / WA), with the epoch that was best on the test fold: EmoDB 95.17 / 95.70, RAVDESS
91.93 / 92.08, SAVEE 86.31 / 87.71. Its authors' re-run with the last epoch: 89.19 / 90.28,
90.04 / 90.07, 77.26 / 79.36. All with ten random folds: speakers overlap.
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
from simulate.systems._supervised import Examples, Pieces

PARAMETERS = 104_496
"""With eight blocks and seven classes [counted]; the paper says 0.10 million."""
SMOOTHING = 0.1  # [read]


@dataclass(frozen=True)
class TimNet(Network):
    """samples: at 22,050 Hz, see _sound.SAMPLES. blocks: 8, for IEMOCAP 10 [read]."""

    epochs: int = 500  # [read]
    batch: int = 64  # [read]
    samples: int = SAMPLES["emodb"]
    blocks: int = 8

    name: ClassVar[str] = "tim-net"

    @property
    def title(self) -> str:
        return "TIM-Net"

    def front_end(self) -> Any:
        return self.samples

    def features(self, item: Utterance) -> np.ndarray:
        """39 MFCC, not normalised [read]: [1, 39, T]."""
        return mfcc(centred(wave(item, MFCC_RATE_HZ), self.samples), MFCC_RATE_HZ, 39)[None]

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return keras_start(Net(classes, self.blocks))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.93, 0.98), eps=1e-8)  # [read]

    def criterion(self, train: Examples) -> Any:
        return lambda logits, targets: F.cross_entropy(logits, targets, label_smoothing=SMOOTHING)


class Net(nn.Module):
    """MFCC [B, 39, T] -> logits [B, C]."""

    def __init__(self, classes: int, blocks: int, channels: int = 39) -> None:
        super().__init__()
        self.directions = nn.ModuleList(Direction(blocks, channels) for _ in range(2))
        self.scales = nn.Parameter(torch.empty(blocks).uniform_(-0.05, 0.05))  # Keras's "uniform"
        self.head = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        forward, backward = self.directions
        both = zip(forward(features), backward(features.flip(2)), strict=True)
        scales = torch.stack([(one + other).mean(dim=2) for one, other in both], dim=2)
        return self.head(scales @ self.scales)  # [B, 39, blocks] times the scales' weights


class Direction(nn.Module):
    """[B, D, T] -> the outputs of all blocks, each [B, D, T]."""

    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, channels, 1)
        self.blocks = nn.ModuleList(Block(channels, 2**i) for i in range(blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.first(x), []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return found


class Block(nn.Module):
    """The temporal-aware block: x times the sigmoid of what two causal convolutions make of it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels, channels, 2, dilation=dilation) for _ in range(2)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)
            for _ in range(2)  # Keras's values
        )
        self.dropout = nn.Dropout1d(0.1)  # whole channels: Keras's SpatialDropout1D [read]

    def forward(self, x: Tensor) -> Tensor:
        gate = x
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            gate = convolution(F.pad(gate, (self.dilation, 0)))  # sees the past alone
            gate = self.dropout(F.relu(norm(gate)))
        return x * torch.sigmoid(gate)


SYSTEM = TimNet
