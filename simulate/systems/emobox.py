"""EmoBox's recipe (Ma et al. 2024): a frozen backbone's last state, averaged, and two layers.

From memory: Linear 256, ReLU, Linear; Adam at 1e-3, batches of 32, 100 epochs, the epoch by the
validation part. On the backbone that this project embeds where none is named; the benchmark's own
table is of ten larger ones. Its folds are the protocol "emobox".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from simulate.systems._embedded import Embedded
from simulate.systems._network import Network
from simulate.systems._supervised import Pieces


@dataclass(frozen=True)
class EmoBox(Embedded, Network):
    """hidden: of the first layer."""

    hidden: int = 256

    name: ClassVar[str] = "emobox"

    @property
    def title(self) -> str:
        return f"EmoBox's head on {self.values()['encoder']}"

    def network(self, classes: int, train: Pieces) -> nn.Module:
        size = train[0].shape[1]
        return nn.Sequential(
            nn.Linear(size, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes)
        )

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-3)


SYSTEM = EmoBox
