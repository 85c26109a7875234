"""MFCC and RASTA-PLP with an SVM (Zhalehpour et al. 2017, the baseline of BAUM-1).

Statistics of frame features over a recording. The paper wasn't at hand: window, orders, the list of
statistics and the SVM are assumptions, after what such baselines are. RASTA-PLP is written after
Hermansky & Morgan 1994.

Published, on BAUM-1s (six classes, speakers kept apart): 29.41.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import scipy.fft
import scipy.signal
from scipy.linalg import solve_toeplitz
from scipy.stats import kurtosis, skew
from torchaudio import functional as audio

from after_model.audio import SAMPLE_RATE, Utterance
from simulate.systems._sound import deltas, stft, wave
from simulate.systems._supervised import Examples
from simulate.systems._vectors import Vectors, best_cost, svm

WINDOW, HOP, N_FFT = 400, 160, 512  # 25 and 10 ms
MFCCS, ORDER = 12, 12  # an order of 12 gives 13 cepstra
FLOOR = 1e-10


@dataclass(frozen=True)
class MfccPlpSvm(Vectors):
    """600 numbers a recording, an RBF kernel; its C by cross-validation over speakers."""

    name: ClassVar[str] = "mfcc-plp-svm"

    @property
    def title(self) -> str:
        return "MFCC+PLP+SVM (93)"

    def front_end(self) -> Any:
        return 1

    def features(self, item: Utterance) -> np.ndarray:
        """Eight statistics over time of 25 features, their slopes, and their slopes' slopes."""
        power = stft(wave(item), WINDOW, HOP, n_fft=N_FFT, window="hamming") ** 2
        frames = np.concatenate([_mfcc(power), rasta_plp(power)])  # [25, T]
        first = deltas(frames)
        frames = np.concatenate([frames, first, deltas(first)])
        spread = frames.std(axis=1)
        moments = [np.where(spread > 1e-9, f(frames, axis=1), 0) for f in (skew, kurtosis)]
        low, high = frames.min(axis=1), frames.max(axis=1)
        middle = [frames.mean(axis=1), spread, np.median(frames, axis=1)]
        found = np.concatenate([high, low, high - low, *middle, *moments])
        return np.nan_to_num(found)[None].astype(np.float32)

    def estimator(self, train: Examples) -> Any:
        return svm(best_cost(train))


def _mfcc(power: np.ndarray) -> np.ndarray:
    """c1 to c12 of 40 mel bands: [257, T] -> [12, T]."""
    bands = np.log(np.maximum(_mel() @ power, FLOOR))
    return scipy.fft.dct(bands, axis=0, norm="ortho")[1 : MFCCS + 1]


def rasta_plp(power: np.ndarray) -> np.ndarray:
    """Power spectra [257, T] -> 13 cepstra [13, T].

    Critical bands; RASTA, a band-pass over time of their logarithms, which takes away what a
    channel adds; equal loudness; loudness as the cube root; an all-pole model of that, and its
    cepstrum.
    """
    weights, middle_hz = _bark()
    logs = np.log(np.maximum(weights @ power, FLOOR))
    logs = scipy.signal.lfilter([0.2, 0.1, 0.0, -0.1, -0.2], [1.0, -0.94], logs, axis=1)
    loudness = np.cbrt(_equal_loudness(middle_hz)[:, None] * np.exp(logs))
    loudness[0], loudness[-1] = loudness[1], loudness[-2]  # what is at the edges can't be trusted
    return np.stack([_cepstrum(frame) for frame in loudness.T], axis=1)


def _cepstrum(spectrum: np.ndarray) -> np.ndarray:
    """Of the all-pole model of a power spectrum at equal distances: [B] -> [1 + ORDER]."""
    correlation = np.fft.irfft(spectrum)[: ORDER + 1]
    correlation[0] *= 1 + 1e-9
    poles = np.concatenate([[1.0], solve_toeplitz(correlation[:-1], -correlation[1:])])
    gain = max(float(poles @ correlation), FLOOR)
    found = np.zeros(ORDER + 1)
    found[0] = math.log(gain)
    for n in range(1, ORDER + 1):
        earlier = sum(k * found[k] * poles[n - k] for k in range(1, n))
        found[n] = -poles[n] - earlier / n
    return found


def _equal_loudness(hz: np.ndarray) -> np.ndarray:
    """Hermansky 1990, eq. 5, with frequency in Hz."""
    square = hz**2
    return (square / (square + 1.6e5)) ** 2 * (square + 1.44e6) / (square + 9.61e6)


@lru_cache(maxsize=1)
def _bark() -> tuple[np.ndarray, np.ndarray]:
    """Critical-band weights [B, 257], bands one Bark apart, and their middles in Hz [B].

    Hermansky 1990, eq. 2 to 4: 6 asinh(f / 600) Bark; a band is flat for one Bark, and falls by 25
    dB a Bark below and by 10 above.
    """
    bins = 6 * np.arcsinh(np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1) / 600)
    middles = np.linspace(0, bins[-1], math.ceil(bins[-1]) + 1)
    away = bins - middles[:, None]
    slopes = np.minimum(2.5 * (away + 0.5), -(away - 0.5))
    return 10 ** np.minimum(0, slopes), 600 * np.sinh(middles / 6)


@lru_cache(maxsize=1)
def _mel() -> np.ndarray:
    filters = audio.melscale_fbanks(N_FFT // 2 + 1, 0.0, SAMPLE_RATE / 2, 40, SAMPLE_RATE)
    return filters.T.numpy()


SYSTEM = MfccPlpSvm
