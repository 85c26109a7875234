"""Front ends that several systems share: waves at a rate, cut and padded, and their spectra."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import soundfile
import torch
from torchaudio import functional as audio

from after_model.audio import SAMPLE_RATE, Utterance, load

MFCC_RATE_HZ = 22_050
"""librosa.load's, which TIM-Net, GM-TCN and CPAC take [read: their code]."""
SAMPLES = {"emodb": 96_000, "savee": 130_000, "ravdess": 110_000, "iemocap": 310_000}
"""What TIM-Net and CPAC cut or pad recordings to, at that rate [read: TIM-Net's code]."""
TOP_DB, AMIN = 80.0, 1e-10  # librosa's power_to_db


def wave(item: Utterance, rate_hz: int = SAMPLE_RATE) -> np.ndarray:
    """Mono float32 [S]. Raises AudioError for what can't be used."""
    checked = load(item.path)
    if rate_hz == SAMPLE_RATE:
        return checked
    if soundfile.info(item.path).samplerate <= SAMPLE_RATE:
        return _resampled(checked, SAMPLE_RATE, rate_hz)
    # what `load` gives has nothing above 8 kHz
    samples, rate = soundfile.read(item.path, dtype="float32", always_2d=True)
    return _resampled(samples.mean(axis=1), rate, rate_hz)


def centred(samples: np.ndarray, size: int) -> np.ndarray:
    """Cut, or padded with zeros, on both sides alike, to [size]."""
    left = (len(samples) - size) // 2
    if left >= 0:
        return samples[left : left + size]
    before = (size - len(samples)) // 2
    return np.pad(samples, (before, size - len(samples) - before))


def mfcc(samples: np.ndarray, rate_hz: int, coefficients: int) -> np.ndarray:
    """librosa.feature.mfcc with its defaults: float32 [coefficients, 1 + S // 512].

    Hann 2048, hop 512, centred in zeros; 128 Slaney mel bands of the power, in dB, no more than
    80 dB below the loudest; DCT-II, orthonormal.
    """
    power = stft(samples, 2048, 512, centre=True) ** 2
    bands = _slaney(rate_hz, 2048) @ power
    decibels = 10 * np.log10(np.maximum(bands, AMIN))
    decibels = np.maximum(decibels, decibels.max() - TOP_DB)
    return scipy.fft.dct(decibels, axis=0, norm="ortho")[:coefficients].astype(np.float32)


def stft(
    samples: np.ndarray,
    size: int,
    hop: int,
    *,
    n_fft: int | None = None,
    centre: bool = False,
    window: str = "hann",
) -> np.ndarray:
    """Magnitudes float32 [1 + n_fft / 2, frames]; a recording shorter than a window is padded."""
    made = {"hann": torch.hann_window, "hamming": torch.hamming_window}[window](size)
    n_fft = n_fft or size
    short = max(0, n_fft - len(samples)) if not centre else 0
    padded = torch.from_numpy(np.pad(samples, (0, short)).astype(np.float32))
    found = torch.stft(
        padded,
        n_fft,
        hop,
        size,
        made,
        center=centre,
        pad_mode="constant",
        return_complex=True,
    )
    return found.abs().numpy()


def segments(values: np.ndarray, size: int, step: int) -> np.ndarray:
    """Windows over the last axis: [..., T] -> [K, ..., size]; the last is padded with zeros where
    frames would be left over, and there is always one."""
    length = values.shape[-1]
    count = 1 + max(0, -(-(length - size) // step))
    missing = (count - 1) * step + size - length
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, max(0, missing))])
    return np.stack([padded[..., i * step : i * step + size] for i in range(count)])


def deltas(values: np.ndarray, reach: int = 2) -> np.ndarray:
    """Slopes over 2 * reach + 1 frames of the last axis, the ends repeated, as HTK has them."""
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="edge")
    length = values.shape[-1]

    def at(offset: int) -> np.ndarray:
        return padded[..., reach + offset : reach + offset + length]

    steps = range(1, reach + 1)
    slopes = sum(n * (at(n) - at(-n)) for n in steps) / (2 * sum(n * n for n in steps))
    return np.asarray(slopes, dtype=values.dtype)


@lru_cache(maxsize=8)
def _slaney(rate_hz: int, n_fft: int) -> np.ndarray:
    """librosa.filters.mel's defaults: float32 [128, 1 + n_fft / 2]."""
    filters = audio.melscale_fbanks(
        1 + n_fft // 2, 0.0, rate_hz / 2, 128, rate_hz, norm="slaney", mel_scale="slaney"
    )
    return filters.T.numpy()


def _resampled(samples: np.ndarray, old_hz: int, new_hz: int) -> np.ndarray:
    if old_hz == new_hz:
        return samples
    return audio.resample(torch.from_numpy(samples), old_hz, new_hz).numpy()
