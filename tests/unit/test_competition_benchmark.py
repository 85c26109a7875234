"""`python -m benchmarks competition`: what it measures of a fold, and how it sums up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import balanced_accuracy_score

from after_model import backbone as backbones
from benchmarks import competition
from simulate.data import Corpus, Item
from simulate.protocols import Fold


@pytest.fixture
def corpus(recordings) -> Corpus:
    items = [Item(u.id, u.path, speaker=f"s{i // 2 % 4}") for i, u in enumerate(recordings)]
    labels = tuple("hum" if i % 2 == 0 else "hiss" for i in range(16))
    return Corpus.labelled("made-up", items, labels, ("hum", "hiss"))


def test_a_fold_is_measured_on_what_none_has_learnt(corpus, tiny_backbone, tmp_path: Path):
    found = competition.embedded(corpus, backbones.load(tiny_backbone), tmp_path)
    again = competition.embedded(corpus, backbones.load(tiny_backbone), tmp_path)
    np.testing.assert_array_equal(found.points, again.points)
    fold = Fold("fold-1", np.arange(8), np.arange(8, 12), np.arange(12, 16))
    row = competition.measure(found, fold, 1.0, seed=0)
    assert row["labels"] == 12
    assert row["classes"] == [0, 1, 0, 1]
    assert np.shape(row["probe"]) == np.shape(row["adapter"]) == (4, 2)
    assert row["probe"] != row["adapter"]
    assert np.isfinite([row["gain"], row["error"]]).all()
    few = competition.measure(found, fold, 0.5, seed=0)
    assert few["labels"] == 6
    assert "gain" not in few
    assert not few["helps"]


def test_folds_count_alike_and_what_is_kept_is_what_the_comparison_says():
    rng = np.random.default_rng(0)
    rows = [
        {
            "classes": (kinds := rng.integers(3, size=size)).tolist(),
            "probe": rng.normal(size=(size, 3)),
            "adapter": rng.normal(size=(size, 3)) + 2 * np.eye(3)[kinds],
            "helps": helps,
        }
        for size, helps in ((20, True), (50, False))
    ]
    found = competition.summary(rows)
    for way, names in (
        ("probe", ("probe", "probe")),
        ("adapter", ("adapter", "adapter")),
        ("kept", ("adapter", "probe")),
    ):
        logits = [row[name] for row, name in zip(rows, names, strict=True)]
        ua = [
            balanced_accuracy_score(row["classes"], z.argmax(1))
            for row, z in zip(rows, logits, strict=True)
        ]
        loss = [
            -log_softmax(z, axis=1)[range(len(z)), row["classes"]].mean()
            for row, z in zip(rows, logits, strict=True)
        ]
        assert found[way]["ua"] == pytest.approx(np.mean(ua))
        assert found[way]["loss"] == pytest.approx(np.mean(loss))


def test_without_a_corpus_there_is_nothing_to_do(capsys):
    assert competition.main([]) == 2
    assert "--emodb" in capsys.readouterr().err
