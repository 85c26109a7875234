"""BADGE against gradient embeddings that are really built."""

from __future__ import annotations

import numpy as np
import pytest

from after_model.acquisition import badge


def brute_force(probs, embeddings, k, rng):
    """K-means++ on materialised (p - onehot) outer h."""
    errors = probs - np.eye(probs.shape[1])[probs.argmax(axis=1)]
    gradients = (errors[:, :, None] * embeddings[:, None, :]).reshape(len(probs), -1)
    chosen = [int(np.argmax((gradients**2).sum(axis=1)))]
    while len(chosen) < k:
        to_chosen = ((gradients[:, None] - gradients[chosen][None]) ** 2).sum(axis=2)
        nearest = to_chosen.min(axis=1)
        reach = np.cumsum(nearest)
        chosen.append(int(np.searchsorted(reach, rng.random() * reach[-1], side="right")))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_same_choice_as_with_materialised_gradients(seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), 60)
    embeddings = rng.normal(size=(60, 7))
    expected = brute_force(probs, embeddings, 25, np.random.default_rng(seed))
    assert badge(probs, embeddings, 25, np.random.default_rng(seed)).tolist() == expected


def test_copies_of_a_chosen_utterance_wait_until_nothing_else_is_left():
    probs = np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2]] * 10)
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 10)
    chosen = badge(probs, embeddings, 5, np.random.default_rng(0)).tolist()
    assert {i % 3 for i in chosen[:3]} == {0, 1, 2}
    assert chosen[3:] == [i for i in range(30) if i not in chosen[:3]][:2]


def test_certain_predictions_leave_utterance_order():
    probs = np.tile([1.0, 0.0], (6, 1))
    embeddings = np.random.default_rng(0).normal(size=(6, 3))
    assert badge(probs, embeddings, 4, np.random.default_rng(0)).tolist() == [0, 1, 2, 3]


def test_rows_must_match():
    with pytest.raises(ValueError, match=r"embeddings must be \[2, H\]"):
        badge(np.full((2, 2), 0.5), np.zeros((3, 2)), 1, np.random.default_rng(0))


def test_an_embedding_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"embeddings\[1\]"):
        badge(np.full((2, 2), 0.5), np.array([[0.0], [np.inf]]), 1, np.random.default_rng(0))
