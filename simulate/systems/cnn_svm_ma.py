"""CNN+SVM (Ma et al. 2019, AVEF): the audio part of an audio-visual system.

Voice activity detection, a CNN with transfer learning on images of mel spectra, an SVM [excerpt:
the abstract]. The paper doesn't describe audio alone: that it is Zhang's CNN+SVM on what is left
of a recording without its pauses is an assumption, as is the detector, an energy threshold.

Published, audio alone on BAUM-1s (six classes, speakers kept apart), as AFTER prints it: 42.39.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from simulate.systems._cnn import CnnVector
from simulate.systems._supervised import Examples
from simulate.systems._vectors import svm

BLOCK = 160
"""Samples, 10 ms."""
SMOOTH = 10
"""Blocks over which energy is averaged, so that a stop within a word is no pause."""


@dataclass(frozen=True)
class CnnSvmMa(CnnVector):
    """quiet_db: what is further below the loudest tenth of a second is a pause (assumption)."""

    quiet_db: float = 35.0

    name: ClassVar[str] = "cnn-svm-ma"
    published: ClassVar[str] = "CNN+SVM (101)"

    def front_end(self) -> Any:
        return self.quiet_db

    def heard(self, samples: np.ndarray) -> np.ndarray:
        return spoken(samples, self.quiet_db)

    def pooled(self, train: Examples) -> Any:
        return lambda fc7: fc7.mean(axis=0)

    def estimator(self, train: Examples) -> Any:
        return svm(kernel="linear")


def spoken(samples: np.ndarray, quiet_db: float) -> np.ndarray:
    """[S] without its pauses; never nothing."""
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
    energy = np.convolve((blocks**2).mean(axis=1), np.ones(SMOOTH) / SMOOTH, "same")
    return blocks[energy[: len(blocks)] >= energy.max() * 10 ** (-quiet_db / 10)].ravel()


SYSTEM = CnnSvmMa
