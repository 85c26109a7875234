"""RH-emo (Guizzo et al. 2023): real features made into quaternions, and a quaternion network.

An autoencoder whose four planes stand for emotion, valence, arousal and dominance; then a
quaternion network reads the planes. [read] is ispamm/rhemo. In three phases:

    1  reconstruction alone, of all training recordings, without a label: prepare()
    2  reconstruction and emotion, the planes' networks beside the decoder
    3  the encoder frozen, a quaternion AlexNet from scratch on the planes

The corpora at hand have no valence, arousal or dominance, so their loss's weight (b_vad, 100 there)
is 0, and of the four planes' networks the emotion's alone is trained. "happy" there is without
excited. Epochs were chosen by the validation loss; here as everywhere. A recording's score is the
mean over its segments; there each segment was scored by itself.

Published, IEMOCAP, random 70/20/10, speakers overlap; AFTER prints 68.26 / 67.35 (UA / WA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.audio import Utterance
from simulate.systems._network import Network
from simulate.systems._sound import segments, stft, wave
from simulate.systems._supervised import PUBLISHED, Examples, Learnt, Pieces, Place
from simulate.systems.base import Context

BINS = 128
PARAMETERS = 134_283_664
"""Of the second phase, five classes [counted]; AFTER's Table 4 says 25 million."""
EMOTION_WEIGHT = 0.01
"""b [read]."""


@dataclass(frozen=True)
class RhEmo(Network):
    """frames: of a segment, 512 every 8 ms, about 4 s [read]. hidden: of the planes' networks.
    width: of the quaternion AlexNet's channels, 16 as published. first_epochs, second_epochs: of
    the phases before (there until 100 and 30 epochs bring nothing: assumptions). learning_rate: of
    the third phase [read]."""

    epochs: int = 500  # [read]
    batch: int = 20  # [read]
    patience: int = 20  # [read]
    frames: int = 512
    hidden: int = 4096
    width: int = 16
    first_epochs: int = 100
    second_epochs: int = 100
    learning_rate: float = 1e-5

    name: ClassVar[str] = "rh-emo"

    @property
    def title(self) -> str:
        return "RH-emo"

    def front_end(self) -> Any:
        return self.frames

    def features(self, item: Utterance) -> np.ndarray:
        """Magnitudes [K, frames, 128]: Hamming 256, hop 128, without the highest bin [read]."""
        magnitudes = stft(wave(item), 256, 128, window="hamming")[:BINS]
        return segments(magnitudes, self.frames, self.frames).transpose(0, 2, 1).astype(np.float32)

    # --- phases ----------------------------------------------------------------------------------

    def preparation(self, seed: int) -> Any:
        return [self.frames, self.first_epochs, seed]

    def prepare(self, items: Sequence[Utterance], context: Context) -> None:
        found, _ = self.pieces(items, context)
        self._first([one for one in found if one is not None], context)

    def _first(self, pieces: Pieces, context: Context) -> dict[str, Tensor]:
        """The first phase's weights: those of prepare(), where it has been there."""
        phase = Reconstruction(frames=self.frames, batch=50, epochs=self.first_epochs)  # [read]
        place = Place(context, context.prepared / "reconstruction", context.seed)
        net, _ = phase.trained(Examples(pieces, np.zeros((len(pieces), 2))), None, place)
        return net.state_dict()

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        first = self._first(train.pieces, place.context)
        common = {**vars(self), "evaluation": PUBLISHED}
        second = Supervision(**{**common, "epochs": self.second_epochs}, begun=first)
        before = replace(place, path=place.path.with_name(f"{place.path.name}-second"))
        net, _ = second.trained(train, None, before)
        third = Classification(**vars(self), begun=net.state_dict())
        return third.learn(train, validation, place)

    def network(self, classes: int, train: Pieces) -> nn.Module:
        raise NotImplementedError("its phases have their own")

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-3)  # [read]


@dataclass(frozen=True)
class Phase(RhEmo):
    """begun: the weights of the phase before."""

    begun: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def _carried(self, net: nn.Module) -> nn.Module:
        known = {k: v for k, v in self.begun.items() if k.startswith("autoencoder.")}
        net.load_state_dict(known, strict=False)
        return net

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        return super(RhEmo, self).learn(train, validation, place)


@dataclass(frozen=True)
class Reconstruction(Phase):
    """The first phase."""

    def network(self, classes: int, train: Pieces) -> nn.Module:
        largest = max(float(one.max()) for one in train)
        return nn.ModuleDict({"autoencoder": Autoencoder(largest)})

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: Any
    ) -> Tensor:
        autoencoder = net["autoencoder"]  # type: ignore[index]
        return F.binary_cross_entropy(autoencoder(inputs), autoencoder.wanted(inputs))


