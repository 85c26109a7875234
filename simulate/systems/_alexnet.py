"""AlexNet, and the images of speech it is given: shared by DCNN and the CNN systems of BAUM-1s.

No package that this project may depend on brings ImageNet's weights, so a system names which of
three it begins with (`alexnet`):

    a path      the user's own weights, safetensors or a state dictionary, named as torchvision
                names them, of its one-tower AlexNet or of Krizhevsky's two-tower one: the
                published system.
    "scratch"   nothing: a quarter of the channels, images of 64 x 64, trained on the labels alone.
    "random"    random filters of the same small network, never trained; only what follows learns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio import functional as audio

from after_model.audio import SAMPLE_RATE
from simulate.systems._sound import deltas, segments, stft

SCRATCH, RANDOM = "scratch", "random"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """channels: of the five convolutions. groups: of the second, fourth and fifth, whose halves ran
    on two cards. stride, padding: of the first. normalised: with local response normalisation."""

    channels: tuple[int, int, int, int, int]
    hidden: int
    size: int
    groups: int = 1
    stride: int = 4
    padding: int = 0
    normalised: bool = False


TWO_TOWERS = Layout((96, 256, 384, 384, 256), 4096, 227, groups=2, normalised=True)
"""Krizhevsky et al. 2012; 60,965,224 parameters with 1,000 classes, what the papers speak of."""
ONE_TOWER = Layout((64, 192, 384, 256, 256), 4096, 224, padding=2)
"""torchvision's; 61,100,840 parameters with 1,000 classes."""
SMALL = Layout((24, 64, 96, 96, 64), 1024, 64, stride=2)
"""A quarter of the two towers' channels; the stride leaves conv2 the 13 x 13 that it has there."""


class AlexNet(nn.Module):
    """Images uint8 or float [B, 3, H, W] in 0..255, of any size -> logits [B, C]."""

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, layout: Layout) -> None:
        super().__init__()
        a, b, c, d, e = layout.channels
        groups, self.layout = layout.groups, layout
        self.features = nn.Sequential(  # numbered as in torchvision
            nn.Conv2d(3, a, 11, layout.stride, layout.padding),
            nn.ReLU(),
            pool(layout),
            nn.Conv2d(a, b, 5, padding=2, groups=groups),
            nn.ReLU(),
            pool(layout),
            nn.Conv2d(b, c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c, d, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(d, e, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        with torch.no_grad():
            side = self.features(torch.zeros(1, 3, layout.size, layout.size)).shape[-1]
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(e * side * side, layout.hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(layout.hidden, layout.hidden),
            nn.ReLU(),
            nn.Linear(layout.hidden, classes),
        )
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN)[:, None, None], False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD)[:, None, None], False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(self.fitted(images)).flatten(1))

    def fc7(self, images: Tensor) -> Tensor:
        """What the last layer reads: [B, hidden]."""
        return self.classifier[:6](self.features(self.fitted(images)).flatten(1))

    def conv4(self, images: Tensor) -> Tensor:
        """[B, channels * side * side], 64,896 of the two towers."""
        return self.features[:10](self.fitted(images)).flatten(1)

    def fitted(self, images: Tensor) -> Tensor:
        """Resized, and normalised as ImageNet's images were."""
        size = (self.layout.size, self.layout.size)
        images = images.float()
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return (images - self.mean) / self.std


def pool(layout: Layout) -> nn.Module:
    pooling = nn.MaxPool2d(3, 2)
    if not layout.normalised:
        return pooling
    return nn.Sequential(nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0), pooling)


def begun(alexnet: str, classes: int) -> AlexNet:
    """By what it begins with; the last layer is always new, by torch's random state.

    Raises ValueError for a file whose tensors are not AlexNet's, naming what is amiss.
    """
    if alexnet in (SCRATCH, RANDOM):
        return AlexNet(classes, SMALL)
    state = {k: v for k, v in _read(alexnet).items() if not k.startswith("classifier.6")}
    try:
        net = AlexNet(classes, _layout(state))
    except (KeyError, IndexError) as error:
        raise ValueError(f"{alexnet}: no AlexNet as torchvision names it: {error}") from None
    wanted = {k: list(v.shape) for k, v in net.state_dict().items() if "classifier.6" not in k}
    found = {k: list(v.shape) for k, v in state.items()}
    if found != wanted:
        wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        raise ValueError(f"{alexnet}: missing, unknown or of another shape: {', '.join(wrong)}")
    net.load_state_dict(state, strict=False)
    return net


def named(alexnet: str) -> str:
    """What a result says it began with; a file goes by its content (hashed()), not by its place."""
    return alexnet if alexnet in (SCRATCH, RANDOM) else "file"


def variant(alexnet: str) -> str:
    """What is added to a title, so that a row says that it isn't the published system."""
    return {SCRATCH: ", AlexNet from scratch", RANDOM: ", random AlexNet"}.get(alexnet, "")


@lru_cache(maxsize=8)
def hashed(alexnet: str) -> str:
    if alexnet in (SCRATCH, RANDOM):
        return ""
    with open(alexnet, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


# --- images ------------------------------------------------------------------------------------


def log_mel(samples: np.ndarray) -> np.ndarray:
    """64 mel bands from 20 to 8,000 Hz, 25 ms Hamming, hop 10 ms: float32 [64, T].

    As Zhang's papers have them [excerpt: their abstracts, and a re-implementation]; the floor of
    the logarithm is an assumption.
    """
    power = stft(samples, 400, 160, n_fft=512, window="hamming") ** 2
    return np.log(np.maximum(_mel() @ power, 1e-10)).astype(np.float32)


def images(mel: np.ndarray, frames: int = 64, step: int = 30) -> np.ndarray:
    """[64, T] -> uint8 [K, 3, 64, frames]: segments of the bands, their slopes, and the slopes'.

    Each channel of each segment from 0 to 255 [excerpt]; that it is by segment is an assumption.
    """
    first = deltas(mel)
    channels = np.stack([mel, first, deltas(first)])  # [3, 64, T]
    return scaled(segments(channels, frames, step))


def scaled(values: np.ndarray) -> np.ndarray:
    """The last two axes from 0 (least) to 255 (largest), uint8."""
    low, high = (f(axis=(-2, -1), keepdims=True) for f in (values.min, values.max))
    return np.round(255 * (values - low) / np.maximum(high - low, 1e-8)).astype(np.uint8)


def _layout(state: Mapping[str, Tensor]) -> Layout:
    """By the shapes: two groups are the two towers."""
    convolutions = [state[f"features.{i}.weight"] for i in (0, 3, 6, 8, 10)]
    a, b, c, d, e = (len(weight) for weight in convolutions)
    groups = a // convolutions[1].shape[1]
    known = TWO_TOWERS if groups == 2 else ONE_TOWER
    return replace(known, channels=(a, b, c, d, e), hidden=len(state["classifier.1.weight"]))


def _read(path: str) -> Mapping[str, Tensor]:
    if Path(path).suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    found = torch.load(path, map_location="cpu", weights_only=True)
    return found.get("state_dict", found)


@lru_cache(maxsize=1)
def _mel() -> np.ndarray:
    filters = audio.melscale_fbanks(257, 20.0, 8000.0, 64, SAMPLE_RATE)
    return filters.T.numpy()
