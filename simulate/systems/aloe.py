"""ALOE: a frozen encoder, a linear probe, and the smallest margin is asked for.

The recipe from memory: the encoder's last state averaged over time, logistic regression, the
recordings whose two likeliest classes are nearest to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from simulate.systems._embedded import Embedded
from simulate.systems._supervised import Examples
from simulate.systems._vectors import Vectors


@dataclass(frozen=True)
class Aloe(Embedded, Vectors):
    """cost: the probe's C, scikit-learn's default."""

    strategy: str = "margin"
    cost: float = 1.0

    name: ClassVar[str] = "aloe"

    @property
    def title(self) -> str:
        return "ALOE"

    def estimator(self, train: Examples) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=self.cost, max_iter=1000))


SYSTEM = Aloe
