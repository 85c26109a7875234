"""Functionals of openSMILE with an SVM.

openSMILE is free for research and not for commercial use: an optional extra that nothing else needs
(requirements-opensmile.txt).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from after_model.audio import SAMPLE_RATE, Utterance
from simulate.systems._sound import wave
from simulate.systems._supervised import Examples
from simulate.systems._vectors import Vectors, best_cost, svm

MISSING = (
    "opensmile is not installed; it is free for research, not for commercial use: "
    "pip install -r requirements-opensmile.txt"
)


@dataclass(frozen=True)
class Functionals(Vectors):
    """One vector a recording, standardised; a linear SVM, its C by cross-validation over speakers.

    feature_set: what opensmile calls it.
    """

    feature_set: ClassVar[str]

    def front_end(self) -> Any:
        return self.feature_set

    def features(self, item: Utterance) -> np.ndarray:
        """[1, D]."""
        found = _smile(self.feature_set).process_signal(wave(item), SAMPLE_RATE).to_numpy()
        return np.nan_to_num(found).astype(np.float32)

    def estimator(self, train: Examples) -> Any:
        def linear(cost: float) -> Any:
            return svm(cost, kernel="linear")

        return linear(best_cost(train, linear, COSTS))


@lru_cache(maxsize=2)
def _smile(feature_set: str) -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise ImportError(MISSING) from error
    return opensmile.Smile(opensmile.FeatureSet[feature_set], opensmile.FeatureLevel.Functionals)


COSTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Those of the ComParE challenges' baselines [from memory]."""
