"""CPAC (Wen et al. 2022, CTL-MTNet): a capsule network with attention over its primary capsules.

Three small convolutions over MFCC, capsules from the fourth, weighed by what they have in common,
and routed to six. [read] is MLDMXM2017/CTL-MTNet, CPAC_code.

Published (UA / WA), with the epoch that was best on the test fold: EmoDB 94.22 / 94.95, RAVDESS
88.41 / 89.03, SAVEE 83.69 / 85.63. TIM-Net's authors' re-run with the last epoch: 86.92 / 86.15,
81.25 / 80.47, 75.63 / 73.21. All with ten random folds: speakers overlap. There, labels were
smoothed in place, so that they were smoother with every fold; here by .1 once.
"""

from __future__ import annotations

import math
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

PARAMETERS = 321_480
"""With seven classes [counted]."""
CAPSULES, LENGTH, ROUTINGS = 6, 64, 3
"""Six, however many classes there are [read]."""
SMOOTHING = 0.1  # [read]


@dataclass(frozen=True)
class Cpac(Network):
    """samples: at 22,050 Hz, see _sound.SAMPLES."""

    epochs: int = 300  # [read]
    batch: int = 64  # [read]
    samples: int = SAMPLES["emodb"]

    name: ClassVar[str] = "cpac"

    @property
    def title(self) -> str:
        return "CPAC"

    def front_end(self) -> Any:
        return self.samples

    def features(self, item: Utterance) -> np.ndarray:
        """39 MFCC, not normalised [read]: [1, 39, T]."""
        return mfcc(centred(wave(item, MFCC_RATE_HZ), self.samples), MFCC_RATE_HZ, 39)[None]

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return keras_start(Net(classes))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        # [read] in the code; the paper's appendix has the two betas the other way round
        return torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.975, 0.932), eps=1e-8)

    def criterion(self, train: Examples) -> Any:
        return margin_loss


def margin_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Of Sabour et al. 2017, eq. 4, with .9, .1 and .5 [read], on probabilities."""
    probs = logits.softmax(dim=1)
    targets = targets * (1 - SMOOTHING) + SMOOTHING / targets.shape[1]
    present = targets * F.relu(0.9 - probs) ** 2
    absent = 0.5 * (1 - targets) * F.relu(probs - 0.1) ** 2
    return (present + absent).sum(dim=1).mean()


class Net(nn.Module):
    """MFCC [B, 39, T] -> logits [B, C]; T at least 38."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *layer(1, 0.5), *layer(64, 0.25), *layer(64, 0.25), nn.Conv2d(64, 6 * LENGTH, 3)
        )
        self.attention = nn.Parameter(torch.ones(()))  # Keras's Attention(use_scale=True)
        self.routes = nn.Parameter(torch.empty(CAPSULES, LENGTH, LENGTH))
        nn.init.xavier_uniform_(self.routes.view(CAPSULES * LENGTH, LENGTH))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(LENGTH, classes))

    def forward(self, features: Tensor) -> Tensor:
        image = features.transpose(1, 2)[:, None]  # [B, 1, T, 39]
        maps = self.convolutions(image).permute(0, 2, 3, 1)
        primary = squash(maps.reshape(len(maps), -1, LENGTH))  # [B, N, 64]
        alike = (self.attention * primary @ primary.mT).softmax(dim=2)
        capsules = self.route(primary * (alike @ primary))
        return self.head(capsules.mean(dim=1))

    def route(self, primary: Tensor) -> Tensor:
        """Dynamic routing [B, N, 64] -> [B, 6, 64], the weights shared by all primary capsules.

        Agreement is added to what it was (Sabour et al.; that the code does the same is an
        assumption); between routings, outputs are divided by their length [read].
        """
        votes = torch.einsum("bnd,cde->bcne", primary, self.routes)
        agreement = votes.new_zeros(votes.shape[:3])
        for turn in range(ROUTINGS):
            capsules = torch.einsum("bcn,bcne->bce", agreement.softmax(dim=1), votes)
            if turn < ROUTINGS - 1:
                outputs = F.normalize(capsules, dim=2)
                agreement = agreement + torch.einsum("bce,bcne->bcn", outputs, votes)
        return squash(capsules)


def layer(inputs: int, dropout: float) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, 64, 3)
    return [convolution, Affine(64), nn.ELU(), nn.AvgPool2d(2), nn.Dropout(dropout)]


class Affine(nn.Module):
    """Batch normalisation that never sees a batch: the code calls it with training=False, so its
    mean stays 0 and its variance 1 [read]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale / math.sqrt(1 + 1e-3) + self.shift  # 1e-3: Keras's epsilon


def squash(x: Tensor) -> Tensor:
    """Sabour et al. 2017, eq. 1: the direction stays, the length becomes l^2 / (1 + l^2)."""
    length = (x.square().sum(dim=-1, keepdim=True) + 1e-8).sqrt()
    return x * length / (1 + length**2)


SYSTEM = Cpac
