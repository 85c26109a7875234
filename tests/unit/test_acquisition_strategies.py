"""What holds for every strategy: found by file, k, order, ties, determinism."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from after_model import acquisition
from after_model.acquisition import Pool, cluster_entropy, entropy, get, names, top_k

every_strategy = pytest.mark.parametrize("name", names())  # a new file is tested without a word
OF_EMBEDDINGS = [name for name in names() if "embeddings" in get(name).needs]


def pool_of(size: int, seed: int = 0, classes: int = 4) -> Pool:
    rng = np.random.default_rng(seed)
    mc_probs = rng.dirichlet(np.ones(classes), (5, size))
    return Pool(
        probs=mc_probs.mean(axis=0),
        embeddings=rng.normal(size=(size, 6)),
        mc_probs=mc_probs,
        surprisal=rng.random((size, 8)),
        labelled_embeddings=rng.normal(size=(9, 6)),
        labelled_targets=rng.dirichlet(np.ones(classes), 9),
    )


def selected(name: str, pool: Pool, k: int, seed: int = 0) -> list[int]:
    return get(name).select(pool, k, np.random.default_rng(seed)).tolist()


def test_names_lists_every_strategy():
    assert names() == [
        "alps",
        "alps-surprisal",
        "badge",
        "batchbald",
        "cluster-entropy",
        "cluster-margin",
        "coreset",
        "dropquery",
        "entropy",
        "least-confidence",
        "margin",
        "probcover",
        "random",
        "typiclust",
    ]


@every_strategy
def test_a_strategy_is_called_as_it_was_asked_for(name):
    assert get(name).name == name


def test_the_name_of_the_file_will_do():
    assert get("least_confidence") is get("least-confidence")


@pytest.mark.parametrize("name", ["nonsense", "base", "annotators", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown acquisition strategy .* known: alps, .*random"):
        get(name)


def test_a_new_file_in_the_folder_is_all_a_new_strategy_takes(tmp_path, monkeypatch):
    (tmp_path / "first_come.py").write_text(
        "import numpy as np\n"
        "from after_model.acquisition.base import ByScore\n"
        "STRATEGY = ByScore('first-come', frozenset(), lambda pool: -np.arange(len(pool)))\n"
    )
    monkeypatch.setattr(acquisition, "__path__", [*acquisition.__path__, str(tmp_path)])
    try:
        assert "first-come" in names()
        assert selected("first-come", Pool(size=9), 3) == [0, 1, 2]
    finally:
        sys.modules.pop("after_model.acquisition.first_come", None)
        vars(acquisition).pop("first_come", None)


def test_the_highest_scores_are_selected_and_not_those_of_the_published_code():
    """The published code takes np.argpartition(scores, k)[-k:]: what is above the k-th smallest,
    and of that the last k of an unordered array. Most of it is not in the top k."""
    scores = np.random.default_rng(0).random(4_500)
    k = 225
    top = set(np.argsort(scores)[-k:].tolist())
    published = np.argpartition(scores, k)[-k:].tolist()
    assert len(top & set(published)) < 0.4 * k
    assert set(top_k(scores, k).tolist()) == top


@pytest.mark.parametrize("name", ["entropy", "least-confidence", "margin"])
def test_an_uncertainty_strategy_selects_its_true_top_k_in_order(name):
    pool = pool_of(300)
    measure = getattr(acquisition, name.replace("-", "_"))
    scores = measure(pool.need("probs"))
    assert selected(name, pool, 40) == sorted(range(300), key=lambda i: (-scores[i], i))[:40]


@pytest.mark.parametrize("name", ["entropy", "least-confidence", "margin", "batchbald"])
def test_equal_utterances_are_selected_in_utterance_order(name):
    mc_probs = np.tile([[0.7, 0.2, 0.1]], (3, 50, 1))
    mc_probs[1] = [0.1, 0.2, 0.7]
    pool = Pool(probs=mc_probs.mean(axis=0), mc_probs=mc_probs)
    assert selected(name, pool, 6) == [0, 1, 2, 3, 4, 5]


@every_strategy
@pytest.mark.parametrize(("size", "k"), [(0, 0), (0, 5), (1, 0), (1, 1), (1, 5), (7, 7), (7, 99)])
def test_min_of_k_and_n_distinct_indices_come_back(name, size, k):
    chosen = get(name).select(pool_of(size), k, np.random.default_rng(0))
    assert chosen.dtype == np.int64
    assert chosen.shape == (min(k, size),)
    assert len(set(chosen.tolist()) & set(range(size))) == min(k, size)


@every_strategy
def test_the_same_seed_gives_the_same_selection(name):
    assert selected(name, pool_of(80), 12, seed=3) == selected(name, pool_of(80), 12, seed=3)


def identical(size: int) -> Pool:
    """One utterance `size` times over; its dropout samples differ from each other."""
    mc_probs = np.repeat([[[0.5, 0.3, 0.2]], [[0.1, 0.2, 0.7]], [[0.2, 0.1, 0.7]]], size, axis=1)
    return Pool(
        probs=mc_probs.mean(axis=0),
        embeddings=np.ones((size, 5)),
        mc_probs=mc_probs,
        surprisal=np.zeros((size, 2)),
    )


@every_strategy
def test_identical_utterances_are_no_obstacle(name):
    assert len(set(selected(name, identical(30), 11))) == 11


@pytest.mark.parametrize("name", sorted(set(names()) - {"random", "cluster-margin"}))
def test_identical_utterances_are_asked_for_in_utterance_order(name):
    """Cluster-margin draws within a cluster by chance, as random does everywhere."""
    assert selected(name, identical(30), 6) == [0, 1, 2, 3, 4, 5]


@every_strategy
@pytest.mark.parametrize("distinct", [2, 5])
def test_copies_of_few_utterances_are_no_obstacle(name, distinct):
    full = pool_of(distinct)
    rows = np.arange(40) % distinct
    pool = Pool(
        probs=full.probs[rows],
        embeddings=full.embeddings[rows],
        mc_probs=full.mc_probs[:, rows],
        surprisal=full.surprisal[rows],
    )
    assert len(set(selected(name, pool, 17))) == 17


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_named(name, bad):
    """The pool is so small that every row is a candidate of every strategy."""
    pool = pool_of(12)
    pool.embeddings[7, 2] = bad
    with pytest.raises(ValueError, match=r"embeddings\[7\]"):
        selected(name, pool, 11)


@pytest.mark.parametrize(
    "name", [name for name in names() if "labelled_embeddings" in get(name).uses]
)
def test_a_labelled_embedding_that_is_not_finite_is_named(name):
    pool = pool_of(12)
    pool.labelled_embeddings[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"labelled_embeddings\[3\]"):
        selected(name, pool, 4)


@pytest.mark.parametrize("name", [name for name in names() if "probs" in get(name).needs])
def test_a_row_of_probs_that_is_no_distribution_is_named(name):
    pool = pool_of(12)
    pool.probs[5, 0] = np.nan
    with pytest.raises(ValueError, match=r"probs\[5\]"):
        selected(name, pool, 4)


@pytest.mark.parametrize("name", [name for name in names() if "mc_probs" in get(name).needs])
@pytest.mark.parametrize("draws", [1, 4])
def test_mc_samples_that_agree_are_refused_and_the_way_out_is_named(name, draws):
    """A backbone without dropout: the first k would come back as if they had been chosen."""
    probs = np.random.default_rng(0).dirichlet(np.ones(3), 9)
    pool = Pool(
        probs=probs, mc_probs=np.tile(probs, (draws, 1, 1)), embeddings=pool_of(9).embeddings
    )
    with pytest.raises(ValueError, match=r"samples agree on every utterance.*dropout.*entropy"):
        selected(name, pool, 5)
    assert sorted(selected(name, pool, 9)) == list(range(9))  # there is nothing to choose


@every_strategy
def test_a_negative_k_is_refused(name):
    with pytest.raises(ValueError, match="k must not be negative"):
        get(name).select(pool_of(5), -1, np.random.default_rng(0))


@every_strategy
def test_a_strategy_reads_only_what_it_says_it_needs(name):
    full = pool_of(20)
    read = get(name).needs | get(name).uses
    partial = Pool(**{field: getattr(full, field) for field in read}, size=20)
    assert selected(name, partial, 5) == selected(name, full, 5)


@every_strategy
def test_what_a_strategy_only_uses_may_be_missing(name):
    full = pool_of(20)
    needed = Pool(**{field: getattr(full, field) for field in get(name).needs}, size=20)
    assert len(set(selected(name, needed, 5))) == 5


@every_strategy
def test_a_pool_without_what_is_needed_is_an_error_that_names_it(name):
    for field in get(name).needs:
        with pytest.raises(ValueError, match="needs Pool"):
            selected(name, Pool(size=4), 2)
        assert field in Pool.__dataclass_fields__


def test_pool_arrays_must_agree_on_the_number_of_utterances():
    with pytest.raises(ValueError, match="disagree"):
        Pool(probs=np.full((3, 2), 0.5), embeddings=np.zeros((4, 2)))


def test_labelled_arrays_must_agree_on_what_is_labelled():
    with pytest.raises(ValueError, match="differ in rows"):
        Pool(size=3, labelled_embeddings=np.zeros((4, 2)), labelled_targets=np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("name", "approved"),
    [
        ("badge", [158, 125, 54, 7, 3]),
        ("batchbald", [188, 73, 158, 144, 10]),
        ("entropy", [190, 174, 10, 49, 109]),
        ("least-confidence", [190, 10, 174, 109, 25]),
        ("margin", [124, 73, 190, 67, 168]),
        ("random", [105, 6, 168, 90, 65]),
    ],
)
def test_selections_are_the_approved_ones(name, approved):
    """A change here is a change of what people are asked: make it on purpose."""
    assert selected(name, pool_of(200), 5) == approved


def test_top_k_refuses_nan_and_names_it():
    with pytest.raises(ValueError, match=r"scores\[1\] is NaN"):
        top_k(np.array([0.0, np.nan]), 1)


def test_random_gives_every_utterance_the_same_chance():
    counts = np.bincount(
        np.concatenate([selected("random", Pool(size=10), 3, seed) for seed in range(600)])
    )
    assert counts.min() > 130  # 180 expected
    assert counts.max() < 230


def test_cluster_entropy_takes_uncertain_ones_of_different_groups():
    """Three groups of ten; one group holds the ten most uncertain."""
    uncertainty = np.r_[np.linspace(0.50, 0.45, 10), np.linspace(0.4, 0.3, 20)]
    probs = np.stack([uncertainty, 1 - uncertainty], axis=1)
    embeddings = np.repeat([[0.0, 0], [10, 0], [0, 10]], 10, axis=0)
    embeddings += np.random.default_rng(0).normal(size=embeddings.shape) * 0.1
    chosen = cluster_entropy(probs, embeddings, 3, np.random.default_rng(0))
    assert chosen.tolist() == [0, 10, 20]
    assert selected("entropy", Pool(probs=probs), 3) == [0, 1, 2]


def test_cluster_entropy_with_one_candidate_each_is_entropy():
    pool = pool_of(100)
    chosen = cluster_entropy(
        pool.need("probs"), pool.need("embeddings"), 9, np.random.default_rng(0), beta=1
    )
    np.testing.assert_array_equal(chosen, top_k(entropy(pool.need("probs")), 9))
