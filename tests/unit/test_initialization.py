"""The first utterances: k-means with the elbow, DACS, BMAL, random."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from after_model import clustering
from after_model.initialization import bmal, dacs, get, kmeans, names, sparsity, symmetric_kl

every_start = pytest.mark.parametrize("name", names())
every_reading_start = pytest.mark.parametrize("name", [n for n in names() if n != "random"])


def blobs(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Groups at the corners of a simplex, in order of `sizes`."""
    rng = np.random.default_rng(seed)
    middle = 20 * np.eye(len(sizes))
    return np.repeat(middle, sizes, axis=0) + rng.normal(size=(sum(sizes), len(sizes)))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_names_are_the_four_of_the_paper_and_three_that_need_no_label():
    assert names() == ["bmal", "coreset", "dacs", "kmeans", "probcover", "random", "typiclust"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown start 'k-means'; known: bmal, coreset, dacs"):
        get("k-means")


@every_start
@pytest.mark.parametrize(
    ("size", "k"), [(0, 0), (0, 3), (1, 0), (1, 1), (1, 9), (2, 2), (3, 1), (25, 8), (25, 99)]
)
def test_min_of_k_and_n_distinct_indices_come_back(name, size, k):
    embeddings = np.random.default_rng(1).normal(size=(size, 4))
    chosen = get(name).select(embeddings, k, rng())
    assert chosen.dtype == np.int64
    assert chosen.shape == (min(k, size),)
    assert len(set(chosen.tolist()) & set(range(size))) == min(k, size)


@every_start
def test_the_same_seed_gives_the_same_start(name):
    embeddings = np.random.default_rng(1).normal(size=(60, 4))
    first, second = (get(name).select(embeddings, 9, rng()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@every_start
@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_copies_of_few_recordings_are_no_obstacle(name, distinct):
    embeddings = np.random.default_rng(1).normal(size=(distinct, 4))[np.arange(40) % distinct]
    assert len(set(get(name).select(embeddings, 17, rng()).tolist())) == 17


@every_reading_start
def test_features_of_any_scale_give_the_same_start(name):
    embeddings = np.c_[blobs([10, 20, 30]), np.ones(60)]  # and a feature that says nothing
    expected = get(name).select(embeddings, 6, rng())
    for scale in (1e-30, 1e30):
        np.testing.assert_array_equal(get(name).select(embeddings * scale, 6, rng()), expected)


@every_reading_start
def test_an_outlier_as_large_as_float32_is_no_obstacle(name):
    embeddings = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    embeddings[7] = 1e30
    assert len(set(get(name).select(embeddings, 12, rng()).tolist())) == 12


@every_reading_start
def test_a_row_that_is_not_finite_is_named(name):
    embeddings = np.zeros((5, 2))
    embeddings[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"embeddings\[3\]"):
        get(name).select(embeddings, 2, rng())


@pytest.mark.parametrize("groups", [3, 4, 6])
def test_the_elbow_finds_groups_that_are_there(groups):
    points = clustering.prepare(blobs([30] * groups))
    assert clustering.elbow(points, rng()) == groups


def test_the_elbow_never_exceeds_the_distinct_points():
    points = np.zeros((50, 3))
    assert clustering.elbow(points, rng()) == 1
    points[:10] = 1
    assert clustering.elbow(points, rng()) == 2
    assert clustering.elbow(points[:0], rng()) == 0


def test_kmeans_takes_the_member_nearest_to_each_centre():
    embeddings = blobs([30, 20, 10])
    expected = []
    for group in (slice(0, 30), slice(30, 50), slice(50, 60)):
        members = embeddings[group]
        distance = ((members - members.mean(axis=0)) ** 2).sum(axis=1)
        expected.append(group.start + int(np.argmin(distance)))
    assert kmeans(embeddings, 3, rng()).tolist() == expected


def test_kmeans_shares_k_over_the_clusters_by_size_with_at_least_one_each():
    group_of = np.repeat([0, 1, 2], [60, 36, 4])
    chosen = kmeans(blobs([60, 36, 4]), 10, rng())
    assert np.bincount(group_of[chosen]).tolist() == [6, 3, 1]


def test_kmeans_with_fewer_than_the_elbow_still_spreads():
    chosen = kmeans(blobs([20] * 5), 4, rng())
    assert len({int(i) // 20 for i in chosen}) == 4


def test_kmeans_within_a_cluster_takes_the_nearest_first():
    embeddings = np.array([[4.0], [1.0], [0.0], [-2.0], [-3.0]])  # one cluster, centre 0
    assert kmeans(embeddings, 5, rng(), max_clusters=1).tolist() == [2, 1, 3, 4, 0]


def test_kmeans_runs_on_one_thread_whatever_is_allowed(monkeypatch):
    """Sums over threads round differently, which can tip k-means the other way."""
    used = []

    class Watched(clustering.KMeans):
        def fit(self, *args, **kwargs):
            used.extend(pool["num_threads"] for pool in threadpool_info())
            return super().fit(*args, **kwargs)

    monkeypatch.setattr(clustering, "KMeans", Watched)
    with threadpool_limits(limits=2):
        kmeans(blobs([20, 20, 20]), 5, rng())
    assert set(used) == {1}


def test_sparsity_is_equation_10():
    embeddings = np.random.default_rng(0).normal(size=(30, 4))
    squared = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    expected = np.sort(squared, axis=1)[:, 1:6].mean(axis=1)
    actual = sparsity(embeddings, neighbours=5)
    np.testing.assert_allclose(actual / actual.sum(), expected / expected.sum(), rtol=1e-9)


def test_dacs_takes_the_sparsest_first():
    embeddings = np.array([[0.0], [0.1], [0.2], [50.0], [10.0]])
    assert dacs(embeddings, 2, rng(), neighbours=2).tolist() == [3, 4]


def test_dacs_breaks_ties_by_utterance_order():
    assert dacs(np.zeros((9, 2)), 4, rng()).tolist() == [0, 1, 2, 3]


def test_symmetric_kl_is_equation_11():
    p, q = np.random.default_rng(0).dirichlet(np.ones(4), (2, 10))
    expected = (p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)
    np.testing.assert_allclose(symmetric_kl(p, q), expected, atol=1e-12)
    np.testing.assert_allclose(symmetric_kl(q, p), expected, atol=1e-12)


def test_symmetric_kl_of_disjoint_distributions_is_finite():
    assert np.isfinite(symmetric_kl(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))).all()


def test_bmal_takes_whoever_is_predicted_unlike_its_neighbours():
    embeddings = np.arange(20.0)[:, None]
    probs = np.tile([0.9, 0.1], (20, 1))
    probs[13] = [0.1, 0.9]
    assert bmal(embeddings, 1, rng(), probs=probs, neighbours=2).tolist() == [13]


def test_bmal_scores_are_the_mean_divergence_from_the_neighbours():
    embeddings = np.random.default_rng(0).normal(size=(25, 3))
    probs = np.random.default_rng(1).dirichlet(np.ones(3), 25)
    squared = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    scores = []
    for i, near in enumerate(np.argsort(squared, axis=1)[:, 1:5]):
        scores.append(np.mean([symmetric_kl(probs[[i]], probs[[j]]) for j in near]))
    expected = np.argsort(-np.array(scores), kind="stable")[:6]
    np.testing.assert_array_equal(bmal(embeddings, 6, rng(), probs=probs, neighbours=4), expected)


def test_bmal_without_a_classifier_prefers_the_border_between_clusters():
    """One point halfway between two groups has neighbours that k-means is sure of."""
    embeddings = np.r_[blobs([20, 20]), [[10.0, 10.0]]]
    assert 40 in bmal(embeddings, 3, rng(), neighbours=5).tolist()


def test_bmal_refuses_probabilities_of_another_pool():
    with pytest.raises(ValueError, match="2 rows of probs but 3"):
        bmal(np.zeros((3, 1)), 1, rng(), probs=np.full((2, 2), 0.5))


def test_every_prefix_of_the_spread_covers_the_clusters():
    groups = clustering.fit(clustering.prepare(blobs([40, 30, 20, 10])), 4, rng())
    chosen = clustering.spread(groups, 100)
    for count in range(4, 101):
        shares = np.bincount(groups.labels[chosen[:count]], minlength=4)
        assert shares.min() >= 1
        for a, b in itertools.combinations(range(4), 2):
            assert abs(shares[a] / (40 - 10 * a) - shares[b] / (40 - 10 * b)) * count < count / 8
