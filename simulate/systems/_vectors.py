"""Systems that are a vector a recording and a classifier of scikit-learn."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from after_model.metrics import unweighted_accuracy
from simulate.systems._supervised import Examples, Learnt, Place, Supervised

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""What an SVM's C is chosen from, where the recipe doesn't say."""


@dataclass(frozen=True)
class Vectors(Supervised):
    """features() gives [1, D]. There is no epoch to choose, so no validation label is looked at."""

    @property
    def validates(self) -> bool:
        return False

    @abstractmethod
    def estimator(self, train: Examples) -> Any:
        """Of scikit-learn, unfitted. train: for what is to be chosen by cross-validation; it has at
        least two classes."""

    def learn(self, train: Examples, validation: Examples | None, place: Place) -> Learnt:
        probs = fitted(self.estimator, train)
        return Learnt(lambda pieces: probs(np.concatenate(pieces)))


def fitted(
    estimator: Callable[[Examples], Any], train: Examples
) -> Callable[[np.ndarray], np.ndarray]:
    """A classifier that gives probabilities [N, C] of vectors [N, D], also of absent classes.

    An SVM's are the softmax of its decision values: their order is the SVM's, and their highest its
    answer, but nobody has calibrated them.
    """
    classes, known = train.targets.shape[1], np.unique(train.classes)
    model: Any = None
    if len(known) > 1:
        model = estimator(train).fit(np.concatenate(train.pieces), train.classes)

    def probs(vectors: np.ndarray) -> np.ndarray:
        found = np.zeros((len(vectors), classes))
        if model is None:
            found[:, known] = 1.0
        elif hasattr(model, "predict_proba"):
            found[:, known] = model.predict_proba(vectors)
        else:
            values = model.decision_function(vectors)
            if values.ndim == 1:  # two classes
                values = np.stack([-values, values], axis=1)
            found[:, known] = softmax(values, axis=1)
        return found

    return probs


def svm(cost: float = 1.0, kernel: str = "rbf", **options: Any) -> Any:
    """Standardised vectors and an SVM; between equal votes its decision values decide."""
    return make_pipeline(
        StandardScaler(), SVC(C=cost, kernel=kernel, break_ties=True, cache_size=500, **options)
    )


def best_cost(
    train: Examples, make: Callable[[float], Any] = svm, costs: Sequence[float] = COSTS
) -> float:
    """The C with the best UA in cross-validation over speakers; 1 where there are too few."""
    found = [validated(train, partial(make, cost)) for cost in costs]
    return costs[int(np.argmax(found))] if max(found) > 0 else 1.0


def validated(train: Examples, make: Callable[[], Any], folds: int = 5) -> float:
    """Mean UA in cross-validation over speakers; 0 where there are too few to do that."""
    speakers = np.array(train.speakers or [""] * len(train))
    folds = min(folds, len(set(speakers)), int(np.bincount(train.classes).max()))
    if folds < 2:
        return 0.0
    vectors, classes = np.concatenate(train.pieces), train.classes
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # rare ones are in one fold
        splits = list(StratifiedGroupKFold(folds).split(vectors, classes, speakers))
    found = [
        unweighted_accuracy(
            classes[test], make().fit(vectors[rest], classes[rest]).predict(vectors[test])
        )
        for rest, test in splits
        if len(test) and len(np.unique(classes[rest])) > 1
    ]
    return float(np.mean(found)) if found else 0.0
