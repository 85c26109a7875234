"""What the probe says of labels that it has learnt from, as if it had not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from after_model.classifier import softmax as regression
from after_model.classifier.probe import Probe, ProbeConfig, held_out_logits, inputs

GROUPS = 20
"""Fits at most; up to as many rows each is left out alone."""


def left_out(
    points: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    fitted: Probe,
    *,
    speakers: Sequence[str] | None = None,
    config: ProbeConfig | None = None,
    groups: int = GROUPS,
) -> np.ndarray:
    """Probabilities float64 [m, C] of the rows [m], by fits that did not know them.

    points [n, R], targets [n, C], speakers, config: what `fitted` was fitted to. All other labels
    are known, unlike in cross-validation by folds, which is of a model of fewer labels; more than
    `groups` rows are left out some at a time, the share that is left out stays small.
    """
    config = config or ProbeConfig()
    rows = np.asarray(rows, np.int64)
    if not len(rows):
        return np.zeros((0, targets.shape[1]))
    points = np.asarray(points, np.float64)
    if fitted.means is not None and fitted.speakers.used and speakers is not None:
        points = points - fitted.means.offsets()[fitted.means.rows(speakers)]
    count = min(groups, len(rows))
    folds = np.full(len(targets), count)
    folds[rows] = np.arange(len(rows)) % count
    with threadpool_limits(1):
        seen = regression.prepare(
            inputs(points, fitted.standardiser, config), config.inverse_regularisation
        )
        start = regression.solve(seen, targets, np.ones((1, len(targets))))
        logits = held_out_logits(seen, targets, start, [folds], config.smoothing)[0]
    return softmax(logits[rows] / fitted.temperature, axis=1)
