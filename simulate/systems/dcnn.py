"""DCNN (Farooq et al. 2020): features of a pre-trained AlexNet, chosen by correlation, and an SVM.

A spectrogram of the whole recording as an image of 227 x 227; AlexNet's fourth convolution (64,896
outputs [from memory]); correlation-based feature selection; of the classifiers that the paper
compares, the SVM [excerpt: abstract]. How the spectrogram is made is open there: 25 ms, 10 ms, the
logarithm, are assumptions.

Published: speaker-dependent EmoDB 95.10, SAVEE 82.10, IEMOCAP 83.80, RAVDESS 81.30; independent
90.50, 66.90, 76.60, 73.50 [from memory]. AFTER's Table 5 prints the dependent one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from torch.nn import functional as F

from after_model.audio import Utterance
from simulate.systems import _alexnet
from simulate.systems._alexnet import AlexNet, begun, scaled
from simulate.systems._network import seeded
from simulate.systems._sound import stft, wave
from simulate.systems._supervised import Examples
from simulate.systems._vectors import Vectors, best_cost, svm

IMAGE = 227
FILTERS = 0
"""Seed of the random filters, the same for every run, since features are shared by all."""


@dataclass(frozen=True)
class Dcnn(Vectors):
    """alexnet: "random" or a file (_alexnet.py); nothing of it is trained. most: features that are
    taken at most (of this project, to end early; the paper's selection ends by itself)."""

    alexnet: str = _alexnet.RANDOM
    most: int = 300

    name: ClassVar[str] = "dcnn"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alexnet == _alexnet.SCRATCH:
            raise ValueError("dcnn trains no filters: alexnet is 'random' or a file")

    @property
    def title(self) -> str:
        return "DCNN" + _alexnet.variant(self.alexnet)

    @property
    def backbone(self) -> str:
        return f"AlexNet, {_alexnet.named(self.alexnet)}"

    def values(self) -> dict[str, Any]:
        return {**super().values(), "alexnet": _alexnet.named(self.alexnet)}

    def weights(self) -> str:
        return _alexnet.hashed(self.alexnet)

    def front_end(self) -> Any:
        return [_alexnet.named(self.alexnet), self.weights()]

    def features(self, item: Utterance) -> np.ndarray:
        """conv4 of the recording's spectrogram: [1, D]."""
        logs = np.log(stft(wave(item), 400, 160, n_fft=512) + 1e-5)
        picture = torch.from_numpy(logs)[None, None]
        picture = F.interpolate(picture, (IMAGE, IMAGE), mode="bilinear", align_corners=False)
        image = torch.from_numpy(scaled(picture.numpy())).expand(1, 3, IMAGE, IMAGE)
        with torch.inference_mode():
            return _filters(self.alexnet).conv4(image).numpy()

    def estimator(self, train: Examples) -> Any:
        chosen = Correlated(self.most).fit(np.concatenate(train.pieces), train.classes)
        few = Examples(
            [chosen.transform(one) for one in train.pieces], train.targets, train.speakers
        )
        return make_pipeline(Correlated(self.most), svm(best_cost(few)))


@lru_cache(maxsize=1)
def _filters(alexnet: str) -> AlexNet:
    with seeded(torch.device("cpu"), FILTERS):
        return begun(alexnet, 2).eval()


class Correlated(TransformerMixin, BaseEstimator):
    """Correlation-based feature selection (Hall 1999): forward, greedy.

    Features that go with the class but not with each other: the merit of k features is
    k r_cf / sqrt(k + k (k - 1) r_ff), with the mean correlations to the class and among each other;
    selection ends where it rises no more. r is Pearson's, without its sign; of the class the mean
    over its indicators, weighted by how frequent each class is. Correlations among features are
    computed for those that are taken alone, so time and memory are linear in both sizes.
    """

    def __init__(self, most: int = 300) -> None:
        self.most = most

    def fit(self, vectors: np.ndarray, classes: np.ndarray) -> Correlated:
        features = _unit(vectors)
        indicators = (classes[:, None] == np.unique(classes)).astype(np.float64)
        share = indicators.mean(axis=0)
        with_class = np.abs(features.T @ _unit(indicators)) @ share  # [D]
        taken: list[int] = []
        among = np.zeros(len(with_class))  # of each, its correlations with those taken, summed
        total_class = total_among = best = 0.0
        while len(taken) < min(self.most, len(with_class)):
            k = len(taken) + 1
            merit = (total_class + with_class) / np.sqrt(k + 2 * (total_among + among))
            merit[taken] = -1
            row = int(merit.argmax())
            if merit[row] <= best + 1e-9 and taken:
                break
            best = float(merit[row])
            taken.append(row)
            total_class += with_class[row]
            total_among += among[row]
            among += np.abs(features.T @ features[:, row])
        self.taken_ = np.array(taken)
        return self

    def transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, self.taken_]


def _unit(values: np.ndarray) -> np.ndarray:
    """Columns without their mean, of length 1; constant ones are 0."""
    values = values - values.mean(axis=0)
    length = np.sqrt((values**2).sum(axis=0))
    return np.where(length > 1e-6, values / np.maximum(length, 1e-12), 0)


SYSTEM = Dcnn
