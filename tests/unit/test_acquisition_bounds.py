"""Time and memory linear in the pool: rows read, bytes held, and what a bound costs in quality."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from after_model import acquisition, clustering, initialization
from after_model.acquisition import Pool, alps, badge, cluster_entropy, entropy, get, names
from after_model.acquisition.base import CANDIDATES, draw
from after_model.initialization import bmal, dacs, sparsity
from after_model.neighbours import nearest

LARGE, WIDTH, K = 150_000, 32, 16
STARTS = initialization.names()


class Rows:
    """[LARGE, WIDTH] that exist only while they are read, and are counted."""

    shape = (LARGE, WIDTH)
    dtype = np.dtype(np.float16)

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return LARGE

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read += len(rows)
        waves = np.sin(np.asarray(rows)[:, None] * (1.0 + np.arange(WIDTH)))
        return (waves + np.asarray(rows)[:, None] % 7).astype(self.dtype)


def large_pool(embeddings: Rows, surprisal: Rows) -> Pool:
    mc_probs = np.random.default_rng(0).dirichlet(np.ones(3), (3, LARGE)).astype(np.float32)
    return Pool(
        probs=mc_probs.mean(axis=0),
        embeddings=embeddings,
        mc_probs=mc_probs,
        surprisal=surprisal,
        labelled_embeddings=embeddings[np.arange(300)],
    )


def peak_of(select) -> tuple[np.ndarray, int]:
    tracemalloc.start()
    try:
        return select(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", names())
def test_a_strategy_reads_a_bounded_number_of_embeddings(name):
    embeddings, surprisal = Rows(), Rows()
    pool = large_pool(embeddings, surprisal)
    embeddings.read = 0
    chosen, peak = peak_of(lambda: get(name).select(pool, K, np.random.default_rng(0)))
    assert len(set(chosen.tolist())) == K
    assert embeddings.read + surprisal.read <= 2.5 * CANDIDATES
    # Scores of the pool (float64, C of them an utterance) and blocks; all distances would be
    # 180 GB, one distance to each candidate 12 GB.
    assert peak < 250e6


@pytest.mark.parametrize("name", STARTS)
def test_a_start_reads_a_bounded_number_of_embeddings(name):
    embeddings = Rows()
    start = initialization.get(name)
    chosen, peak = peak_of(lambda: start.select(embeddings, K, np.random.default_rng(0)))
    assert len(set(chosen.tolist())) == K
    assert embeddings.read <= 2.5 * CANDIDATES
    assert peak < 250e6


def test_k_of_thousands_is_no_more_groups_than_a_bound(monkeypatch):
    asked = []

    class Watched(clustering.KMeans):
        def __init__(self, n_clusters, **rest):
            asked.append(n_clusters)
            super().__init__(n_clusters, **rest)

    monkeypatch.setattr(clustering, "KMeans", Watched)
    monkeypatch.setattr(clustering, "MAX_GROUPS", 20)
    points = np.random.default_rng(0).normal(size=(900, 3))
    probs = np.random.default_rng(0).dirichlet(np.ones(3), 900)
    assert len(set(alps(points, 300, np.random.default_rng(0)).tolist())) == 300
    assert len(set(cluster_entropy(probs, points, 300, np.random.default_rng(0)).tolist())) == 300
    assert set(asked) == {20}


def test_a_draw_is_everything_up_to_the_limit_and_leaves_the_generator_alone():
    rng = np.random.default_rng(0)
    assert draw(50, 3, rng, 50).tolist() == list(range(50))
    assert draw(50, 30, rng, 10).tolist() == list(range(50))  # twice k
    assert rng.random() == np.random.default_rng(0).random()
    assert len(np.unique(draw(1_000, 3, rng, 50))) == 50


def blobs(size: int, groups: int, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    group = rng.integers(groups, size=size)
    return 15 * rng.normal(size=(groups, width))[group] + rng.normal(size=(size, width)), group


@pytest.mark.parametrize(
    "select",
    [
        alps,
        lambda x, k, rng, **o: acquisition.typiclust(x, k, rng, **o),
        lambda x, k, rng, **o: acquisition.probcover(x, k, rng, classes=8, **o),
        lambda x, k, rng, **o: acquisition.coreset(x, k, rng, **o),
    ],
    ids=["alps", "typiclust", "probcover", "coreset"],
)
def test_a_tenth_of_2000_covers_the_groups_that_all_of_them_cover(select):
    points, group = blobs(2_000, 8)
    exact = set(group[select(points, 8, np.random.default_rng(0))].tolist())
    bounded = set(group[select(points, 8, np.random.default_rng(0), limit=200)].tolist())
    assert exact == bounded == set(range(8))


def test_bounded_cluster_entropy_is_as_uncertain_and_mostly_the_same():
    points, _ = blobs(2_000, 8)
    probs = np.random.default_rng(2).dirichlet(np.ones(4), 2_000)
    exact = cluster_entropy(probs, points, 40, np.random.default_rng(0))  # of 400 candidates
    bounded = cluster_entropy(probs, points, 40, np.random.default_rng(0), limit=300)
    scores = entropy(probs)
    assert scores[bounded].mean() >= scores[exact].mean()
    assert len(set(exact.tolist()) & set(bounded.tolist())) >= 20


def test_bounded_badge_begins_with_and_spreads_over_gradients_as_long_as_the_exact_ones():
    points, group = blobs(2_000, 8)
    probs = np.random.default_rng(2).dirichlet(np.ones(4), 2_000)
    lengths = np.sqrt(((probs - np.eye(4)[probs.argmax(1)]) ** 2).sum(1) * (points**2).sum(1))
    exact = [badge(probs, points, 20, np.random.default_rng(s)) for s in range(8)]
    bounded = [badge(probs, points, 20, np.random.default_rng(s), limit=200) for s in range(8)]
    assert lengths[np.concatenate(bounded)].mean() > 0.9 * lengths[np.concatenate(exact)].mean()
    assert lengths[np.concatenate(bounded)].mean() > 1.1 * lengths.mean()
    assert min(len(set(group[chosen].tolist())) for chosen in bounded) >= 5


def test_sparse_regions_are_found_with_neighbours_from_a_sample():
    points = np.random.default_rng(0).standard_t(3, size=(2_000, 4))
    exact = set(dacs(points, 100, np.random.default_rng(0)).tolist())
    bounded = dacs(points, 100, np.random.default_rng(0), reference=400)
    assert len(exact & set(bounded.tolist())) >= 70
    few = dacs(points, 20, np.random.default_rng(0), limit=400)
    assert sparsity(points)[few].mean() > 3 * sparsity(points).mean()


def test_bmal_with_neighbours_from_a_sample_finds_the_same_doubtful_ones():
    points, _ = blobs(2_000, 4, width=2)
    probs = np.tile([0.9, 0.1], (2_000, 1))
    odd = np.arange(0, 2_000, 100)
    probs[odd] = [0.1, 0.9]
    bounded = bmal(points, 20, np.random.default_rng(0), probs=probs, reference=400)
    assert set(bounded.tolist()) == set(odd.tolist())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_are_those_of_all_distances(dtype, monkeypatch):
    monkeypatch.setattr("after_model.neighbours._BLOCK", 500)
    points = np.random.default_rng(0).normal(size=(60, 5)).astype(dtype)
    among = np.arange(0, 60, 2)
    squared = ((points[:, None].astype(float) - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    rows, distance = nearest(points, 4, among)
    np.testing.assert_array_equal(rows, among[np.argsort(squared[:, among], axis=1)[:, :4]])
    np.testing.assert_allclose(distance, np.sort(squared[:, among], axis=1)[:, :4], rtol=1e-4)


def test_groups_found_in_few_dimensions_are_as_good_as_those_found_in_all(monkeypatch):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 300))
    points = clustering.prepare(centres[rng.integers(30, size=600)] + rng.normal(size=(600, 300)))
    few = [clustering.fit(points, 8, np.random.default_rng(s)).distances.sum() for s in range(6)]
    monkeypatch.setattr(clustering, "DIMENSIONS", 300)
    full = [clustering.fit(points, 8, np.random.default_rng(s)).distances.sum() for s in range(6)]
    assert np.mean(few) < 1.005 * np.mean(full)


def test_embeddings_in_half_precision_are_prepared_in_single():
    points = np.random.default_rng(0).normal(size=(40, 3))
    assert clustering.prepare(points.astype(np.float16)).dtype == np.float32
    assert clustering.prepare(points).dtype == np.float64
