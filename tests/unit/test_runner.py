"""One run from corpus to result row, with the real learner on a tiny corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_runs
import numpy as np
import pytest
from safetensors.numpy import load_file

from after_model.active_learning import ActiveLearner, LearnerConfig
from after_model.classifier.finetuning import TrainingConfig
from after_model.tapt import TaptConfig
from simulate.cache import Cache
from simulate.command.request import parse
from simulate.data import Corpus
from simulate.protocols import Fold, Protocol, folds_of
from simulate.runs import plan
from simulate.runs import running as runner
from simulate.runs.execution import Listener
from simulate.systems.after import After
from simulate.task import TrainView

SHARES = ("--shares", "20,50", "--folds", "2", "--epochs", "1", "--tapt", "off")


class Killed(Exception):
    """Stands in for a kill."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    import soundfile

    folder = tmp_path_factory.mktemp("corpus")

    def write_wav(name: str, samples: object) -> Path:
        soundfile.write(folder / name, samples, 16_000)
        return folder / name

    return fake_runs.load(fake_runs.tiny_corpus(folder, write_wav))


@pytest.fixture(scope="module")
def config(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> plan.Run:
    folder = tmp_path_factory.mktemp("contents")
    return fake_runs.planned(corpus, parse(SHARES), folder)[0]


def fold_of(config: plan.Run, corpus: Corpus) -> Fold:
    return folds_of(config.protocol, corpus)[config.fold]


def listener(point: Callable[[dict], None] = lambda point: None) -> Listener:
    return Listener(lambda stage, done, total: None, point)


def place(corpus: Corpus, folder: Path) -> runner.Place:
    return runner.Place(corpus, folder / "work", Cache(folder / "cache"), device="cpu")


@pytest.fixture(scope="module")
def row(config: plan.Run, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return runner.run(config, place(corpus, tmp_path_factory.mktemp("work")), listener())


def test_a_row_has_a_point_for_every_share(row: dict) -> None:
    assert [point["target_share"] for point in row["curve"]] == [0.2, 0.5]
    assert all(0 <= point["ua"] <= 1 for point in row["curve"])


def test_a_row_counts_the_labels_asked(row: dict) -> None:
    assert row["labels_asked"] == row["curve"][-1]["labelled"]


def test_a_row_holds_its_whole_configuration(row: dict, config: plan.Run) -> None:
    assert row["config"].items() >= config.specification.items()
    assert row["config"]["values"]["learner"]["training"]["epochs"] == 1
    assert row["run_id"] == config.run_id


def test_minutes_grow_and_tapt_left_out_takes_none(row: dict) -> None:
    minutes = [point["minutes"] for point in row["curve"]]
    assert 0 < minutes[0] < minutes[1] == row["minutes"]
    assert row["tapt_minutes"] == 0


@pytest.mark.parametrize("moment", ["tested", "trained", "told", "asked"])
def test_a_killed_run_ends_with_the_same_curve(
    moment: str,
    row: dict,
    config: plan.Run,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise Killed

    where = place(corpus, tmp_path)
    with monkeypatch.context() as patch:
        if moment == "trained":
            patch.setattr(ActiveLearner, "predict", kill)
        elif moment == "told":
            patch.setattr(ActiveLearner, "train", kill)
        elif moment == "asked":
            patch.setattr(ActiveLearner, "tell", kill)
        with pytest.raises(Killed):
            runner.run(config, where, listener(kill if moment == "tested" else lambda point: None))
    resumed = runner.run(config, where, listener())
    seconds = ("minutes", "tapt_minutes")
    expected, found = (
        [{k: v for k, v in point.items() if k not in seconds} for point in r["curve"]]
        for r in (row, resumed)
    )
    assert found == expected
    assert resumed["labels_asked"] == row["labels_asked"]


def test_test_labels_are_scored_and_never_asked(
    config: plan.Run, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answer = TrainView.ask

    def watch(self: TrainView, ids: object) -> dict:
        answers = answer(self, ids)  # type: ignore[arg-type]
        asked.extend(answers)
        return answers

    monkeypatch.setattr(TrainView, "ask", watch)
    runner.run(config, place(corpus, tmp_path), listener())
    fold = fold_of(config, corpus)
    assert set(asked) <= {u.id for u in corpus.pick(fold.train)}


def test_an_unreadable_test_recording_is_left_out_and_told(
    config: plan.Run, corpus: Corpus, tmp_path: Path
) -> None:
    fold = fold_of(config, corpus)
    bad = corpus.pick(fold.test)[0].path
    content = bad.read_bytes()
    bad.write_bytes(b"no audio")
    try:
        found = runner.run(config, place(corpus, tmp_path), listener())
    finally:
        bad.write_bytes(content)
    assert found["test_recordings"] == len(fold.test) - 1
    assert any(bad.name in text for text in found["skipped"])


def test_the_folder_of_a_finished_run_goes_unless_it_is_wanted(
    config: plan.Run, corpus: Corpus, tmp_path: Path
) -> None:
    for keep in (False, True):
        where = replace(place(corpus, tmp_path / str(keep)), keep=keep)
        runner.run(config, where, listener())
        where.clear(config)
        assert (where.run(config) / "models").exists() is keep


@pytest.fixture
def plans(tiny_backbone: Path, tmp_path: Path) -> Callable[[Corpus], list[plan.Job]]:
    """The jobs of one fold with TAPT and fine-tuning."""

    def make(corpus: Corpus) -> list[plan.Job]:
        learner = LearnerConfig.preset("paper", backbone=str(tiny_backbone))
        training = TrainingConfig(epochs=1)
        learner = replace(learner, training=training, tapt=TaptConfig(epochs=1, batch_seconds=4.0))
        arm = plan.Arm("paper", After(learner), (0.4, 0.7))
        protocol = Protocol("official", validation_share=0.2)
        return plan.jobs(plan.runs(corpus, protocol, [arm], [0], Cache(tmp_path / "c"), "cpu"))

    return make


Weights = dict[str, dict[str, np.ndarray]]


def done(jobs: list[plan.Job], corpus: Corpus, folder: Path) -> tuple[list, Weights]:
    """Selections, and every model by its place, of all the jobs done one after the other."""
    where = replace(place(corpus, folder), keep=True)
    outcome = [runner.work(job, where, listener()) for job in jobs][-1]
    run_id = jobs[-1].run.run_id
    weights = {
        str(file.relative_to(folder)).replace(run_id, "run"): load_file(file)
        for file in folder.rglob("*.safetensors")
    }
    return outcome["selections"], weights


def test_neither_tapt_nor_learning_sees_what_is_tested(plans: Callable, tmp_path: Path) -> None:
    same = fake_runs.tones(tmp_path / "a")
    other = fake_runs.tones(tmp_path / "b", test_pitch=37.0, other_labels=True)
    first = done(plans(same), same, tmp_path / "one")
    second = done(plans(other), other, tmp_path / "two")
    assert first[0] == second[0]
    assert len(first[1]) >= 3  # what TAPT made, and two rounds' models
    assert first[1].keys() == second[1].keys()
    for file, weights in first[1].items():
        assert all(np.array_equal(weights[k], second[1][file][k]) for k in weights)


def test_runs_that_differ_in_what_is_tested_alone_share_tapt_and_not_their_names(
    plans: Callable, tmp_path: Path
) -> None:
    same = plans(fake_runs.tones(tmp_path / "a"))
    other = plans(fake_runs.tones(tmp_path / "b", test_pitch=37.0))
    assert [job.kind for job in same] == ["encode", "prepare", "run"]
    assert same[1].id == other[1].id
    assert same[2].id != other[2].id
