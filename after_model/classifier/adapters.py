"""LoRA (Hu et al. 2022): what fine-tuning changes of a weight has a low rank.

    adapters = add_lora(blocks, rank=8, alpha=16)
    ...                                     # train what still has requires_grad
    merge_lora(adapters)                    # plain linear layers again, with what they have learnt

It changes the weights rather than the layers, so that it is right for every way in which a family
reads them (WavLM's attention takes its projections' weights without calling them, where a layer
that wraps them would have no effect).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """weight [O, I] -> weight + alpha / rank * up [O, rank] @ down [rank, I]; begins as weight."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * (self.up @ self.down)


def add_lora(blocks: Iterable[nn.Module], rank: int, alpha: float) -> list[nn.Linear]:
    """Give every linear layer of some modules a trainable part of low rank; returns the layers.

    Draws from torch's global random state. Freezing what is not to be trained is the caller's.
    """
    layers = [m for block in blocks for m in block.modules() if isinstance(m, nn.Linear)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha))
    return layers


@torch.no_grad()
def merge_lora(layers: Iterable[nn.Linear]) -> None:
    """Make add_lora()'s layers plain ones whose weights are what they were with their parts."""
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
