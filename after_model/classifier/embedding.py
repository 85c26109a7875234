"""What a frozen encoder makes of recordings: its hidden states pooled over time, side by side.

embedder = Embedder(backbone, states=(2, 3))
for indices, values in embedder.compute(store, utterances): ...     # float32 [n, R]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor, nn

from after_model.audio import AudioError, Utterance
from after_model.backbone import Backbone
from after_model.classifier import DEFAULT_HEAD, EmotionClassifier
from after_model.classifier.scoring import outputs
from after_model.device import resolve_device
from after_model.features import FeatureStore


class Embedder(nn.Module):
    """A backbone and a head's pooling, without the head; nothing trains.

    width: R = S * what one state is pooled into.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: str = DEFAULT_HEAD,
        states: Sequence[int] | str | None = None,
    ) -> None:
        super().__init__()
        self._classifier = EmotionClassifier(backbone, 2, head, states)
        self.backbone = self._classifier.backbone
        self.states = self._classifier.states
        self.width = len(self.states) * self._classifier.representation_size
        self.name = f"{backbone.encoder_hash} {head} {','.join(map(str, self.states))}"

    def forward(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stem features [B, T, D], frames [B] -> twice the embeddings [B, R]."""
        embeddings = self._classifier.pooled_states(features, frames).flatten(1)
        return embeddings, embeddings

    def compute(
        self, store: FeatureStore, utterances: Sequence[Utterance], device: str = "auto"
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(indices [n], embeddings float32 [n, R]) batch by batch, in any order.

        Recordings that can't be read are in no batch. In float32 on any device: embeddings are kept
        for good, in half precision.
        """
        unreadable: dict[int, AudioError] = {}
        found = outputs(
            self, store, utterances, resolve_device(device), "fp32", unreadable=unreadable
        )
        for batch, values, _ in found:
            yield batch, values.numpy()
