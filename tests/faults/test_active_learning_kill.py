"""A learner killed with SIGKILL at any point goes on to exactly the run that it would have been."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.audio import Utterance
from after_model.classifier import EmotionClassifier
from after_model.classifier.finetuning import TrainingConfig
from after_model.labels import LabelSpace
from after_model.model_store import ModelStore
from after_model.tapt import TaptConfig

LABELS = LabelSpace(("hum", "hiss"))
CONFIG = LearnerConfig.preset(
    "paper",
    start_share=1 / 3,
    budget_share=0.75,
    rounds=2,
    strategy="batchbald",
    warm_start="previous",
    mc_samples=2,
    training=TrainingConfig(epochs=2, batch_size=8, min_steps_per_epoch=1, precision="fp32"),
    tapt=TaptConfig(
        max_steps=4, batch_seconds=4.0, save_every=2, precision="fp32", collapse_steps=100
    ),
)


class Killer:
    """Counts what happens in a learner's process and ends it, for good, at the nth of something."""

    def __init__(self, what: str, nth: int) -> None:
        self.what = what
        self.left = nth

    def __call__(self, what: str, *_: object) -> None:
        if self.what in (what, "anything"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: type, method: str) -> None:
        """Count the moments before and after a method too."""
        original = getattr(owner, method)

        def watched(*args: object, **options: object) -> object:
            self(f"before {method}")
            result = original(*args, **options)
            self(f"after {method}")
            return result

        setattr(owner, method, watched)


def run(
    folder: Path, backbone: Path, recordings: list[Utterance], what: str = "", nth: int = 0
) -> None:
    """A whole run in this process, to its end or to the nth event."""
    killer = Killer(what, nth)
    killer.watch(ActiveLearner, "_save_state")
    killer.watch(ActiveLearner, "tell")
    killer.watch(ModelStore, "publish")
    killer.watch(ModelStore, "prune")
    killer.watch(EmotionClassifier, "save")
    killer.watch(os, "replace")  # of state.json and of every entry of the feature store
    learner = ActiveLearner(
        recordings[:12],
        LABELS,
        dataclasses.replace(CONFIG, backbone=str(backbone)),
        folder,
        validation=(recordings[12:], [LABELS.names[int(u.id) % 2] for u in recordings[12:]]),
        progress=killer,
    )
    learner.adapt()
    while (wanted := learner.ask()) or learner.stale:
        learner.tell({name: LABELS.names[int(name) % 2] for name in wanted})
        learner.train()


@pytest.fixture
def start(processes: BaseContext, tiny_backbone: Path, recordings: list[Utterance]):
    """start(folder, what, nth): run() in a process of its own; its exit code."""

    def started(folder: Path, what: str = "", nth: int = 0) -> int | None:
        process = processes.Process(target=run, args=(folder, tiny_backbone, recordings, what, nth))
        process.start()
        process.join(300)
        return process.exitcode

    return started


def history(folder: Path) -> dict:
    """What a run came to: labels in the order they were asked for, and every round."""
    state = json.loads((folder / "state.json").read_text())
    curve = [
        {name: value for name, value in record.items() if not name.endswith("_seconds")}
        for record in state["curve"]
    ]
    return {"labels": state["labels"], "order": list(state["labels"]), "curve": curve}


def weights(folder: Path) -> dict[str, np.ndarray]:
    version = folder / "models" / "versions" / ModelStore(folder / "models").current()
    return {
        **load_file(version / "model.safetensors"),
        **load_file(version / "head.safetensors"),
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, processes, tiny_backbone, recordings) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = processes.Process(target=run, args=(folder, tiny_backbone, recordings))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert len(history(folder)["curve"]) == 3
    return folder


def check_same(folder: Path, expected: Path) -> None:
    assert history(folder) == history(expected)
    ours, theirs = weights(folder), weights(expected)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert not list((folder / "models").glob(".unfinished-*"))


@pytest.mark.parametrize(
    ("what", "nth"),
    [
        pytest.param("features", 5, id="while features are computed"),
        pytest.param("before replace", 3, id="between writing an entry and naming it"),
        pytest.param("tapt", 3, id="during TAPT after a checkpoint"),
        pytest.param("before _save_state", 1, id="between TAPT and saving that it is done"),
        pytest.param("before _save_state", 2, id="between selecting and saving what"),
        pytest.param("after tell", 2, id="between the answers and training"),
        pytest.param("training", 3, id="while the second round trains"),
        pytest.param("after save", 2, id="while a model is being published"),
        pytest.param("after publish", 2, id="between publishing and saving the state"),
        pytest.param("before prune", 2, id="between saving the state and pruning"),
    ],
)
def test_a_run_killed_at_a_point_ends_as_if_it_had_not_been(
    start, tmp_path, uninterrupted, what, nth
):
    assert start(tmp_path, what, nth) == -signal.SIGKILL
    assert start(tmp_path) == 0
    check_same(tmp_path, uninterrupted)


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(start, tmp_path, uninterrupted):
    rng = np.random.default_rng(0)
    kills = 0
    while (code := start(tmp_path, "anything", int(rng.integers(20, 60)))) != 0:
        assert code == -signal.SIGKILL
        kills += 1
        assert kills < 30
    assert kills >= 3
    check_same(tmp_path, uninterrupted)
