"""The bootstrap over speakers, held against counting by hand and against normal theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from simulate.analysis import bootstrap


def matrices(right: list[int], of: int = 20) -> np.ndarray:
    """Confusion matrices [S, 2, 2]: so many right of each class, for each speaker."""
    return np.array([[[n, of - n], [of - n, n]] for n in right], float)


def test_ua_of_counted_predictions_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    speakers = [f"s{i % 6}" for i in range(200)]
    found = bootstrap.counts(speakers, truth, predicted, sorted(set(speakers)), 4)
    assert bootstrap.ua(found.sum(axis=0)) == pytest.approx(
        balanced_accuracy_score(truth, predicted)
    )
    assert bootstrap.wa(found.sum(axis=0)) == pytest.approx(np.mean(truth == predicted))


def test_interval_is_as_wide_as_the_spread_of_speakers_says() -> None:
    rng = np.random.default_rng(1)
    right = rng.integers(5, 20, 60).tolist()
    found = bootstrap.difference([matrices(right)], [matrices([10] * 60)], rng)
    assert found is not None
    differences = np.array(right) / 20 - 0.5
    half = 1.96 * differences.std() / np.sqrt(60)  # by the central limit theorem
    assert found.mean == pytest.approx(differences.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_one_speaker_who_decides_everything_is_no_evidence() -> None:
    rng = np.random.default_rng(0)
    found = bootstrap.difference([matrices([20, 10, 10, 10, 10, 10])], [matrices([10] * 6)], rng)
    assert found is not None
    assert found.low == 0.0
    assert found.p > 0.05


def test_p_is_never_zero() -> None:
    rng = np.random.default_rng(0)
    found = bootstrap.difference([matrices([20] * 8)], [matrices([5] * 8)], rng, draws=99)
    assert found is not None
    assert found.p == pytest.approx(2 / 100)


def test_few_speakers_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    assert bootstrap.difference([matrices([20] * 4)], [matrices([5] * 4)], rng) is None
