"""What the simulation of audits counts, holds and compares, on made-up embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from after_model.classifier.probe import ProbeConfig
from simulate.audits import HOLDS, TELLERS, Run, table
from simulate.points import Recordings

CLASSES, POOL = 3, 400


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, POOL + 100)
    points = rng.normal(size=(CLASSES, 8))[labels] + rng.normal(size=(POOL + 100, 8))
    return Recordings(points[:POOL], labels[:POOL], points[POOL:], labels[POOL:], CLASSES)


def labelled(recordings: Recordings, share: float, hold: str) -> Run:
    start = np.random.default_rng(0).permutation(POOL)[: 2 * CLASSES]
    run = Run(recordings, ProbeConfig(), start, 0, {})
    run.label(share, hold)
    return run


@pytest.mark.parametrize("hold", HOLDS)
def test_audit_labels_are_part_of_the_budget(recordings, hold):
    run = labelled(recordings, 0.1, hold)
    assert len(run._labelled) == POOL // 5
    assert run._audits


@pytest.mark.parametrize("hold", ["wanted", "forever"])
def test_what_is_held_is_not_learnt(recordings, hold):
    run = labelled(recordings, 0.1, hold)
    assert not set(run._learnt.tolist()) & run._audits.keys()


def test_what_judged_the_model_of_its_time_is_learnt(recordings):
    run = labelled(recordings, 0.1, "learnt")
    assert run._audits.keys() <= set(run._learnt.tolist())


def test_what_is_told_stands_beside_what_is_true_of_the_unlabelled(recordings):
    run = labelled(recordings, 0.1, "wanted")
    found = run.outcome(0.1, "wanted")
    rest = np.setdiff1d(np.arange(POOL), run._labelled)
    right = run.believed()[rest].argmax(axis=1) == recordings.labels[rest]
    (told,) = found.told["accuracy"]
    assert told.true == pytest.approx(right.mean())
    assert set(found.told) <= set(TELLERS)
    assert len(table([found]).rows) >= 7
