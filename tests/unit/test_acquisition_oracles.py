"""TypiClust, ProbCover, core-set and DropQuery beside scikit-activeml's, which must be installed.

Its clusterings are given our labels, so that what is compared is the strategy and not k-means; its
ties are random and ours are not, so the data have none.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import CoreSet, DropQuery, ProbCover, TypiClust
from sklearn.linear_model import LogisticRegression

from after_model import clustering
from after_model.acquisition import coreset, dropquery, probcover, typiclust
from after_model.acquisition.probcover import squared_radius
from after_model.neighbours import squared_distances

SEEDS = range(3)
LABELLED = 10


def made_up(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Prepared points [240, 5], so that both sides see the same distances, and y with 10 labels."""
    rng = np.random.default_rng(seed)
    centres = 4 * rng.normal(size=(9, 5))
    points = clustering.prepare(centres[rng.integers(9, size=240)] + rng.normal(size=(240, 5)))
    y = np.full(240, np.nan)
    y[-LABELLED:] = rng.integers(2, size=LABELLED)
    return points, y


class Given:
    """A clustering that is known already, in scikit-learn's words."""

    def __init__(self, n_clusters, labels):
        self.labels = labels

    def fit_predict(self, X):
        return self.labels


@pytest.mark.parametrize("seed", SEEDS)
def test_core_set_is_that_of_scikit_activeml(seed):
    points, y = made_up(seed)
    expected = CoreSet(random_state=0).query(points, y, batch_size=12)
    ours = coreset(points[:-LABELLED], 12, np.random.default_rng(0), labelled=points[-LABELLED:])
    assert ours.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_probcover_begins_with_a_best_cover_by_scikit_activeml(seed):
    """Gains tie, theirs by chance, and after a tie the two go different ways: the first pick."""
    points, y = made_up(seed)
    pool, known = points[:-LABELLED], points[-LABELLED:]
    ours = probcover(pool, 8, np.random.default_rng(seed), classes=4, labelled=known)
    targets = clustering.prepare(np.concatenate([pool, known]))[: len(pool)]
    pseudo = clustering.fit(targets, 4, np.random.default_rng(seed)).labels
    squared = squared_distances(targets, targets)
    delta = np.sqrt(squared_radius(squared, pseudo))
    theirs = ProbCover(n_classes=4, deltas=[delta], random_state=0)
    # Theirs covers what is labelled as well; ours only what can still be asked for.
    utilities = theirs.query(points, y, return_utilities=True)[1][0, :-LABELLED]
    assert utilities[ours[0]] == np.nanmax(utilities)


@pytest.mark.parametrize("seed", SEEDS)
def test_delta_is_the_largest_that_scikit_activeml_finds_pure(seed):
    points, _ = made_up(seed)
    labels = clustering.fit(points, 4, np.random.default_rng(0)).labels
    ours = np.sqrt(squared_radius(squared_distances(points, points), labels))
    theirs = ProbCover(
        n_classes=4,
        deltas=ours * np.linspace(0.5, 1.5, 1_001),
        cluster_algo=Given,
        cluster_algo_dict={"labels": labels},
        random_state=0,
    )
    theirs.query(points, np.full(len(points), np.nan))
    assert theirs.delta_max_ == pytest.approx(ours, rel=0.002)


@pytest.mark.parametrize("seed", SEEDS)
def test_typiclust_is_that_of_scikit_activeml_on_the_same_clusters(seed):
    points, y = made_up(seed)
    pool, known = points[:-LABELLED], points[-LABELLED:]
    labels = clustering.fit(points, LABELLED + 4, np.random.default_rng(seed)).labels
    sizes = np.bincount(labels)
    free = np.setdiff1d(np.arange(len(sizes)), labels[-LABELLED:])
    assert np.count_nonzero(sizes[free] > 5) >= 4
    neighbours = 2  # theirs has the whole number, ours at most half of a cluster
    expected = TypiClust(
        k=neighbours, cluster_algo=Given, cluster_algo_dict={"labels": labels}, random_state=0
    ).query(points, y, batch_size=4)
    ours = typiclust(pool, 4, np.random.default_rng(seed), labelled=known, neighbours=neighbours)
    # Among clusters of one size ours takes the first, theirs any.
    assert sizes[labels[ours]].tolist() == sizes[labels[expected]].tolist()
    of_cluster = dict(zip(labels[expected].tolist(), expected.tolist(), strict=True))
    both = [index for index in ours.tolist() if labels[index] in of_cluster]
    assert len(both) >= 2
    assert all(of_cluster[labels[index]] == index for index in both)


class Recording(SklearnClassifier):
    """Keeps what it predicted: first without dropout, then with."""

    seen: ClassVar[list[np.ndarray]] = []

    def predict(self, X):
        self.seen.append(self.predict_proba(X))
        return super().predict(X)


def test_dropquery_takes_the_candidates_that_scikit_activeml_takes():
    """With as many groups as candidates, each is its own centre: the set of candidates is left."""
    points, y = made_up(0)
    pool = 50 * points[:-LABELLED]
    Recording.seen.clear()
    classifier = Recording(LogisticRegression(), classes=[0, 1], random_state=0)
    classifier.fit(50 * points, y)

    def theirs(count: int) -> tuple[list[int], np.ndarray, np.ndarray]:
        Recording.seen.clear()
        query = DropQuery(n_dropout_samples=5, random_state=7)
        chosen = query.query(50 * points, y, classifier, fit_clf=False, batch_size=count)
        return sorted(chosen.tolist()), Recording.seen[0], np.array(Recording.seen[1:6])

    _, probs, mc_probs = theirs(3)
    changed = np.mean([sample.argmax(1) != probs.argmax(1) for sample in mc_probs], axis=0)
    count = int((changed > 0.5).sum())
    assert 3 < count < 120
    expected, probs, mc_probs = theirs(count)
    ours = dropquery(probs, mc_probs, pool, count, np.random.default_rng(0))
    assert sorted(ours.tolist()) == expected
