"""Systems that fine-tune a wav2vec 2.0 whose CNN stays frozen: their pieces are stem features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from after_model.audio import AudioError, Utterance
from after_model.backbone import Backbone
from after_model.features import FeatureStore
from simulate.systems._network import Network
from simulate.systems._weights import loaded, weights_of
from simulate.systems.base import Context

EMBEDDED = "after-tiny"
"""The wav2vec 2.0 that runs here without a download; the published systems' are far larger."""

Batch = tuple[Tensor, Tensor]
"""Stem features [B, T, D], frames [B]."""


@dataclass(frozen=True)
class FineTuned(Network):
    """encoder: a backbone by name or folder. layers: of the transformer that are kept, all if None.
    longest_s: recordings are cut to."""

    encoder: str = EMBEDDED
    layers: int | None = None
    longest_s: float = 10.0

    @property
    def backbone(self) -> str:
        return self.encoder

    def values(self) -> dict[str, Any]:
        """A backbone that is a folder goes by the folder's name; its weights are named apart."""
        name = Path(self.encoder).name if Path(self.encoder).is_dir() else self.encoder
        return {**super().values(), "encoder": name}

    def weights(self) -> str:
        return weights_of(self.encoder)

    def front_end(self) -> Any:
        return self.weights()

    def encoding(self) -> str:
        return f"{self.weights()} stem"

    def encode(self, items: Sequence[Utterance], context: Context) -> None:
        FeatureStore(context.cache.features, loaded(self.encoder)).fill(items, context.progress)

    def features(self, item: Utterance) -> np.ndarray:
        raise NotImplementedError("stem features are kept by after_model's own store")

    def pieces(
        self, items: Sequence[Utterance], context: Context
    ) -> tuple[list[np.ndarray | None], dict[int, str]]:
        """Stem features [1, T, D], float16."""
        stem = loaded(self.encoder)
        store = FeatureStore(context.cache.features, stem)
        store.fill(items, context.progress)
        most = int(self.longest_s / stem.frame_seconds)
        found: list[np.ndarray | None] = []
        broken: dict[int, str] = {}
        for number, item in enumerate(items):
            try:
                found.append(store[item][None, :most])
            except AudioError as error:
                broken[number] = str(error)
                found.append(None)
        return found, broken

    def collated(self, pieces: list[np.ndarray]) -> Batch:
        frames = torch.tensor([len(one) for one in pieces])
        rows = [torch.from_numpy(one.astype(np.float32)) for one in pieces]
        return pad_sequence(rows, batch_first=True), frames

    def begun(self) -> Backbone:
        """A copy to train: the stem frozen, the transformer cut to its layers."""
        found = copy.deepcopy(loaded(self.encoder))
        if self.layers is not None and self.layers < found.num_layers:
            found.model.encoder.layers = found.model.encoder.layers[: self.layers]
            found.num_layers = found.config.num_hidden_layers = self.layers
        for module in found.stem():
            module.requires_grad_(False)
        return found


def averaged(states: Tensor, frames: Tensor) -> Tensor:
    """[B, T, H] over the valid frames [B], beyond which states are zero: [B, H]."""
    return states.sum(dim=1) / frames[:, None]


def trainable(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]
