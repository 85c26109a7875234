"""Systems that read a frozen backbone: their pieces are its embeddings, on disk where learners look
for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from after_model import backbone
from after_model.audio import Utterance
from after_model.classifier import DEFAULT_HEAD
from simulate.systems._frozen import Frozen, States
from simulate.systems._supervised import Supervised
from simulate.systems._weights import weights_of
from simulate.systems.base import Context


@dataclass(frozen=True)
class Embedded(Supervised):
    """encoder: a backbone by name. head, states: what of it is pooled, as LearnerConfig says."""

    encoder: str = backbone.DEFAULT
    head: str = DEFAULT_HEAD
    states: States = "last"

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
        return [self.weights(), self.head, self.states]

    def encoding(self) -> str:
        return f"{self.weights()} {self.head} {self.states} True"

    def encode(self, items: Sequence[Utterance], context: Context) -> None:
        Frozen(self.encoder, self.head, self.states, context).of(items)

    def features(self, item: Utterance) -> np.ndarray:
        raise NotImplementedError("a backbone's embeddings are made of many recordings at a time")

    def pieces(
        self, items: Sequence[Utterance], context: Context
    ) -> tuple[list[np.ndarray | None], dict[int, str]]:
        """Embeddings [1, R]."""
        found = Frozen(self.encoder, self.head, self.states, context).of(items)
        broken = {i: str(error) for i, error in found.unreadable.items()}
        values = found.take(np.arange(len(items)))
        return [None if i in broken else values[i : i + 1] for i in range(len(items))], broken
