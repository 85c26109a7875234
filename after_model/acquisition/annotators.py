"""Several annotators, one prediction each (section 5.7 of Li et al. 2024, after Wang and Plank
2023, ACTOR): whose label of which utterance to ask for.

Logits are [A, N, C], one model or head per annotator; votes are [A, N]. Higher = ask first.
Measures only: they score (annotator, utterance) pairs or utterances, for `top_pairs` and `top_k`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, softmax

from after_model.acquisition.base import top_k


def individual_entropy(logits: np.ndarray) -> np.ndarray:
    """Eq. 12: entropy of each annotator's softmax, nats, [A, N] in [0, log C]."""
    return _entropy(_checked(logits))


def group_entropy(logits: np.ndarray) -> np.ndarray:
    """Eq. 14: entropy of the softmax of the annotators' summed normalised logits, nats, [N].

    Normalised = each annotator's logit vector divided by its Euclidean length, which is what the
    authors of the measure do; the paper leaves the word open. A zero vector stays zero.
    """
    values = _checked(logits)
    length = np.sqrt((values**2).sum(axis=-1, keepdims=True))
    return _entropy((values / np.where(length > 0, length, 1.0)).sum(axis=0))


def vote_variance(votes: np.ndarray) -> np.ndarray:
    """Eq. 15 as printed: population variance of the votes' class indices [A, N] -> [N].

    It depends on the order in which the classes are numbered; `vote_disagreement` doesn't.
    """
    return np.asarray(_votes(votes), dtype=np.float64).var(axis=0)


def vote_disagreement(votes: np.ndarray) -> np.ndarray:
    """1 - sum_j share_j^2 for votes [A, N]: [N] in [0, 1 - 1/A], 0 where all agree.

    Eq. 15 with every two classes equally far apart (the variance of one-hot votes), so that the
    numbering of the classes doesn't matter. Votes may be any labels that compare equal.
    """
    values = _votes(votes)
    total = np.zeros(values.shape[1])
    for label in np.unique(values):
        total += (values == label).mean(axis=0) ** 2
    return 1.0 - total


def mixed_entropy(logits: np.ndarray) -> np.ndarray:
    """H_indi + H_group of section 5.7: [A, N], nats."""
    return individual_entropy(logits) + group_entropy(logits)


def top_pairs(scores: np.ndarray, k: int) -> np.ndarray:
    """Eq. 13 for the k best: int64 [min(k, A N), 2], rows (utterance, annotator), best first.

    scores is [A, N]. Equal scores: utterance order, then annotator order.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must be [A, N], got shape {scores.shape}")
    utterance, annotator = np.unravel_index(top_k(scores.T.ravel(), k), scores.T.shape)
    return np.stack([utterance, annotator], axis=1)


def _entropy(logits: np.ndarray) -> np.ndarray:
    limit = np.log(logits.shape[-1])
    return np.clip(entr(softmax(logits, axis=-1)).sum(axis=-1), 0.0, limit)


def _checked(logits: np.ndarray) -> np.ndarray:
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim != 3 or 0 in (values.shape[0], values.shape[2]):
        raise ValueError(f"logits must be [A, N, C] with A, C > 0, got shape {values.shape}")
    broken = np.argwhere(~np.isfinite(values).all(axis=-1))
    if len(broken):
        raise ValueError(f"logits{broken[0].tolist()} (annotator, row) has a value not finite")
    return values


def _votes(votes: np.ndarray) -> np.ndarray:
    values = np.asarray(votes)
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"votes must be [A, N] with A > 0, got shape {values.shape}")
    return values
