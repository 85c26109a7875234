"""CNN+LSTM (Zhang et al. 2022, TAFFC 13(2)): several lengths of segments, an LSTM over each.

The CNN of cnn_svm_zhang.py on segments of several lengths; over each length's fc7 vectors an LSTM;
their scores are averaged [excerpt: the abstract]. Which lengths, how large the LSTM and how it is
trained are assumptions: 32, 64 and 96 frames, two layers of 256, Adam at 1e-4, the CNN first.

Published, on BAUM-1s (six classes, speakers kept apart), as AFTER prints it: 50.22.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from after_model.audio import Utterance
from simulate.systems._cnn import Cnn
from simulate.systems._network import Network
from simulate.systems._supervised import COMMON, Examples, Learnt, Pieces, Place


@dataclass(frozen=True)
class CnnLstm(Cnn):
    """lengths: of the segments, in frames, half of one apart. lstm_epochs: at most."""

    lengths: tuple[int, ...] = (32, 64, 96)
    lstm_epochs: int = 100

    name: ClassVar[str] = "cnn-lstm"
    published: ClassVar[str] = "CNN+LSTM (94)"

    @property
    def validates(self) -> bool:
        return self.evaluation == COMMON  # the LSTM has epochs, whatever the CNN is

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        paths: list[tuple[Any, Any]] = []
        notes: dict[str, Any] = {}
        for frames in self.lengths:
            cnn = replace(self, frames=frames, step=frames // 2)
            there = replace(place, path=place.path.with_name(f"{place.path.name}-{frames}"))
            fc7, found = cnn.embedded(train, validation, there)
            lstm = Sequences(epochs=self.lstm_epochs, batch=self.batch)
            behind = replace(place, path=there.path.with_name(f"{there.path.name}-lstm"))
            learnt = lstm.learn(
                _sequences(train, fc7), validation and _sequences(validation, fc7), behind
            )
            paths.append((fc7, learnt.score))
            notes |= {f"{k}_{frames}": v for k, v in {**found, "lstm": dict(learnt.notes)}.items()}

        def score(pieces: Pieces) -> np.ndarray:
            return np.mean([lstm([x[None] for x in fc7(pieces)]) for fc7, lstm in paths], axis=0)

        return Learnt(score, notes)


def _sequences(examples: Examples, fc7: Any) -> Examples:
    return replace(examples, pieces=[one[None] for one in fc7(examples.pieces)])


@dataclass(frozen=True)
class Sequences(Network):
    """The LSTM; its pieces are whole sequences [1, K, D]."""

    name: ClassVar[str] = "cnn-lstm"

    def front_end(self) -> Any:
        raise NotImplementedError

    def features(self, item: Utterance) -> np.ndarray:
        raise NotImplementedError

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return Lstm(np.concatenate([one[0] for one in train]), classes)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-4)

    def collated(self, pieces: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(one) for one in pieces])
        return pad_sequence([torch.from_numpy(one) for one in pieces], batch_first=True), lengths


class Lstm(nn.Module):
    """(fc7 [B, K, D], lengths [B]) -> logits [B, C], by the last state of each sequence.

    fc7 is standardised as `seen` [M, D], the training part's, would be (assumption).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, seen: np.ndarray, classes: int, size: int = 256) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(seen.mean(axis=0)))
        self.register_buffer("std", torch.from_numpy(np.maximum(seen.std(axis=0), 1e-6)))
        self.lstm = nn.LSTM(seen.shape[1], size, num_layers=2, batch_first=True)
        self.head = nn.Linear(size, classes)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        vectors, lengths = batch
        packed = pack_padded_sequence(
            (vectors - self.mean) / self.std, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, (last, _) = self.lstm(packed)
        return self.head(last[-1])


SYSTEM = CnnLstm
