"""A head that begins as a linear probe of the frozen backbone, so that training bends it less.

A random head sends large, arbitrary gradients into a pretrained transformer: with few labels most
of what it knew is lost before the head is any good. Fitting the head first (linear probing, then
fine-tuning: Kumar et al., ICLR 2022) costs one pass over the labelled recordings and a logistic
regression. Beyond the paper, whose head starts at random.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from after_model import metrics
from after_model.classifier import EmotionClassifier
from after_model.classifier.finetuning import TrainingSet
from after_model.classifier.scoring import score
from after_model.features import FeatureStore

INVERSE_REGULARISATION = 0.05
"""scikit-learn's C, for standardised representations (0.01 to 1 differ by less than 0.02 UA)."""


def probe(
    classifier: EmotionClassifier, store: FeatureStore, train: TrainingSet, *, device: str = "auto"
) -> None:
    """Set the head to the logistic regression of the labels on the frozen representations.

    Soft targets count as so many votes of their weight. A class without a label gets a constant
    that makes it unlikely; with labels of one class only the head is left as it is.
    """
    utterances, targets = train
    present = np.flatnonzero(targets.sum(axis=0))
    if len(present) < 2:
        return
    points = score(classifier, store, utterances, device=device).embeddings.astype(np.float64)
    mean, deviation, regression = _regression(points, targets)
    weight, bias = regression.coef_, regression.intercept_
    if len(present) == 2:  # scikit-learn keeps one row: the log odds of the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    linear = classifier.head.linear
    state_weight = torch.zeros_like(linear.weight)
    state_bias = torch.full_like(linear.bias, float(bias.min()) - np.log(len(utterances) + 1))
    state_weight[present] = torch.from_numpy(weight).to(state_weight)
    state_bias[present] = torch.from_numpy(bias).to(state_bias)
    with torch.no_grad():
        # representations are not centred: what the mean contributes goes into the bias
        linear.weight.copy_(state_weight)
        linear.bias.copy_(state_bias - state_weight @ torch.from_numpy(mean).to(state_weight))


def cross_validated(points: np.ndarray, targets: np.ndarray, folds: int = 5) -> dict[str, float]:
    """UA, WA, macro F1 and ECE of the probe on labels that it was not fitted to.

    points [N, H], targets [N, C]. Every class is dealt out over the folds in turn. What few labels
    allow where too few could be held out; empty for fewer than two labels of two classes. Labels
    that were asked for because a model was unsure of them make it an underestimate.
    """
    classes = targets.argmax(axis=1)
    counts = np.bincount(classes, minlength=targets.shape[1])
    if (counts >= 2).sum() < 2:
        return {}
    fold = np.zeros(len(classes), int)
    for label in np.flatnonzero(counts):
        members = np.flatnonzero(classes == label)
        fold[members] = np.arange(len(members)) % folds
    probs = np.zeros(targets.shape)
    for number in np.unique(fold):
        held, rest = fold == number, fold != number
        mean, deviation, regression = _regression(points[rest].astype(np.float64), targets[rest])
        said = regression.predict_proba((points[held] - mean) / deviation)
        probs[np.ix_(held, regression.classes_)] = said
    return metrics.evaluate(classes, probs)


def _regression(
    points: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, LogisticRegression]:
    """(mean [H], deviation [H], logistic regression on standardised points [N, H])."""
    rows, classes = np.nonzero(targets)
    mean, deviation = points.mean(axis=0), points.std(axis=0) + 1e-6
    regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2_000)
    with threadpool_limits(1):  # the order of sums is the seed's business alone
        regression.fit(
            ((points - mean) / deviation)[rows], classes, sample_weight=targets[rows, classes]
        )
    return mean, deviation, regression
