"""ALPS: one utterance of each k-means cluster, the nearest to its centre."""

from __future__ import annotations

import numpy as np
import pytest

from after_model.acquisition import Pool, alps, get


def blobs(centres: int, each: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middle = 10 * rng.normal(size=(centres, 5))
    return np.repeat(middle, each, axis=0) + 0.1 * rng.normal(size=(centres * each, 5))


def test_each_group_gives_the_member_nearest_to_its_centre():
    """Eq. 7 on groups so far apart that k-means finds them."""
    embeddings = blobs(6, 20)
    expected = []
    for start in range(0, 120, 20):
        group = embeddings[start : start + 20]
        expected.append(start + int(np.argmin(((group - group.mean(axis=0)) ** 2).sum(axis=1))))
    assert sorted(alps(embeddings, 6, np.random.default_rng(0)).tolist()) == expected


def test_the_largest_group_comes_first():
    embeddings = np.r_[np.zeros((3, 2)), np.full((9, 2), 5.0), np.full((5, 2), -5.0)]
    assert alps(embeddings, 3, np.random.default_rng(0)).tolist() == [3, 12, 0]


def test_more_utterances_than_distinct_embeddings_are_filled_up():
    embeddings = np.repeat([[0.0, 0.0], [1.0, 1.0]], 5, axis=0)
    chosen = alps(embeddings, 7, np.random.default_rng(0)).tolist()
    assert len(set(chosen)) == 7
    assert {i // 5 for i in chosen[:2]} == {0, 1}


def test_scale_and_offset_of_the_embeddings_change_nothing():
    embeddings = blobs(4, 10)
    expected = alps(embeddings, 4, np.random.default_rng(0))
    for scaled in (embeddings * 1e-25, embeddings * 1e25):
        np.testing.assert_array_equal(alps(scaled, 4, np.random.default_rng(0)), expected)


def test_alps_on_surprisal_reads_surprisal_and_no_label_or_embedding():
    surprisal = blobs(4, 10)
    pool = Pool(surprisal=surprisal)
    chosen = get("alps-surprisal").select(pool, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(chosen, alps(surprisal, 4, np.random.default_rng(0)))


def test_a_row_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"embeddings\[1\]"):
        alps(np.array([[0.0], [np.nan]]), 1, np.random.default_rng(0))
