"""CNN+SVM (Zhang et al. 2018, TCSVT 28(10)): the audio part of an audio-visual system.

AlexNet fine-tuned on segments of three channels of mel spectra; the mean of its fc7 vectors over a
recording goes to a linear SVM [excerpt: the abstract, and tzaiyang/SpeechEmoRec].

Published, audio alone on BAUM-1s (six classes, speakers kept apart): 42.28.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from simulate.systems._cnn import CnnVector
from simulate.systems._supervised import Examples
from simulate.systems._vectors import svm


@dataclass(frozen=True)
class CnnSvmZhang(CnnVector):
    """The SVM's C is 1, LIBSVM's default (assumption)."""

    name: ClassVar[str] = "cnn-svm-zhang"
    published: ClassVar[str] = "CNN+SVM (99)"

    def pooled(self, train: Examples) -> Any:
        return lambda fc7: fc7.mean(axis=0)

    def estimator(self, train: Examples) -> Any:
        return svm(kernel="linear")


SYSTEM = CnnSvmZhang
