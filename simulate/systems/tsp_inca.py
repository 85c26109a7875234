"""TSP+INCA (Tuncer et al. 2021): twine-shuffle-pattern features, and as many as serve best.

A tunable-Q wavelet transform; of the signal and each of its bands, histograms of how samples
compare with their shuffled neighbours; features weighed by neighbourhood component analysis
(NCA), and the k heaviest of them kept, k with the least error; a cubic SVM [excerpt: the
abstract; the details from memory]. Q, r, J, the range of k and the rate of 16 kHz are
assumptions; NCA's weights are after Yang et al. 2012. No public code is known.

Published (UA / WA): EmoDB 89.47 / 90.09, RAVDESS 87.43 / 87.43, SAVEE 83.38 / 84.79; ten random
folds, features selected on all the data [from memory]. Here they are selected on the training part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from after_model.audio import Utterance
from simulate.systems._sound import wave
from simulate.systems._supervised import Examples
from simulate.systems._vectors import Vectors, svm, validated

TWINE = (5, 0, 1, 4, 7, 12, 3, 8, 13, 6, 9, 2, 15, 10, 11, 14)
"""The shuffle of the cipher's 16 nibbles [read: several public TWINE codes]."""
Q, REDUNDANCY, LEVELS = 1.0, 3.0, 8  # assumption
BANDS = LEVELS + 2  # the signal, eight high bands, what is below


@dataclass(frozen=True)
class TspInca(Vectors):
    """sizes: k is one of these; the paper's range from memory, 100 to 1,000, in steps of 50 here.
    nca_steps: of Adam on the weights."""

    sizes: tuple[int, ...] = tuple(range(100, 1001, 50))
    nca_steps: int = 60

    name: ClassVar[str] = "tsp-inca"

    @property
    def title(self) -> str:
        return "TSP+INCA"

    def front_end(self) -> Any:
        return [Q, REDUNDANCY, LEVELS]

    def features(self, item: Utterance) -> np.ndarray:
        """Shares, not counts, so that long recordings are no other than short ones: [1, 5120]."""
        samples = wave(item)
        bands = [samples, *tqwt(samples)]
        return np.concatenate([twine_shuffle(band) for band in bands])[None].astype(np.float32)

    def estimator(self, train: Examples) -> Any:
        vectors = MinMaxScaler().fit_transform(np.concatenate(train.pieces))
        order = np.argsort(-nca_weights(vectors, train.classes, self.nca_steps), kind="stable")

        def ua(size: int) -> float:
            kept = [one[None, order[:size]] for one in vectors]
            return validated(Examples(kept, train.targets, train.speakers), cubic)

        sizes = [size for size in self.sizes if size < len(order)] or [len(order)]
        return make_pipeline(MinMaxScaler(), Columns(order[: max(sizes, key=ua)]), cubic())


def cubic() -> Any:
    return svm(kernel="poly", degree=3, coef0=1.0)


class Columns(TransformerMixin, BaseEstimator):
    """Those columns alone."""

    def __init__(self, columns: np.ndarray) -> None:
        self.columns = columns

    def fit(self, vectors: np.ndarray, classes: Any = None) -> Columns:
        return self

    def transform(self, vectors: np.ndarray) -> np.ndarray:
        return vectors[:, self.columns]

    def __sklearn_is_fitted__(self) -> bool:
        return True


def twine_shuffle(samples: np.ndarray) -> np.ndarray:
    """[S] -> [512]: of all windows of 16 samples, the two bytes that say which samples are not less
    than the one that TWINE's shuffle puts beside them, as two histograms."""
    if len(samples) < 16:
        samples = np.pad(samples, (0, 16 - len(samples)))
    windows = np.lib.stride_tricks.sliding_window_view(samples, 16)
    bits = windows >= windows[:, TWINE]
    halves = np.packbits(bits, axis=1).T  # [2, windows]
    return np.concatenate([np.bincount(half, minlength=256) for half in halves]) / len(windows)


def tqwt(samples: np.ndarray) -> list[np.ndarray]:
    """The tunable-Q wavelet transform (Selesnick 2011): J high bands, then what is below.

    Each level parts the spectrum by two overlapping filters and keeps of each what it lets through;
    the energies of all bands together are the signal's.
    """
    samples = np.pad(samples.astype(np.float64), (0, len(samples) % 2))
    size = len(samples)
    high_scale = 2 / (Q + 1)
    low_scale = 1 - high_scale / REDUNDANCY
    spectrum = np.fft.rfft(samples) / np.sqrt(size)
    bands = []
    for level in range(1, LEVELS + 1):
        low_size = 2 * round(low_scale**level * size / 2)
        high_size = 2 * round(high_scale * low_scale ** (level - 1) * size / 2)
        if min(low_size, high_size) < 4 or low_size + high_size <= 2 * (len(spectrum) - 1):
            break  # too short a recording for this level
        spectrum, high = _parted(spectrum, low_size, high_size)
        bands.append(_signal(high))
    missing = [np.zeros(16)] * (LEVELS - len(bands))
    return [*bands, *missing, _signal(spectrum)]


def _parted(spectrum: np.ndarray, low_size: int, high_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Half a spectrum [1 + N / 2] -> those of the low and of the high band.

    Passed whole by one of them, or shared: there the squares of what each gets add up to 1, along
    Daubechies' (1 + cos) sqrt(2 - cos) / 2.
    """
    size = 2 * (len(spectrum) - 1)
    passed, shared = (size - high_size) // 2, (low_size + high_size - size) // 2 - 1
    angle = np.arange(1, shared + 1) / (shared + 1) * np.pi
    falling = (1 + np.cos(angle)) * np.sqrt(2 - np.cos(angle)) / 2
    between = spectrum[passed + 1 : passed + shared + 1]
    low, high = (np.zeros(n // 2 + 1, complex) for n in (low_size, high_size))
    low[: passed + 1] = spectrum[: passed + 1]
    low[passed + 1 : passed + shared + 1] = between * falling
    high[1 : shared + 1] = between * falling[::-1]
    high[shared + 1 :] = spectrum[passed + shared + 1 :]
    return low, high


def _signal(spectrum: np.ndarray) -> np.ndarray:
    size = 2 * (len(spectrum) - 1)
    return np.fft.irfft(spectrum, size) * np.sqrt(size)


def nca_weights(
    vectors: np.ndarray, classes: np.ndarray, steps: int, rows: int = 256, seed: int = 0
) -> np.ndarray:
    """How much each feature helps a recording to find one of its class next to it: [N, D] -> [D].

    Yang et al. 2012: w maximises the mean probability that a neighbour, drawn by
    exp(-sum w^2 |difference|), has the same class, less a penalty of 1/N on w^2. Each step looks at
    no more than `rows` of the recordings, against each other, so that it costs the same whatever N.
    """
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(vectors.astype(np.float32))
    labels = torch.from_numpy(classes)
    weights = torch.ones(values.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    spread = float(np.abs(vectors - vectors.mean(axis=0)).sum(axis=1).mean()) or 1.0
    for _ in range(steps):
        some = torch.from_numpy(rng.permutation(len(values))[:rows])
        scaled = values[some] * weights.square()
        distances = torch.cdist(scaled, scaled, p=1) * (10 / spread)
        distances = distances + torch.diag(torch.full((len(some),), float("inf")))
        near = (-distances).softmax(dim=1)
        same = labels[some][:, None] == labels[some]
        penalty = weights.square().sum() / len(values) / len(weights)
        loss = penalty - (near * same).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach().square().numpy()


SYSTEM = TspInca
