"""Systems that fine-tune AlexNet on segments of speech and read its last hidden layer (fc7).

Zhang's and Ma's systems differ in what becomes of a recording's fc7 vectors: see their files.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from after_model.audio import Utterance
from simulate.systems import _alexnet
from simulate.systems._alexnet import AlexNet, begun, images, log_mel
from simulate.systems._network import Network, seeded
from simulate.systems._sound import wave
from simulate.systems._supervised import Examples, Learnt, Pieces, Place
from simulate.systems._vectors import fitted


@dataclass(frozen=True)
class Cnn(Network):
    """alexnet: see _alexnet.py. frames, step: of the segments, 10 ms each [excerpt].

    Stochastic gradient descent at .001, batches of 30, 300 epochs [read: a re-implementation]; its
    momentum, .9, is an assumption. "scratch" has Adam at 1e-3 instead (of this project): gradient
    descent at that rate would leave random weights where they are.
    """

    epochs: int = 300
    batch: int = 30
    alexnet: str = _alexnet.SCRATCH
    frames: int = 64
    step: int = 30

    published: ClassVar[str]
    """What the paper's table calls it."""

    @property
    def title(self) -> str:
        return self.published + _alexnet.variant(self.alexnet)

    def values(self) -> dict[str, Any]:
        return {**super().values(), "alexnet": _alexnet.named(self.alexnet)}

    def weights(self) -> str:
        return _alexnet.hashed(self.alexnet)

    @property
    def backbone(self) -> str:
        return f"AlexNet, {_alexnet.named(self.alexnet)}"

    @property
    def validates(self) -> bool:
        return self.alexnet != _alexnet.RANDOM and super().validates

    def front_end(self) -> Any:
        return 1

    def features(self, item: Utterance) -> np.ndarray:
        """The log-mel spectrum [1, 64, T]; segments are cut from it when they are wanted."""
        return log_mel(self.heard(wave(item)))[None]

    def heard(self, samples: np.ndarray) -> np.ndarray:
        """What of a recording is listened to."""
        return samples

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return begun(self.alexnet, classes)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        if self.alexnet == _alexnet.SCRATCH:
            return torch.optim.Adam(net.parameters(), lr=1e-3)
        return torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def collated(self, pieces: list[np.ndarray]) -> Any:
        return torch.from_numpy(np.stack(pieces))

    def cut(self, pieces: Pieces) -> Pieces:
        """Spectra [1, 64, T] -> segments uint8 [K, 3, 64, frames]."""
        return [images(one[0], self.frames, self.step) for one in pieces]

    def embedded(
        self, train: Examples, validation: Examples | None, place: Place
    ) -> tuple[Any, dict[str, Any]]:
        """The CNN, trained, as a function of spectra that gives fc7 [K, D] of each; and notes."""
        device = torch.device(place.context.device)
        notes: dict[str, Any] = {}
        if self.alexnet == _alexnet.RANDOM:
            with seeded(device, place.seed):
                net = begun(self.alexnet, train.targets.shape[1]).to(device).eval()
        else:
            train = replace(train, pieces=self.cut(train.pieces))
            if validation is not None:
                validation = replace(validation, pieces=self.cut(validation.pieces))
            found, notes = self.trained(train, validation, place)
            assert isinstance(found, AlexNet)
            net = found

        def fc7(pieces: Pieces) -> Pieces:
            return [one.numpy() for one in self.outputs(net.fc7, self.cut(pieces), device)]

        return fc7, notes


@dataclass(frozen=True)
class CnnVector(Cnn):
    """One vector of a recording's fc7 vectors, and a classifier of scikit-learn."""

    @abstractmethod
    def pooled(self, train: Examples) -> Any:
        """From fc7 [K, D] of a recording to a vector; train: their fc7, to choose by."""

    @abstractmethod
    def estimator(self, train: Examples) -> Any:
        """As of Vectors."""

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        fc7, notes = self.embedded(train, validation, place)
        train = replace(train, pieces=fc7(train.pieces))
        pooled = self.pooled(train)

        def vectors(pieces: Pieces) -> Pieces:
            return [pooled(one)[None] for one in pieces]

        probs = fitted(self.estimator, replace(train, pieces=vectors(train.pieces)))
        return Learnt(lambda pieces: probs(np.concatenate(vectors(fc7(pieces)))), notes)
