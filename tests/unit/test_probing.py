"""A head that begins as a linear probe: against scikit-learn, with absent classes, soft labels."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from after_model import backbone, metrics
from after_model.classifier import new_classifier
from after_model.classifier.probing import INVERSE_REGULARISATION, cross_validated, probe
from after_model.classifier.scoring import score
from after_model.features import FeatureStore


@pytest.fixture(scope="module")
def store(tiny_backbone, recordings, tmp_path_factory):
    store = FeatureStore(tmp_path_factory.mktemp("store"), backbone.load(tiny_backbone), exact=True)
    store.fill(recordings)
    return store


def probed(store, recordings, classes, count, head="linear"):
    classifier = new_classifier(store.backbone, count, head)
    targets = np.eye(count, dtype=np.float32)[classes]
    probe(classifier, store, (recordings, targets))
    return classifier


@pytest.mark.parametrize("head", ["linear", "published", "statistics"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_head_predicts_what_the_regression_predicts(store, recordings, count, head):
    classes = np.arange(len(recordings)) % count
    classifier = probed(store, recordings, classes, count, head)
    scores = score(classifier, store, recordings)
    points = scores.embeddings.astype(np.float64)
    scaled = (points - points.mean(axis=0)) / (points.std(axis=0) + 1e-6)
    oracle = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2_000).fit(scaled, classes)
    np.testing.assert_allclose(scores.probs, oracle.predict_proba(scaled), atol=1e-3)


def test_a_class_without_a_label_is_unlikely_but_possible(store, recordings):
    classifier = probed(store, recordings, np.arange(len(recordings)) % 2, 4)
    probs = score(classifier, store, recordings).probs
    assert (probs[:, 2:] > 0).all()
    assert (probs[:, 2:].sum(axis=1) < probs[:, :2].sum(axis=1)).all()


def test_one_class_only_leaves_the_head_as_it_was(store, recordings):
    before = new_classifier(store.backbone, 3, "linear").head.linear.weight.detach().numpy()
    after = probed(store, recordings, np.zeros(len(recordings), int), 3)
    np.testing.assert_array_equal(after.head.linear.weight.detach().numpy(), before)


def test_a_soft_label_counts_as_votes_of_its_weight(store, recordings):
    classifier = new_classifier(store.backbone, 2)
    probe(classifier, store, (recordings, np.full((len(recordings), 2), 0.5, np.float32)))
    probs = score(classifier, store, recordings).probs
    np.testing.assert_allclose(probs, 0.5, atol=1e-3)


def test_cross_validation_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1, 2], 10)
    points = rng.normal(size=(30, 4)) + classes[:, None]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, max_iter=2_000)
    )
    split = PredefinedSplit(np.tile(np.arange(10) % 5, 3))
    probs = cross_val_predict(model, points, classes, cv=split, method="predict_proba")
    expected = metrics.evaluate(classes, probs)
    assert cross_validated(points, np.eye(3)[classes]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("classes", [[0], [0, 0, 0], [0, 1], [0, 0, 1, 2]])
def test_too_few_labels_estimate_nothing(classes):
    assert cross_validated(np.ones((len(classes), 2)), np.eye(3)[classes]) == {}


@pytest.mark.parametrize("classes", [[0, 1, 0, 1], [0, 0, 1, 1, 2], [2, 2, 0, 0, 0, 1, 1]])
def test_few_labels_estimate_something(classes):
    points = np.random.default_rng(1).normal(size=(len(classes), 3))
    assert 0 <= cross_validated(points, np.eye(3)[classes])["ua"] <= 1
