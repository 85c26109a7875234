"""Probabilities that say how often they are right, also with few labels and absent classes.

One temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks") for logits on labels
that the fit did not know. Fourteen labels say little about it, so it is drawn to what corpora
have in common: a prior on its logarithm that counts as so many labels.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax

LOWEST, HIGHEST = 0.1, 10.0


def fit_temperature(
    logits: np.ndarray, targets: np.ndarray, *, prior: float, strength: float
) -> float:
    """The temperature T that makes softmax(logits / T) likeliest: maximum a posteriori.

    logits [n, C] from fits that did not know targets [n, C]. log T is normal around log `prior`
    with precision `strength`: without a row it is the prior.
    """

    def loss(log_temperature: float) -> float:
        said = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(
            -(targets * said).sum() + strength / 2 * (log_temperature - np.log(prior)) ** 2
        )

    bounds = (np.log(LOWEST), np.log(HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def class_offsets(logits: np.ndarray, targets: np.ndarray, *, strength: float) -> np.ndarray:
    """Offsets [C] that make softmax(logits + offsets) likeliest: maximum a posteriori.

    What a shift of the classes' shares is corrected by (Alexandari, Kundaje and Shrikumar 2020,
    "Maximum likelihood with bias-corrected calibration"), here drawn to 0: each is normal around it
    with precision `strength`. logits and targets [n, C]; without a row they are 0.
    """

    def loss(offsets: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = logits + offsets
        value = (logsumexp(shifted, axis=1) - (targets * shifted).sum(axis=1)).sum()
        slope = (softmax(shifted, axis=1) - targets).sum(axis=0)
        return value + strength / 2 * (offsets**2).sum(), slope + strength * offsets

    start = np.zeros(logits.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B").x


def absent_logit(logits: np.ndarray, labels: float, smoothing: float) -> float:
    """The constant logit of a class without a label, beside logits [m, P] of those that have some.

    A class never seen in `labels` labels has about the share smoothing / (labels + smoothing P)
    (Lidstone's rule). As a constant it has that share where the model is as sure as it is on
    average, more where it is unsure of every class it knows, and less where it is sure.
    """
    share = smoothing / (labels + smoothing * logits.shape[1])
    return float(logsumexp(logits, axis=1).mean() + np.log(share))
