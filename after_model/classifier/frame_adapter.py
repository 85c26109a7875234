"""An adapter on the frames of a frozen hidden state (Houlsby et al. 2019), with a weight a frame.

A frame x [H] becomes x + up(h) with h = gelu(down(norm(x))) [D], and counts exp(attend(h)) when the
recording's frames are pooled (attentive statistics, Okabe et al. 2018). `up` and `attend` begin as
zeros: a new adapter changes nothing, to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LIMIT = 5.0
"""No frame counts more than e to this power, nor less than e to minus it."""


class FrameAdapter(nn.Module):
    """size: D, what a frame goes through. share: how much of what is pooled is of adapted frames
    where the classifier predicts; the rest is of the frames as they are.

    Initialised from torch's global random state.
    """

    def __init__(self, hidden_size: int, size: int, share: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.share = share
        self.norm = nn.LayerNorm(hidden_size)
        self.down = nn.Linear(hidden_size, size)
        self.up = nn.Linear(size, hidden_size)
        self.attend = nn.Linear(size, 1)
        for layer in (self.up, self.attend):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [..., H] -> (adapted frames [..., H], how much each counts [...], above 0)."""
        hidden = F.gelu(self.down(self.norm(frames)))
        weights = self.attend(hidden).squeeze(-1).clamp(-LIMIT, LIMIT).exp()
        return frames + self.up(hidden), weights


def new_adapter(hidden_size: int, size: int, share: float = 1.0, seed: int = 0) -> FrameAdapter:
    """An adapter that is initialised from the seed; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FrameAdapter(hidden_size, size, share)