@dataclass(frozen=True)
class Supervision(Phase):
    """The second phase: 1e-6, weight decay 1e-5 [read]."""

    def network(self, classes: int, train: Pieces) -> nn.Module:
        return self._carried(Planes(classes, self.frames, self.hidden))

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-6, weight_decay=1e-5)

    def loss(
        self, net: nn.Module, inputs: Any, targets: Tensor, criterion: Any, rng: Any
    ) -> Tensor:
        assert isinstance(net, Planes)
        planes = net.autoencoder.planes(inputs)
        rebuilt = net.autoencoder.rebuilt(planes)
        emotion = criterion(net.heads[0](planes[:, 0].flatten(1)), targets)
        wanted = net.autoencoder.wanted(inputs)
        return F.binary_cross_entropy(rebuilt, wanted) + EMOTION_WEIGHT * emotion


@dataclass(frozen=True)
class Classification(Phase):
    """The third phase: the encoder's weights are frozen, its normalisation sees the batch
    [both read]."""

    def network(self, classes: int, train: Pieces) -> nn.Module:
        net = self._carried(Classifier(classes, self.width))
        assert isinstance(net, Classifier)
        net.autoencoder.requires_grad_(False)
        return net

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            [p for p in net.parameters() if p.requires_grad], lr=self.learning_rate
        )


# --- networks ------------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """Magnitudes [B, T, 128] -> four planes [B, 4, T / 8, 64] -> [B, T, 128] in 0..1."""

    largest: Tensor

    def __init__(self, largest: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("largest", torch.tensor(max(largest, 1e-8)))
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(2),
            nn.Conv2d(2, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
        )
        self.decoder = nn.Sequential(
            QuaternionTransposed((2, 1)),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            QuaternionTransposed((2, 1)),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            QuaternionTransposed((2, 2)),
        )

    def wanted(self, magnitudes: Tensor) -> Tensor:
        """Divided by the training part's largest [read]."""
        return (magnitudes / self.largest).clamp(0, 1)

    def planes(self, magnitudes: Tensor) -> Tensor:
        return self.encoder(self.wanted(magnitudes)[:, None])

    def rebuilt(self, planes: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(planes)).mean(dim=1)  # of its four planes [read]

    def forward(self, magnitudes: Tensor) -> Tensor:
        return self.rebuilt(self.planes(magnitudes))


class Planes(nn.Module):
    """The autoencoder, and a network for each plane: emotion, valence, arousal, dominance."""

    def __init__(self, classes: int, frames: int = 512, hidden: int = 4096) -> None:
        super().__init__()
        self.autoencoder = Autoencoder()
        size = frames // 8 * BINS // 2
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(size, hidden),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(hidden, outputs),
            )
            for outputs in (classes, 1, 1, 1)
        )


class Classifier(nn.Module):
    """The frozen encoder and a quaternion AlexNet: the one-tower one's channels, a quarter of its
    weights. That 64 x 64 planes go in as they are is an assumption."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.autoencoder = Autoencoder()
        a, b, c, d = (4 * width * n for n in (1, 3, 6, 4))  # 64, 192, 384, 256
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride, padding, pools in (
            (4, a, 11, 4, 2, True),
            (a, b, 5, 1, 2, True),
            (b, c, 3, 1, 1, False),
            (c, d, 3, 1, 1, False),
            (d, d, 3, 1, 1, False),
        ):
            layers += [Quaternion(inputs, outputs, kernel, stride, padding), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2, 1)] if pools else []
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        wide = 256 * width  # 4,096
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            Quaternion(d, wide, 1),
            nn.ReLU(),
            nn.Dropout(0.5),
            Quaternion(wide, wide, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(wide, classes),
        )

    def forward(self, magnitudes: Tensor) -> Tensor:
        return self.classifier(self.features(self.autoencoder.planes(magnitudes)))


class Quaternion(nn.Module):
    """A convolution of quaternions: channels are their four parts, one after the other, and every
    kernel multiplies from the left by Hamilton's product."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.parts = nn.Parameter(torch.empty(4, outputs // 4, inputs // 4, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.parts, std=(2 / (inputs * kernel**2)) ** 0.5)  # He's, of all inputs

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, hamilton(self.parts), self.bias, self.stride, self.padding)


class QuaternionTransposed(nn.Module):
    """One quaternion in, one out; it undoes a pooling's stride."""

    def __init__(self, stride: tuple[int, int]) -> None:
        super().__init__()
        self.stride, self.more = stride, (stride[0] - 1, stride[1] - 1)
        self.parts = nn.Parameter(torch.empty(4, 1, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(4))
        nn.init.normal_(self.parts, std=(2 / 36) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = hamilton(self.parts).transpose(0, 1)
        return F.conv_transpose2d(x, weight, self.bias, self.stride, 1, self.more)


def hamilton(parts: Tensor) -> Tensor:
    """Quaternions' parts [4, O, I, ...] as the real matrix [4 O, 4 I, ...] of their product."""
    r, i, j, k = parts.unbind()
    rows = ((r, -i, -j, -k), (i, r, -k, j), (j, k, r, -i), (k, -j, i, r))
    return torch.cat([torch.cat(row, dim=1) for row in rows])


SYSTEM = RhEmo
