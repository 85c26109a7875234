"""Label efficiency: what a run may know, what is kept of it, and what the report says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from after_model import backbone
from after_model.active_learning import ActiveLearner
from after_model.active_learning.serving import ServingProbe
from after_model.audio import Utterance
from after_model.classifier.embedding import Embedder
from after_model.features import Embeddings
from after_model.labels import LabelSpace
from simulate.data import Corpus, Item
from simulate.efficiency import report, runs
from simulate.efficiency.__main__ import arms_of, splits
from simulate.efficiency.runs import Arm, Driven, Setting, Split, as_row, counts, run_id
from simulate.efficiency.summary import summarise
from simulate.efficiency.work import fold_of
from simulate.protocols import Fold
from simulate.task import opened

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
SPLIT = Split("made-up", "0" * 16, 0, 0, 5)
CLASSES = ("a", "b", "c")
SIZE, POOL = 120, 90

Drive = Callable[..., Driven]


class MadeStore:
    """What a learner asks of a feature store where all embeddings are known."""

    def __init__(self, folder: Path, encoder: Any) -> None:
        self.root, self.backbone = folder, encoder

    def fill(self, utterances: Sequence[Utterance], progress: Any = None) -> list:
        return []

    def keys(self, utterances: Sequence[Utterance]) -> list[str]:
        return [f"{int(u.id):032x}" for u in utterances]


@pytest.fixture
def drive(tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    """drive(seed=0, hidden=None, **setting): classes that are apart, learnable, not at once.

    hidden: labels in the place of the true ones.
    """
    encoder = backbone.load(str(tiny_backbone))
    embedder = Embedder(encoder)

    def make(seed: int = 0, hidden: Sequence[str] | None = None, **changes: Any) -> Driven:
        rng = np.random.default_rng(seed)
        kinds = np.arange(SIZE) % len(CLASSES)
        centres = rng.normal(0, 1.0, (len(CLASSES), embedder.width))
        points = (centres[kinds] + rng.normal(0, 2, (SIZE, embedder.width))).astype(np.float32)
        folder = tmp_path / f"made-{seed}"
        store = MadeStore(folder, encoder)
        # of a file that is there: what is gone can't be labelled
        speakers = ["known" if i < POOL else "test" for i in range(SIZE)]
        items = [Item(str(i), Path(__file__), speaker=speakers[i]) for i in range(SIZE)]
        utterances = [item.utterance for item in items]
        disk = Embeddings(folder / "embeddings", embedder.name, embedder.width)
        disk.append(store.keys(utterances), points)
        monkeypatch.setattr(ActiveLearner, "store", property(lambda self: store))
        labels = tuple(hidden or [CLASSES[kind] for kind in kinds])
        whole, nobody = np.arange(SIZE), np.zeros(0, np.int64)
        task = opened(
            Corpus.labelled("made-up", items, labels, CLASSES),
            Fold("fold-1", whole[:POOL], nobody, whole[POOL:]),
        )
        setting = Setting(**{"backbone": str(tiny_backbone), "shares": SHARES, "dense": 0.4}
                          | changes)  # fmt: skip
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return Driven(task, setting, folder, tmp_path / "features", seed)

    return make


@pytest.mark.parametrize("strategy", ["random", "margin", "cluster-entropy", "batchbald"])
def test_a_curve_has_as_many_labels_as_each_share_says(strategy: str, drive: Drive) -> None:
    points = drive().curve(Arm(strategy, "random", 0.05))
    assert [p["labels"] for p in points] == [4, 9, 18, 27, 36]


def test_arms_that_share_a_learner_know_nothing_of_each_other(drive: Drive) -> None:
    arm = Arm("margin", "kmeans")
    alone, shared = drive(), drive()
    expected = alone.curve(arm)
    for other in (Arm("entropy", "random"), Arm("random", "kmeans")):
        shared.curve(other)
    shared.everything()
    assert shared.curve(arm) == expected
    assert shared.learner.labelled == alone.learner.labelled


@pytest.mark.parametrize("strategy", ["random", "margin", "typiclust"])
def test_a_run_asks_for_what_the_product_asks_for(
    strategy: str, drive: Drive, tmp_path: Path
) -> None:
    driven = drive(shares=(0.2, 0.3, 0.4))
    driven.curve(Arm(strategy, "coreset", 0.05))
    config = replace(
        driven.learner.config, strategy=strategy, start="coreset", shares=(0.2, 0.3, 0.4),
        step_size=round(0.05 * POOL),
    )  # fmt: skip
    learner = ActiveLearner(
        driven.view.items, LabelSpace(CLASSES), config, tmp_path / "product", device="cpu"
    )
    learner.adapt()
    while (wanted := learner.ask()) or learner.stale:
        while wanted:
            learner.tell(driven.view.ask(wanted))
            wanted = learner.ask()
        learner.train()
    assert list(driven.learner.labelled) == list(learner.labelled)


def test_labels_nobody_gave_change_no_question(drive: Drive) -> None:
    arm = Arm("margin", "random", 0.05)
    known = drive()
    known.curve(arm)
    asked = known.learner.labelled
    hidden = [CLASSES[(i + (str(i) not in asked)) % 3] for i in range(SIZE)]
    other = drive(hidden=hidden)
    other.curve(arm)
    assert list(other.learner.labelled) == list(asked)


def test_all_labels_do_not_depend_on_what_was_asked_before(drive: Drive) -> None:
    driven = drive()
    expected = driven.everything()
    driven.curve(Arm("margin", "random"))
    assert driven.everything() == expected
    assert expected["labels"] == POOL


@pytest.mark.parametrize("strategy", ["random", "typiclust", "coreset"])
def test_a_strategy_that_reads_no_probe_waits_for_none(
    strategy: str, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = drive().learner
    learner.strategy = runs.acquisition.get(strategy)
    learner.tell({str(i): CLASSES[i % 3] for i in range(12)})
    monkeypatch.delattr(ServingProbe, "fit")
    assert len(learner.choose([str(i) for i in range(12, POOL)], 5)) == 5
    learner.strategy = runs.acquisition.get("margin")
    with pytest.raises(AttributeError):
        learner.choose([str(i) for i in range(12, POOL)], 5)


def test_shares_that_give_one_number_of_labels_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="further apart"):
        counts((0.01, 0.02), 10)


@pytest.mark.parametrize(
    "other",
    [
        (replace(SPLIT, fold=1), Setting(), Arm("margin", "random"), "a"),
        (SPLIT, Setting(speakers=True), Arm("margin", "random"), "a"),
        (SPLIT, Setting(), Arm("margin", "random", 0.03), "a"),
        (SPLIT, Setting(), None, "a"),
        (SPLIT, Setting(), Arm("margin", "random"), "b"),
    ],
)
def test_what_determines_a_result_is_in_its_name(other: tuple) -> None:
    assert run_id(*other) != run_id(SPLIT, Setting(), Arm("margin", "random"), "a")


def test_arms_are_run_once_each_random_first() -> None:
    arms = arms_of(("random", "margin"), ("random", "kmeans"), "margin", "random", 0.02)
    names = ["random, random start", "margin, random start", "margin, kmeans start"]
    assert [arm.name for arm in arms] == names


def corpus(speakers: int = 6, each: int = 6) -> Corpus:
    items = [Item(f"u{i}", Path(__file__), speaker=f"s{i // each}") for i in range(speakers * each)]
    return Corpus.labelled("made-up", items, ["ab"[i % 2] for i in range(len(items))], ("a", "b"))


def test_a_split_keeps_speakers_apart_and_holds_nothing_out() -> None:
    whole = corpus()
    for split in splits(whole, 2, 3):
        found = fold_of(whole, split)
        parts = [{whole.items[i].speaker for i in part} for part in (found.train, found.test)]
        assert not parts[0] & parts[1]
        assert len(found.train) + len(found.test) == len(whole)


def rows_of(drive: Drive, arms: list[Arm], known: range) -> list[dict]:
    rows = []
    for fold in known:
        split, driven = replace(SPLIT, fold=fold), drive(fold)
        for arm in (*arms, None):
            points = driven.curve(arm) if arm else [driven.everything()]
            row = as_row(run_id(split, driven.setting, arm, "a"), split, arm, points)
            rows.append({**row, "pool": POOL, "tested": SIZE - POOL})
    return rows


def test_differences_are_of_the_same_splits(drive: Drive) -> None:
    arms = arms_of(("margin",), (), "margin", "random", 0.05)
    rows = rows_of(drive, arms, range(3))
    found = summarise(rows, arms)[0]
    at_20 = {r["split"]["fold"]: r["curve"][2]["ua"] for r in rows if r["name"] == arms[1].name}
    random = {r["split"]["fold"]: r["curve"][2]["ua"] for r in rows if r["name"] == arms[0].name}
    by_hand = np.mean([at_20[fold] - random[fold] for fold in range(3)])
    assert found.against[2].share == 0.2
    assert found.against[2].difference.mean == pytest.approx(by_hand)
    assert found.test_share == pytest.approx(1 / 3)


def test_a_split_that_is_not_finished_counts_for_nothing(drive: Drive) -> None:
    arms = arms_of(("margin",), (), "margin", "random", 0.05)
    rows = rows_of(drive, arms, range(3))
    assert summarise(rows[:-1], arms)[0].splits == 2


def test_the_report_has_every_arm_and_the_curves(tmp_path: Path, drive: Drive) -> None:
    arms = arms_of(("margin",), ("kmeans",), "margin", "random", 0.05)
    rows = rows_of(drive, arms, range(2))
    text = report.write(rows, arms, Setting(), "the command", tmp_path).read_text()
    assert all(f"| {arm.name} |" in text for arm in arms)
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(row["curve"]) for row in rows)
    assert (tmp_path / "made-up.png").stat().st_size > 10_000


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    text = report.write([], [], Setting(), "the command", tmp_path).read_text()
    assert "No corpus has two splits" in text
