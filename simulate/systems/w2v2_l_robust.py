"""w2v2-L-robust (Wagner et al. 2023): wav2vec2-large-robust, its first 12 layers, and a small head.

[read] is audeering/w2v2-how-to. The published weights (doi 10.5281/zenodo.6221127, CC BY-NC-SA: not
for commercial use) are tuned on MSP-Podcast for arousal, dominance and valence; `encoder` names the
folder of a user who has them, as transformers writes it. Without, the backbone that this project
embeds stands in: then it is not the published system, and the title says so.

    tuned=False   the embedding, standardised, and an SVM [read: its notebook]. Published so, EmoDB,
                  leave-one-speaker-out: UA 93.4.
    tuned=True    fine-tuned on the emotions. With four classes and cross-entropy it is AFTER's own
                  use (Table 3); rates and epochs are those of the dimensional model [from memory].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from after_model.backbone import Backbone
from simulate.systems._finetuned import EMBEDDED, Batch, FineTuned, averaged, trainable
from simulate.systems._supervised import Examples, Learnt, Pieces, Place
from simulate.systems._vectors import fitted, svm

PARAMETERS = 164_000_000
"""About: 12 of the 24 layers of the large model; its file has 662 MB."""


@dataclass(frozen=True)
class W2v2LRobust(FineTuned):
    """tuned: see above."""

    epochs: int = 5  # [excerpt: a reader's notes]
    batch: int = 32  # [from memory]
    layers: int | None = 12  # [excerpt: the model card]
    tuned: bool = True

    name: ClassVar[str] = "w2v2-l-robust"

    @property
    def title(self) -> str:
        embedded = f" (on {EMBEDDED})" if self.encoder == EMBEDDED else ""
        return f"w2v2-L-robust{embedded}" + ("" if self.tuned else ", embeddings and SVM")

    @property
    def validates(self) -> bool:
        return self.tuned and super().validates

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Net(self.begun(), classes)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(trainable(net), lr=1e-4)  # [from memory]

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        if self.tuned:
            return super().learn(train, validation, place)
        device = torch.device(place.context.device)
        net = Net(self.begun(), 2).to(device).eval()

        def embedded(pieces: Pieces) -> Pieces:
            return [one.numpy() for one in self.outputs(net.embedding, pieces, device)]

        train = replace(train, pieces=embedded(train.pieces))
        probs = fitted(lambda _: svm(gamma="auto"), train)
        return Learnt(lambda pieces: probs(np.concatenate(embedded(pieces))))


class Net(nn.Module):
    """The mean of the last states, dropout .1, Linear, tanh, dropout .1, Linear [read]."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        size = backbone.hidden_size
        self.head = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(size, size),
            nn.Tanh(),
            nn.Dropout(0.1),
            nn.Linear(size, classes),
        )

    def embedding(self, batch: Batch) -> Tensor:
        features, frames = batch
        return averaged(self.backbone(features, frames), frames)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.embedding(batch))


SYSTEM = W2v2LRobust
