"""LSSED's baseline (Fan et al. 2021): PyConvResNet-152 on spectrograms.

A residual network whose middle convolutions have several sizes at once (a pyramid, Duta et al.
2020). [read] is tobefans/LSSED, pyconvresnet.py, which has no training script; [excerpt] a
reader's notes on the paper. The spectrogram's size, hop and band, the clips' length and the
momentum are open there: log magnitudes, 65 ms every 16 ms, 4 s, .9 are assumptions. Its weights,
trained on the LSSED corpus, are given on request and can't be redistributed: every variant here
begins from scratch, which isn't what Table 3 prints.

On a CPU an epoch takes minutes: `layers` 50 and `pixels` 128 are the variant that runs there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.audio import SAMPLE_RATE, Utterance
from simulate.systems._network import Network
from simulate.systems._sound import centred, stft, wave
from simulate.systems._supervised import Pieces

PARAMETERS = {152: 54_618_372, 50: 22_825_220}
"""With four classes [counted]; AFTER's Table 4 says 60 million."""
BLOCKS = {152: (3, 8, 36, 3), 50: (3, 4, 6, 3), 14: (1, 1, 1, 1)}
"""By layers; 14 is for tests."""
PYRAMIDS: tuple[Sequence[tuple[int, int, int]], ...] = (
    ((3, 1, 4), (5, 4, 4), (7, 8, 4), (9, 16, 4)),
    ((3, 1, 4), (5, 4, 4), (7, 8, 2)),
    ((3, 1, 2), (5, 4, 2)),
    ((3, 1, 1),),
)
"""Of each stage: kernel, groups, and which part of the channels, a quarter being 4 [read]."""
ROWS = 4
"""Bands of frequency that are kept apart at the end [read]."""


@dataclass(frozen=True)
class Lssed(Network):
    """seconds: recordings are cut or padded to. pixels: both sides of the image that spectrograms
    are resized to; None: as they are. width: of the first stage, 64 as published."""

    epochs: int = 60  # [excerpt]
    batch: int = 256  # [excerpt]
    layers: int = 152
    seconds: float = 4.0
    pixels: int | None = None
    width: int = 64

    name: ClassVar[str] = "lssed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers not in BLOCKS:
            raise ValueError(f"layers {self.layers}: use one of {', '.join(map(str, BLOCKS))}")

    @property
    def title(self) -> str:
        return f"LSSED, {self.layers} layers from scratch"

    def front_end(self) -> Any:
        return [self.seconds, self.pixels]

    def features(self, item: Utterance) -> np.ndarray:
        """Log magnitudes [1, F, T], F = 521 and T = 247 of 4 s where they are not resized."""
        samples = centred(wave(item), int(self.seconds * SAMPLE_RATE))
        logs = np.log(stft(samples, 1040, 256) + 1e-5)[None]
        if self.pixels is not None:
            size = (self.pixels, self.pixels)
            resized = F.interpolate(torch.from_numpy(logs)[None], size, mode="area")
            logs = resized[0].numpy()
        return logs.astype(np.float16)

    def network(self, classes: int, train: Pieces) -> nn.Module:
        values = np.concatenate([one.ravel()[::97] for one in train]).astype(np.float32)
        net = Net(classes, BLOCKS[self.layers], self.width)
        net.mean, net.std = torch.tensor(values.mean()), torch.tensor(values.std() + 1e-6)
        return net

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)

    def rate(self, epoch: int) -> float:
        return 0.1 ** (epoch // 20)  # [excerpt]


class Net(nn.Module):
    """Spectrograms [B, F, T] -> logits [B, C]; standardised by the training part (assumption)."""

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, blocks: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("std", torch.tensor(1.0))
        # no max-pool: the first block of every stage halves the image instead [read]
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        stages, inputs = [], width
        for number, (count, pyramid) in enumerate(zip(blocks, PYRAMIDS, strict=True)):
            channels = width * 2**number
            for block in range(count):
                stages.append(Bottleneck(inputs, channels, pyramid, halves=block == 0))
                inputs = 4 * channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs * ROWS, classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        image = (spectrograms[:, None] - self.mean) / self.std
        maps = self.stages(self.stem(image))
        return self.head(F.adaptive_avg_pool2d(maps, (ROWS, 1)).flatten(1))  # time is averaged


class Bottleneck(nn.Module):
    """1x1, the pyramid, 1x1 to four times as many channels, and the shortcut."""

    def __init__(
        self, inputs: int, channels: int, pyramid: Sequence[tuple[int, int, int]], *, halves: bool
    ) -> None:
        super().__init__()
        stride = 2 if halves else 1
        self.body = nn.Sequential(
            nn.Conv2d(inputs, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            Pyramid(channels, pyramid, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 4 * channels, 1, bias=False),
            nn.BatchNorm2d(4 * channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            self.shortcut = nn.Sequential(
                nn.MaxPool2d(3, 2, 1),
                nn.Conv2d(inputs, 4 * channels, 1, bias=False),
                nn.BatchNorm2d(4 * channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Pyramid(nn.Module):
    """Convolutions of several sizes beside each other, the larger in more groups."""

    def __init__(self, channels: int, pyramid: Sequence[tuple[int, int, int]], stride: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(
                channels,
                channels // part,
                kernel,
                stride,
                kernel // 2,
                groups=min(groups, channels // part),
                bias=False,
            )
            for kernel, groups, part in pyramid
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([level(x) for level in self.levels], dim=1)


SYSTEM = Lssed
