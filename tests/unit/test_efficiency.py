"""Label efficiency: what a run may know, what is kept of it, and what the report says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from after_model.audio import Utterance
from simulate.corpora import Corpus
from simulate.efficiency import report
from simulate.efficiency.__main__ import arms_of, splits
from simulate.efficiency.runs import (
    Arm,
    Learner,
    Recordings,
    Setting,
    Split,
    as_row,
    counts,
    curve,
    everything,
    run_id,
)
from simulate.efficiency.summary import summarise
from simulate.efficiency.work import divided

SETTING = Setting(shares=(0.05, 0.1, 0.2, 0.3, 0.4), dense=0.4)
SPLIT = Split("made-up", "0" * 16, 0, 0, 5)


def recordings(seed: int = 0, size: int = 120, classes: int = 3) -> Recordings:
    """Classes that are apart, speakers that are as well: learnable, not at once."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % classes
    centres = rng.normal(0, 1.0, (classes, 8))
    points = (centres[labels] + rng.normal(0, 1, (size, 8))).astype(np.float32)
    test = np.arange(size) >= size * 3 // 4
    speakers = np.where(test, "test", "known")
    return Recordings(
        points[~test],
        labels[~test],
        tuple(speakers[~test]),
        points[test],
        labels[test],
        tuple(speakers[test]),
        classes,
    )


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("strategy", ["random", "margin", "cluster-entropy", "batchbald"])
def test_a_curve_has_as_many_labels_as_each_share_says(strategy: str) -> None:
    points = curve(recordings(), SETTING, Arm(strategy, "random", 0.05), rng())
    assert [p["labels"] for p in points] == [4, 9, 18, 27, 36]


def test_the_same_seed_gives_the_same_curve() -> None:
    arm = Arm("margin", "kmeans")
    assert curve(recordings(), SETTING, arm, rng()) == curve(recordings(), SETTING, arm, rng())


def test_labels_nobody_gave_change_no_question() -> None:
    known = recordings()
    learner = Learner(known, SETTING)
    learner.tell(np.arange(12))
    hidden = known.labels.copy()
    hidden[12:] = (hidden[12:] + 1) % known.classes
    other = Learner(replace(known, labels=hidden, test_labels=known.test_labels[::-1]), SETTING)
    other.tell(np.arange(12))
    assert (learner.ask("margin", 10, rng()) == other.ask("margin", 10, rng())).all()


def test_nothing_labelled_is_asked_for_again() -> None:
    learner = Learner(recordings(), SETTING)
    learner.tell(np.arange(0, 90, 2))
    asked = learner.ask("entropy", 90, rng())
    assert sorted(asked) == list(range(1, 90, 2))


def test_all_labels_do_not_depend_on_the_order_they_came_in() -> None:
    known = recordings()
    learner = Learner(known, SETTING)
    learner.tell(np.random.default_rng(0).permutation(len(known.labels)))
    assert learner.test()["ua"] == pytest.approx(everything(known, SETTING)["ua"])


def test_shares_that_give_one_number_of_labels_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="further apart"):
        counts((0.01, 0.02), 10)


@pytest.mark.parametrize(
    "other",
    [
        (replace(SPLIT, fold=1), SETTING, Arm("margin", "random"), "a"),
        (SPLIT, replace(SETTING, speakers=True), Arm("margin", "random"), "a"),
        (SPLIT, SETTING, Arm("margin", "random", 0.03), "a"),
        (SPLIT, SETTING, None, "a"),
        (SPLIT, SETTING, Arm("margin", "random"), "b"),
    ],
)
def test_what_determines_a_result_is_in_its_name(other: tuple) -> None:
    assert run_id(*other) != run_id(SPLIT, SETTING, Arm("margin", "random"), "a")


def test_arms_are_run_once_each_random_first() -> None:
    arms = arms_of(("random", "margin"), ("random", "kmeans"), "margin", "random", 0.02)
    names = ["random, random start", "margin, random start", "margin, kmeans start"]
    assert [arm.name for arm in arms] == names


def corpus(speakers: int = 6, each: int = 6) -> Corpus:
    utterances = tuple(
        Utterance(f"u{i}", Path(__file__), f"s{i // each}") for i in range(speakers * each)
    )
    labels = tuple("ab"[i % 2] for i in range(len(utterances)))
    return Corpus("made-up", utterances, labels, ("a", "b"))


def test_a_split_keeps_speakers_apart_and_holds_nothing_out() -> None:
    whole = corpus()
    points = np.arange(len(whole), dtype=np.float32)[:, None]
    for split in splits(whole, 2, 3):
        found = divided(whole, points, split)
        assert not set(found.speakers) & set(found.test_speakers)
        together = np.concatenate([found.points, found.test_points])[:, 0]
        assert sorted(together) == list(range(len(whole)))


def rows_of(arms: list[Arm], known: range) -> list[dict]:
    rows = []
    for fold in known:
        split, data = replace(SPLIT, fold=fold), recordings(fold)
        for arm in (*arms, None):
            points = (
                curve(data, SETTING, arm, np.random.default_rng(fold))
                if arm
                else [everything(data, SETTING)]
            )
            row = as_row(run_id(split, SETTING, arm, "a"), split, arm, points)
            rows.append({**row, "pool": len(data.labels), "tested": len(data.test_labels)})
    return rows


def test_differences_are_of_the_same_splits() -> None:
    arms = arms_of(("margin",), (), "margin", "random", 0.05)
    rows = rows_of(arms, range(3))
    found = summarise(rows, arms)[0]
    at_20 = {r["split"]["fold"]: r["curve"][2]["ua"] for r in rows if r["name"] == arms[1].name}
    random = {r["split"]["fold"]: r["curve"][2]["ua"] for r in rows if r["name"] == arms[0].name}
    by_hand = np.mean([at_20[fold] - random[fold] for fold in range(3)])
    assert found.against[2].share == 0.2
    assert found.against[2].difference.mean == pytest.approx(by_hand)
    assert found.test_share == pytest.approx(1 / 3)


def test_a_split_that_is_not_finished_counts_for_nothing() -> None:
    arms = arms_of(("margin",), (), "margin", "random", 0.05)
    rows = rows_of(arms, range(3))
    assert summarise(rows[:-1], arms)[0].splits == 2


def test_the_report_has_every_arm_and_the_curves(tmp_path: Path) -> None:
    arms = arms_of(("margin",), ("kmeans",), "margin", "random", 0.05)
    rows = rows_of(arms, range(2))
    text = report.write(rows, arms, SETTING, "the command", tmp_path).read_text()
    assert all(f"| {arm.name} |" in text for arm in arms)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(row["curve"]) for row in rows)
    assert (tmp_path / "made-up.png").stat().st_size > 10_000


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    text = report.write([], [], SETTING, "the command", tmp_path).read_text()
    assert "No corpus has two splits" in text
